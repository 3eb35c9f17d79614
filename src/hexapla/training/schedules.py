"""The learning rate of a step."""

import math
from typing import Literal, NamedTuple

Shape = Literal["linear", "cosine", "constant"]


class Schedule(NamedTuple):
    """Linear warm-up to the peak, then down to zero at the last step, or level."""

    peak: float
    warmup: int
    steps: int
    shape: Shape = "linear"

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        left = (self.steps - step) / (self.steps - self.warmup)
        factors = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
        return self.peak * factors[self.shape]
