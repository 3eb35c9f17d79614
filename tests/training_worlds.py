"""What the tests of training share: a table in memory, two weights with their optimizer, and a small training."""

import numpy as np
import torch

from hexapla.modeling import adapters, encoder
from hexapla.training import samplers, trainer
from hexapla.training.checkpoints import Checkpoints, TrainingState
from hexapla.training.collate import Lengths
from hexapla.training.gradcache import MemoryLimits, Objective
from hexapla.training.trainer import Schedule

STATE = TrainingState([[0, "hybrid", 1.5], [1, "hybrid", 1.25]], [0.5])


def world(seed=0):
    """Two weights that have made three steps, and their optimizer."""
    generator = torch.Generator().manual_seed(seed)
    trained = {name: torch.nn.Parameter(torch.randn(4, 3, generator=generator)) for name in ("one", "two")}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, fused=True)
    for _ in range(3):
        advance(trained, optimizer)
    return trained, optimizer


def advance(trained, optimizer):
    for weight in trained.values():
        weight.grad = weight.detach().sin()
    optimizer.step()


def kept(folder, every=2, **settings):
    return Checkpoints(folder, settings={"seed": 1, "train": {"lr": 0.1}, **settings}, every=every)


class Texts:
    """A parallel table in memory."""

    def __init__(self, pairs):
        self.pairs = pairs

    def texts(self, column, rows):
        return [getattr(self.pairs[row], column) for row in rows]

    def negatives(self, rows):
        return [["Bananas are berries.", self.pairs[row - 1].passage] for row in rows]


def codes(column):
    names, values = np.unique(column, return_inverse=True)
    return samplers.CodedColumn(values.astype(np.int32), names.tolist())


PROMPTS = {"query": "", "passage": ""}
ROOMY = MemoryLimits(forward_tokens=100_000, kept_tokens=10**9)


def load(folder):
    return encoder.load(str(folder), prompts=PROMPTS, device="cpu")


def fit(
    folder, data, steps=12, sampler="hybrid", checkpoints=None, settings=None, rule=None, embeddings=True,
    layers=0, negatives=0, rate=1e-3, memory=ROOMY, dropout=0.1, size=8, on_step=lambda _: None,
):  # fmt: skip
    index, texts = data
    learner = load(folder)
    adapters.freeze(learner, embeddings=embeddings, layers=layers)
    for module in learner.model.modules():
        for name in ("p", "dropout_prob"):
            if hasattr(module, name):
                setattr(module, name, dropout)
    curve = trainer.train(
        learner,
        texts,
        samplers.BatchPlan(index, sampler=sampler, batch_size=size, seed=1, languages_per_id=2),
        trainer.StepSettings(
            lengths=Lengths(32, 64, negatives),
            schedule=Schedule(rate, 2, steps),
            objective=Objective(0.02, two_sided=False),
            limits=memory,
            weight_decay=0.01,
            clip_norm=1.0,
            precision="fp32",
        ),
        checkpoints=Checkpoints(checkpoints, settings=settings or {"lr": rate}, every=4),
        validation=rule and rule(learner),
        on_step=on_step,
    )
    return learner, curve


def weights(learner):
    return {name: weight.detach().clone() for name, weight in learner.model.named_parameters()}


def timeless(curve):
    return [step[:5] for step in curve]
