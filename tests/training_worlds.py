"""What the tests of training share: a table in memory, and two weights with their optimizer."""

from pathlib import Path

import numpy as np
import torch

from hexapla.training import samplers
from hexapla.training.checkpoints import Checkpoints, TrainingState

PATHS = [str(Path(__file__).parent / folder) for folder in ("", "training", "parallel")]
"""For scripts in other processes, which import from the tests."""

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
