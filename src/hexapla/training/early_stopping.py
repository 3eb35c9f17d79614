"""Early stopping: which ids are held out of training, and how the model is scored on them.

The held-out ids are a parallel benchmark of their own: their passages in all languages are one pool, and every
translation of a query's passage answers it. The scores are computed like those of the reports. They are higher,
because the pool is smaller and its texts are like those of training.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hexapla.evaluation import ranking
from hexapla.evaluation.metrics import score_queries
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, UserError
from hexapla.training.samplers import PairIndex

_BYTES = 2**23
"""The similarities that are in memory at a time take this much."""


class Split(NamedTuple):
    """Positions in the index that do not train, ascending, none in both."""

    held_out: Int[np.ndarray, " held_out"]
    """Ids that are scored. No two of them share their passage, which would then be in the pool twice."""
    left_out: Int[np.ndarray, " left_out"]
    """Other ids of the same passages, which can neither train nor be scored."""


def split(index: PairIndex, size: int, seed: int) -> Split:
    """Hold out `size` ids, drawn at random among those that have at least two languages.

    Raises:
        UserError: there are not as many different passages in two languages.
    """
    several = np.flatnonzero(np.count_nonzero(index.rows >= 0, axis=1) >= 2)
    order = np.random.default_rng(seed).permutation(several)
    _, first = np.unique(index.passages[order], return_index=True)
    if len(first) < size:
        raise UserError(
            f"train.holdout: {size}, but only {len(first)} different passages are in two languages or "
            "more; lower it or add data"
        )
    held_out = np.sort(order[np.sort(first)[:size]])
    touched = np.flatnonzero(np.isin(index.passages, index.passages[held_out]))
    return Split(held_out, np.setdiff1d(touched, held_out, assume_unique=True))


def drop_held_out(index: PairIndex, parts: Split) -> PairIndex:
    """Return the index that trains; its rows are still those of the whole table."""
    kept = np.ones(len(index.passages), dtype=np.bool_)
    kept[np.concatenate(parts)] = False
    return index._replace(rows=index.rows[kept], passages=index.passages[kept], sources=index.sources[kept])


def build_benchmark(
    index: PairIndex,
    held_out: Int[np.ndarray, " held_out"],
    texts: Callable[[str, Int[np.ndarray, " rows"]], list[str]],
) -> ParallelBenchmark:
    """Make a benchmark of the held-out ids in all their languages.

    Args:
        index: the whole table.
        held_out: positions in it, no two of which share a passage.
        texts: gives the texts of a column in some rows of the table.
    """
    queries: list[BenchmarkQuery] = []
    passages: list[BenchmarkPassage] = []
    for column, language in enumerate(index.languages):
        rows = index.rows[held_out, column]
        present = rows >= 0
        for item, query, passage in zip(
            held_out[present], texts("question", rows[present]), texts("passage", rows[present]), strict=True
        ):
            queries.append(BenchmarkQuery(str(item), language, query, len(passages)))
            passages.append(BenchmarkPassage(language, passage, ""))
    return ParallelBenchmark(index.languages, queries, passages)


def multilingual_map(
    benchmark: ParallelBenchmark,
    queries: Float[np.ndarray, "queries dim"],
    passages: Float[np.ndarray, "passages dim"],
) -> float:
    """Mean average precision in the pool of all languages, averaged over the queries' languages.

    Args:
        benchmark: what was encoded.
        queries: unit vectors, in the benchmark's order.
        passages: unit vectors, in the benchmark's order.

    Raises:
        UserError: a vector is not finite.
    """
    figure = score_queries(ranking.rank(benchmark, queries, passages))["multi"]["map"].average()
    assert figure is not None, "every query has a relevant passage"
    return figure


def multilingual_loss(
    benchmark: ParallelBenchmark,
    queries: Float[np.ndarray, "queries dim"],
    passages: Float[np.ndarray, "passages dim"],
    temperature: float,
) -> float:
    """InfoNCE of each query with each translation of its passage, averaged as the mAP is; lower is better.

    As in training, the translations are no negatives of each other. Unlike there, the negatives are the whole pool,
    so that the score depends on no batch.

    Args:
        benchmark: what was encoded.
        queries: unit vectors, in the benchmark's order.
        passages: unit vectors, in the benchmark's order.
        temperature: divides the cosine similarity.
    """
    number = {query_id: n for n, query_id in enumerate(benchmark.relevant)}
    query_numbers = np.array([number[query.id] for query in benchmark.queries])
    answered = np.empty(len(passages), np.int64)
    answered[[query.passage for query in benchmark.queries]] = query_numbers
    # Where the loss is small, its last digits decide.
    queries, passages = queries.astype(np.float64), passages.astype(np.float64)
    losses = np.empty(len(queries))
    size = max(1, _BYTES // (8 * len(passages)))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        scores = queries[part] @ passages.T / temperature
        same = query_numbers[part, None] == answered
        own, negatives = scores[same], np.where(same, -np.inf, scores)
        most = negatives.max(axis=1, keepdims=True, initial=scores.min())
        with np.errstate(divide="ignore"):  # A pool of one id has no negatives.
            others = np.log(np.exp(negatives - most).sum(axis=1)) + most[:, 0]
        row = np.nonzero(same)[0]
        each = np.logaddexp(own, others[row]) - own
        losses[part] = np.bincount(row, each) / np.bincount(row)
    languages = np.array([query.lang for query in benchmark.queries])
    return float(np.mean([losses[languages == language].mean() for language in np.unique(languages)]))


def find_best(scores: Sequence[float]) -> int:
    """Find the position of the highest score, the first among equals; NaN counts as the lowest."""
    return max(range(len(scores)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])


def should_stop(scores: Sequence[float], patience: int) -> bool:
    """Whether none of the last `patience` scores is better than the best one before them."""
    return bool(scores) and len(scores) - 1 - find_best(scores) >= patience
