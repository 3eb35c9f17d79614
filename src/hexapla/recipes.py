"""The section `train` of the parameters as what the library takes: an encoder made ready, a recipe."""

import logging

from torch import Tensor

from hexapla import adaptation, encoding, features, holdout, training, vocabulary
from hexapla.benchmarks import Retrieval
from hexapla.encoder import Encoder
from hexapla.gradcache import Memory, Objective
from hexapla.inputs import Lengths
from hexapla.params import Train
from hexapla.precision import Precision
from hexapla.schedules import Schedule
from hexapla.table import Table

_log = logging.getLogger(__name__)


def adapt(learner: Encoder, table: Table, train: Train, seed: int) -> dict[str, Tensor]:
    """Make the encoder ready; returns the weights that will change, as they are before training."""
    if train.trim_vocabulary != "off":
        told = vocabulary.trim(learner, table.all_texts(), keep=train.trim_vocabulary)
        _log.info("vocabulary: %s of %s pieces stay", f"{told.after:,}", f"{told.before:,}")
    adaptation.freeze(learner, embeddings=train.freeze_embeddings, layers=train.freeze_layers)
    changing = adaptation.trained(learner) if train.interpolate else {}
    start = {name: weight.detach().clone() for name, weight in changing.items()}
    if train.lora_rank:
        adaptation.lora(learner, rank=train.lora_rank, seed=seed)
    if train.gradient_checkpointing:
        adaptation.checkpoint_activations(learner)
    if train.compile:
        adaptation.compiled(learner)
    return start


def recipe(learner: Encoder, train: Train, precision: Precision) -> training.Recipe:
    return training.Recipe(
        lengths=Lengths(train.question_tokens, train.passage_tokens, train.negatives),
        schedule=Schedule(train.learning_rate, train.warmup_steps, train.steps, train.schedule),
        objective=Objective(train.temperature, train.two_sided),
        memory=Memory(train.forward_tokens or features.budget(learner.device), train.kept_tokens),
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=precision,
    )


def validation(learner: Encoder, held: Retrieval, train: Train, precision: Precision) -> training.Validation:
    """Early stopping by the held-out ids, encoded as the training encodes."""
    questions = [question.text for question in held.questions]
    passages = [candidate.text for candidate in held.candidates]

    def score() -> float:
        asked = encoding.encode(learner, questions, "query", train.question_tokens, precision=precision)
        found = encoding.encode(learner, passages, "passage", train.passage_tokens, precision=precision)
        if train.stop_by == "map":
            return holdout.multilingual_map(held, asked, found)
        return -holdout.multilingual_loss(held, asked, found, train.temperature)

    return training.Validation(train.validate_every, train.patience, score)
