"""Retrieval measures from the ranks of the relevant candidates.

Every function takes `ranks`, int [questions, relevant]: the rank (from 1) of each relevant
candidate in the question's ranking, 0 where there is none. Each gives a float [questions]; a
question without any relevant candidate gives NaN. The order of the columns does not matter.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over the relevant of the precision at their rank; the ranking is not cut.

    Uncut, so not comparable with LAReQA's mAP@20.
    """
    ordered = np.sort(np.where(ranks > 0, ranks, np.inf), axis=1)
    precision = np.arange(1, ranks.shape[1] + 1) / ordered
    return _mean(precision, ranks)


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Share of the relevant that stand among the first k."""
    return _mean((ranks > 0) & (ranks <= k), ranks)


def _mean(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    count = (ranks > 0).sum(axis=1)
    means: np.ndarray = values.sum(axis=1) / np.where(count > 0, count, np.nan)
    return means


MEASURES: dict[str, Measure] = {
    "map": average_precision,
    "r1": partial(recall_at, k=1),
    "r10": partial(recall_at, k=10),
}
