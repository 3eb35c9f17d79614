"""The oracle is plain autograd over the whole batch: one forward pass, one loss, one backward pass."""

from functools import partial

import pytest
import torch
from accelerate import Accelerator

from batches import PAIRS, graded, gradients, part_of, world
from hexapla.modeling.encoder import pad_batch, unit_vectors
from hexapla.training import gradcache
from hexapla.training.gradcache import MemoryLimits, Objective
from hexapla.training.loss import info_nce
from ranks import run

ROOMY = MemoryLimits(forward_tokens=100_000, kept_tokens=1_000_000)


def plainly(learner, made, ids, negative_ids, objective):
    """Autograd through everything at once."""
    texts, part = part_of(made, ids, negative_ids)
    learner.model.zero_grad()
    found = unit_vectors(learner.model, pad_batch(learner, texts))
    block = torch.zeros(4 * len(ids), found.shape[1]).index_copy(0, torch.from_numpy(part.places), found)
    questions, passages, negatives = block[: len(ids)], block[len(ids) : 2 * len(ids)], block[2 * len(ids) :]
    own = torch.arange(len(ids))
    options = {"temperature": objective.temperature, "positives": objective.positives}
    candidate_ids = torch.cat([ids, negative_ids.flatten()])
    loss = info_nce(questions, torch.cat([passages, negatives]), ids, candidate_ids, own, **options)
    if objective.two_sided:
        loss = (loss + info_nce(passages, questions, ids, ids, own, **options)) / 2
    loss.backward()
    return loss.item(), graded(learner)


def alike(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-3
    return max(float((one[name] - other[name]).abs().max()) for name in one) <= tolerance * max(largest, 1)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("positives", ["own", "all"])
@pytest.mark.parametrize(
    "memory", [ROOMY, MemoryLimits(200, 1_000_000), MemoryLimits(200, 900), MemoryLimits(150, 0)]
)
def test_without_dropout_it_is_the_gradient_of_the_whole_batch(tiny_folder, memory, positives, two_sided):
    learner, *batch = world(tiny_folder, dropout=0.0)
    objective = Objective(0.05, two_sided, positives)
    plain_loss, plain = plainly(learner, *batch, objective)
    loss, _, calls, ours = gradients(learner, *part_of(*batch), objective, memory)
    assert loss == pytest.approx(plain_loss, abs=1e-6)
    assert alike(plain, ours)
    assert len(calls) > len(set(calls)) or memory.kept_tokens == 1_000_000


def test_with_dropout_what_is_encoded_twice_has_the_gradients_of_what_is_kept(tiny_folder):
    learner, *batch = world(tiny_folder, dropout=0.2)
    objective = Objective(0.05, two_sided=True)
    made = part_of(*batch)
    kept = gradients(learner, *made, objective, MemoryLimits(200, 1_000_000))
    for tokens in (0, 300, 800):
        again = gradients(learner, *made, objective, MemoryLimits(200, tokens))
        assert again[0] == kept[0]
        assert len(again[2]) > len(kept[2])
        assert all(torch.equal(again[3][name], kept[3][name]) for name in kept[3])
    other = gradients(learner, *made, objective, MemoryLimits(150, 1_000_000))
    assert not alike(kept[3], other[3])


def test_a_large_batch_is_compared_by_blocks(tiny_folder, monkeypatch):
    learner, *batch = world(tiny_folder, dropout=0.0)
    objective = Objective(0.05, two_sided=True)
    whole = gradients(learner, *part_of(*batch), objective, ROOMY)
    monkeypatch.setattr(gradcache, "_SCORES", 5 * 4 * PAIRS)
    blocks = gradients(learner, *part_of(*batch), objective, ROOMY)
    assert blocks[0] == pytest.approx(whole[0], abs=1e-6)
    assert alike(whole[3], blocks[3])


def test_bf16_gives_nearly_the_same_whatever_is_kept(tiny_folder):
    learner, *batch = world(tiny_folder, dropout=0.1)
    texts, part = part_of(*batch)

    def encode(rows, number):
        torch.manual_seed(number)
        return unit_vectors(learner.model, pad_batch(learner, [texts[row] for row in rows]))

    def found(tokens, enabled):
        learner.model.zero_grad()
        gradcache.add_gradients(
            Accelerator(cpu=True),
            learner.model,
            encode,
            part,
            objective=Objective(0.05, two_sided=False),
            limits=MemoryLimits(200, tokens),
            autocast=partial(torch.autocast, "cpu", torch.bfloat16, enabled=enabled),
        )
        return graded(learner)

    full = found(1_000_000, enabled=False)
    for tokens in (1_000_000, 500, 0):
        half = found(tokens, enabled=True)
        assert half.keys() == full.keys()
        for name, gradient in full.items():
            if gradient.norm() > 1e-3:
                cosine = torch.cosine_similarity(gradient.flatten(), half[name].flatten(), dim=0)
                assert cosine > 0.98, (name, tokens)


_SCRIPT = """
import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from hexapla.training.gradcache import MemoryLimits, Objective
from batches import gradients, part_of, world

out = Path(sys.argv[2])
accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
learner, *batch = world(sys.argv[1], dropout=0.0)
for weight in learner.model[0].model.pooler.parameters():
    weight.requires_grad = False
model = accelerator.prepare(learner.model)
rank, ranks = accelerator.process_index, accelerator.num_processes
made = part_of(*batch, rank, ranks)
for _ in range(2):
    # One process has room for its activations, the other has not.
    room = MemoryLimits(100_000, 0 if rank else 10**6)
    gradients(learner, *made, Objective(0.05, True), room, accelerator, model)
for number, memory in enumerate([MemoryLimits(100_000, 1_000_000), MemoryLimits(150, 1_000_000), MemoryLimits(150, 0)]):
    for positives in ("own", "all"):
        loss, _, _, found = gradients(
            learner, *made, Objective(0.05, True, positives), memory, accelerator, model
        )
        torch.save((loss, found), out / f"{number}-{positives}-{rank}.pt")
"""


@pytest.mark.parametrize("count", [2])
def test_several_processes_have_the_gradients_of_one(tiny_folder, tmp_path, count):
    run(_SCRIPT, tiny_folder, tmp_path, count=count)
    learner, *batch = world(tiny_folder, dropout=0.0)
    for weight in learner.model[0].model.pooler.parameters():
        weight.requires_grad = False
    for positives in ("own", "all"):
        loss, _, _, whole = gradients(learner, *part_of(*batch), Objective(0.05, True, positives), ROOMY)
        for number in range(3):
            for rank in range(count):
                theirs, found = torch.load(tmp_path / f"{number}-{positives}-{rank}.pt", weights_only=True)
                assert theirs == pytest.approx(loss, abs=1e-6)
                assert alike(whole, found)
