"""Retrieval measures from the ranks of the relevant candidates.

Every function takes `ranks`, int64 [questions, relevant]: the rank (from 1) of each relevant
candidate in the question's ranking; 0 pads; `records.UNFOUND` is a candidate that a ranking cut at
some depth did not reach: it counts as relevant and is never found. Each gives a float [questions];
a question without any relevant candidate gives NaN. The order of the columns does not matter.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from hexapla.schema import UNFOUND

Measure = Callable[[np.ndarray], np.ndarray]
Judged = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of ranks and grades, int [questions, relevant]."""


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over the relevant of the precision at their rank; the ranking is not cut.

    Uncut, so not comparable with LAReQA's mAP@20: see `average_precision_at`.
    """
    return _over(_precision(ranks).sum(axis=1), _held(ranks).sum(axis=1))


def average_precision_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Average precision as XTREME-R's scorer for LAReQA computes it (k = 20; arXiv 2104.07412).

    Precision is summed over the relevant among the first k and divided by min(relevant, k), so a
    question with more than k relevant can reach 1. TREC's `map_cut` divides by the relevant.
    XTREME-R averages over all questions (micro), not over languages.
    """
    found = np.where(_ordered(ranks) <= k, _precision(ranks), 0).sum(axis=1)
    return _over(found, np.minimum(_held(ranks).sum(axis=1), k))


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """Of the first relevant candidate; the ranking is not cut."""
    best = _ordered(ranks).min(axis=1, initial=np.inf)
    return np.where(_held(ranks).any(axis=1), 1 / best, np.nan)


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """Share of the relevant that stand among the first k."""
    held = _held(ranks)
    return _over((held & (ranks <= k)).sum(axis=1), held.sum(axis=1))


def ndcg_at(ranks: np.ndarray, grades: np.ndarray | None = None, *, k: int) -> np.ndarray:
    """Discounted gain of the first k over that of the best order (Järvelin and Kekäläinen 2002).

    Linear gain and a discount of log2(rank + 1), as in trec_eval's `ndcg_cut`; other tools raise 2
    to the grade.

    Args:
        ranks: int64 [questions, relevant].
        grades: int [questions, relevant], each candidate's gain; 1 when left out. A grade below 1
            gains nothing, and a question with no other grades gives NaN.
        k: the depth, for the best order also.
    """
    held = _held(ranks)
    gains = held.astype(float) if grades is None else np.where(held, np.maximum(grades, 0), 0.0)
    discount = np.where(held & (ranks <= k), np.log2(np.where(held, ranks, 1) + 1.0), np.inf)
    best = -np.sort(-gains, axis=1)[:, :k]
    ideal = (best / np.log2(np.arange(2, best.shape[1] + 2))).sum(axis=1)
    return _over((gains / discount).sum(axis=1), ideal)


def _held(ranks: np.ndarray) -> np.ndarray:
    """Bool [questions, relevant]: a relevant candidate, no padding."""
    return ranks > 0


def _ordered(ranks: np.ndarray) -> np.ndarray:
    """Float [questions, relevant], ascending; what is never found and padding are infinite."""
    return np.sort(np.where(_held(ranks) & (ranks != UNFOUND), ranks, np.inf), axis=1)


def _precision(ranks: np.ndarray) -> np.ndarray:
    """Float [questions, relevant]: precision at the first, second, ... relevant; 0 when not found."""
    precision: np.ndarray = np.arange(1, ranks.shape[1] + 1) / _ordered(ranks)
    return precision


def _over(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Quotient [questions], NaN where there is nothing to divide by."""
    quotient: np.ndarray = total / np.where(count > 0, count, np.nan)
    return quotient


def _ungraded(measure: Measure) -> Judged:
    return lambda ranks, _grades: measure(ranks)


MEASURES: dict[str, Measure] = {
    "map": average_precision,
    "map20": partial(average_precision_at, k=20),
    "mrr": reciprocal_rank,
    "r1": partial(recall_at, k=1),
    "r10": partial(recall_at, k=10),
    "r100": partial(recall_at, k=100),
    "ndcg10": partial(ndcg_at, k=10),
}

SINGLE: dict[str, Measure] = {name: MEASURES[name] for name in ("map", "r1", "r10")}
"""With one relevant candidate: monolingual and cross-lingual."""

MULTI: dict[str, Measure] = {name: MEASURES[name] for name in ("map", "mrr", "ndcg10", "r10", "r100")}
"""With a relevant candidate in each language."""

MICRO: dict[str, Measure] = {"map20": MEASURES["map20"]}
"""Averaged over all questions alike, as XTREME-R does."""

JUDGED: dict[str, Judged] = {
    "ndcg10": partial(ndcg_at, k=10),
    "r100": _ungraded(MEASURES["r100"]),
    "mrr": _ungraded(MEASURES["mrr"]),
}
"""With TREC judgements."""
