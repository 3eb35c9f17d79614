"""Part of the parallel table held out of training, and what early stopping looks at in it.

The held ids are a parallel benchmark of their own: their passages in all languages are one pool, and every
translation of a question's passage answers it. The figures are those of the reports (`outcomes`), so they
can be set beside them; the pool is smaller and its text like training's, so they are higher.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hexapla.evaluation import ranking
from hexapla.evaluation.per_query import outcomes
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, UserError
from hexapla.training.samplers import Index

_BYTES = 2**23
"""Similarities held at a time."""


class Split(NamedTuple):
    """Positions in the index that do not train; int64, ascending, none in both."""

    held: np.ndarray
    """What is looked at: no two of these share their passage, which would stand in the pool twice."""
    left_out: np.ndarray
    """Other ids of held passages, of no use on either side."""


def split(index: Index, size: int, seed: int) -> Split:
    """Hold out `size` ids, drawn at random among those that have two languages or more.

    Raises:
        UserError: there are not as many different passages in two languages.
    """
    several = np.flatnonzero(np.count_nonzero(index.rows >= 0, axis=1) >= 2)
    order = np.random.default_rng(seed).permutation(several)
    _, first = np.unique(index.passages[order], return_index=True)
    if len(first) < size:
        raise UserError(
            f"train.holdout: {size}, but only {len(first)} different passages stand in two languages or "
            "more; lower it or add data"
        )
    held = np.sort(order[np.sort(first)[:size]])
    touched = np.flatnonzero(np.isin(index.passages, index.passages[held]))
    return Split(held, np.setdiff1d(touched, held, assume_unique=True))


def without(index: Index, parts: Split) -> Index:
    """The index that trains; its rows are still those of the whole table."""
    kept = np.ones(len(index.passages), dtype=np.bool_)
    kept[np.concatenate(parts)] = False
    return index._replace(rows=index.rows[kept], passages=index.passages[kept], sources=index.sources[kept])


def benchmark(
    index: Index, held: np.ndarray, texts: Callable[[str, np.ndarray], list[str]]
) -> ParallelBenchmark:
    """The held ids in all their languages.

    Args:
        index: of the whole table.
        held: positions in it, no two of which share a passage.
        texts: (column, rows of the table) to the texts that stand there.
    """
    questions: list[BenchmarkQuery] = []
    candidates: list[BenchmarkPassage] = []
    for column, language in enumerate(index.languages):
        rows = index.rows[held, column]
        there = rows >= 0
        for item, question, passage in zip(
            held[there], texts("question", rows[there]), texts("passage", rows[there]), strict=True
        ):
            questions.append(BenchmarkQuery(str(item), language, question, len(candidates)))
            candidates.append(BenchmarkPassage(language, passage, ""))
    return ParallelBenchmark(index.languages, questions, candidates)


def multilingual_map(benchmark: ParallelBenchmark, questions: np.ndarray, passages: np.ndarray) -> float:
    """Mean average precision in the pool of all languages, averaged over the questions' languages.

    Args:
        benchmark: what was encoded.
        questions: unit vectors [questions, dim], in the benchmark's order.
        passages: unit vectors [candidates, dim], likewise.

    Raises:
        UserError: a vector is not finite.
    """
    figure = outcomes(ranking.rank(benchmark, questions, passages))["multi"]["map"].figure()
    assert figure is not None, "every question has a relevant passage"
    return figure


def multilingual_loss(
    benchmark: ParallelBenchmark, questions: np.ndarray, passages: np.ndarray, temperature: float
) -> float:
    """InfoNCE of each question with each translation of its passage, averaged as the mAP is; lower is better.

    As in training the translations are no negatives of each other; unlike there the negatives are the whole
    pool, so that the figure depends on no batch.

    Args:
        benchmark: what was encoded.
        questions: unit vectors [questions, dim], in the benchmark's order.
        passages: unit vectors [candidates, dim], likewise.
        temperature: divides the cosine.
    """
    number = {question_id: n for n, question_id in enumerate(benchmark.relevant)}
    asked = np.array([number[question.id] for question in benchmark.queries])
    answers = np.empty(len(passages), np.int64)
    answers[[question.passage for question in benchmark.queries]] = asked
    # The last digits count where the loss is small.
    questions, passages = questions.astype(np.float64), passages.astype(np.float64)
    losses = np.empty(len(questions))
    size = max(1, _BYTES // (8 * len(passages)))
    for start in range(0, len(questions), size):
        part = slice(start, start + size)
        scores = questions[part] @ passages.T / temperature
        same = asked[part, None] == answers
        own, negatives = scores[same], np.where(same, -np.inf, scores)
        most = negatives.max(axis=1, keepdims=True, initial=scores.min())
        with np.errstate(divide="ignore"):  # a pool of one id has no negatives
            others = np.log(np.exp(negatives - most).sum(axis=1)) + most[:, 0]
        row = np.nonzero(same)[0]
        each = np.logaddexp(own, others[row]) - own
        losses[part] = np.bincount(row, each) / np.bincount(row)
    languages = np.array([question.lang for question in benchmark.queries])
    return float(np.mean([losses[languages == language].mean() for language in np.unique(languages)]))


def best(scores: Sequence[float]) -> int:
    """Position of the best score, the first of equals; higher is better, and what is no number is worst."""
    return max(range(len(scores)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])


def stop(scores: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` scores were no better than the best before them."""
    return bool(scores) and len(scores) - 1 - best(scores) >= patience
