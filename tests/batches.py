"""A batch with hard negatives for a small encoder, and its gradients, for the tests of gradcache."""

import numpy as np
import torch
from accelerate import Accelerator

from conftest import LANGUAGES, sample
from hexapla.modeling import encoder as encoders
from hexapla.modeling.encoder import pad_batch, tokenize_texts, unit_vectors
from hexapla.training import gradcache
from hexapla.training.gradcache import LocalBatch
from hexapla.training.loss import ABSENT

PAIRS = 12


def world(folder, dropout, pairs=PAIRS):
    """An encoder, the pieces of a batch with two places for hard negatives, and whose they are."""
    learner = encoders.load(str(folder), prompts={"query": "ask: ", "passage": ""}, device="cpu")
    for module in learner.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = dropout
    learner.model.train()
    rows = [sample(lang)[i] for i in range(pairs) for lang in LANGUAGES[i % 7 : i % 7 + 1]]
    ids = torch.tensor([i // 2 for i in range(pairs)])
    negative_ids = torch.full((2, pairs), 99)
    negative_ids[1, ::2] = ABSENT
    negative_ids[0, 0] = 3
    others = [sample("en")[100 + i]["passage"] for i in range(2 * pairs)]
    questions = tokenize_texts(learner, [row["question"] for row in rows], "query", 24)
    passages = tokenize_texts(learner, [row["passage"] for row in rows], "passage", 48)
    return learner, [questions, passages, tokenize_texts(learner, others, "passage", 48)], ids, negative_ids


def part_of(made, ids, negative_ids, rank=0, ranks=1):
    """What one process takes of it."""
    questions, passages, negatives = made
    pairs = len(ids) // ranks
    mine = range(rank * pairs, (rank + 1) * pairs)
    columns = [[questions[i] for i in mine], [passages[i] for i in mine]]
    texts = [text for column in columns for text in column]
    places = list(range(2 * pairs))
    for kind in range(2):
        there = [i for i in mine if negative_ids[kind, i] != ABSENT]
        texts += [negatives[kind * len(ids) + i] for i in there]
        places += [(2 + kind) * pairs + i - mine.start for i in there]
    lengths = [len(text["input_ids"]) for text in texts]
    return texts, LocalBatch(lengths, np.array(places), 4, pairs, ids, negative_ids)


def gradients(learner, texts, part, objective, memory, accelerator=None, model=None):
    accelerator = accelerator or Accelerator(cpu=True)
    calls = []

    def encode(rows, number):
        calls.append(number)
        torch.manual_seed(number)
        return unit_vectors(model or learner.model, pad_batch(learner, [texts[row] for row in rows]))

    learner.model.zero_grad()
    loss, area = gradcache.add_gradients(
        accelerator, model or learner.model, encode, part, objective=objective, limits=memory
    )
    return loss, area, calls, graded(learner)


def graded(learner):
    weights = learner.model.named_parameters()
    return {name: weight.grad.clone() for name, weight in weights if weight.grad is not None}
