"""How far a score can be trusted: intervals, paired tests, several seeds; and models next to each other.

Everything is computed from `sums` and `counts` [clusters, groups]. A cluster is a source question: its
translations are asked about the same passages and succeed or fail together, so they are drawn and swapped
together; taken as independent, they make intervals far too narrow. A group is what the score is averaged
over in the end: a language, a pair of languages, or the one group of a micro average.

Models are compared by a percentile bootstrap and a paired randomization test. The p-values of one table are
Holm-corrected together; several seeds of one configuration are averaged question by question.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from hexapla.evaluation.metrics import METRICS, Metric, QueryScores, choose_known
from hexapla.evaluation.results import Result
from hexapla.schema import UserError

LEVEL = 0.05
"""A corrected p-value below this is called significant."""

RESAMPLES, ROUNDS = 2000, 10_000

_CELLS = 2**21
"""Random numbers held at a time, so that memory stays below 64 MiB whatever the sizes."""

_EXACT = 13
"""Up to this many clusters all 2^n swaps are enumerated, which is no more work than 10,000 random rounds."""

Sums = Float64[np.ndarray, "clusters groups"]
Counts = Int64[np.ndarray, "clusters groups"]


def macro_average(sums: Sums, counts: Counts) -> float:
    """Mean over the groups of each group's mean, without groups that have no count; NaN when none has any."""
    return float(_macro_averages(sums.sum(axis=0)[None], counts.sum(axis=0)[None])[0])


def bootstrap_interval(
    sums: Sums, counts: Counts, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap over clusters (Efron and Tibshirani 1993, chapter 13).

    It says how the average would vary with other questions, but not with another training seed. A group that
    a resample misses is left out of it. Both ends are NaN with fewer than two clusters or with values that
    are not finite, since there is nothing to resample.
    """
    counted = counts.any(axis=1)
    sums, counts = sums[counted], counts[counted]
    clusters = len(sums)
    if clusters < 2 or not np.isfinite(sums).all():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    averages = np.empty(resamples)
    rows = max(1, _CELLS // clusters)
    for first in range(0, resamples, rows):
        size = min(rows, resamples - first)
        # How often each cluster is drawn: a multinomial, cheaper by counting than by its sampler.
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        weights = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(float)
        averages[first : first + size] = _macro_averages(weights @ sums, weights @ counts)
    low, high = np.quantile(averages, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_test(sums_a: Sums, sums_b: Sums, counts: Counts, *, rounds: int = 10000, seed: int = 0) -> float:
    """P-value of a two-sided paired randomization test of the difference A - B (Smucker et al. 2007).

    If the models were equal, their results on a cluster could be swapped. The counts are the same for both,
    so a swap changes only the sign of the cluster's share of the difference. With few clusters all swaps are
    enumerated, and p can't fall below 2^(1 - clusters).

    Returns:
        p in (0, 1]; NaN when a value is not finite or nothing was counted.

    Raises:
        UserError: the two were not evaluated on the same questions.
    """
    if not sums_a.shape == sums_b.shape == counts.shape:
        raise UserError(
            f"results of the shapes {list(sums_a.shape)} and {list(sums_b.shape)} can't be paired: the "
            "models were evaluated on different questions; evaluate both again"
        )
    total = counts.sum(axis=0)
    groups = total > 0
    weight = np.where(groups, 1 / (np.where(groups, total, 1) * max(1, groups.sum())), 0)
    shares = (sums_a - sums_b) @ weight
    if not groups.any() or not np.isfinite(shares).all():
        return float("nan")
    # A cluster on which both agree has nothing to swap.
    shares = shares[shares != 0]
    # Sums in another order differ in their last digits, but a tie must count as a tie.
    least = abs(shares.sum()) - 1e-12 * np.abs(shares).sum()
    if len(shares) <= _EXACT:
        return float((np.abs(_every_swap(len(shares)) @ shares) >= least).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    rows = max(1, _CELLS // len(shares))
    for first in range(0, rounds, rows):
        swapped = rng.integers(2, size=(min(rows, rounds - first), len(shares)), dtype=np.int8)
        reached += int((np.abs((1 - 2 * swapped) @ shares) >= least).sum())
    return (1 + reached) / (1 + rounds)


def adjust_holm(p: Sequence[float]) -> Float64[np.ndarray, " tests"]:
    """Adjust p-values for testing several hypotheses at once (Holm 1979, step-down).

    Args:
        p: NaN means not tested: it stays NaN and does not count among the hypotheses.
    """
    adjusted = np.array(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(adjusted))
    order = tested[np.argsort(adjusted[tested], kind="stable")]
    scaled = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


class Seeds(NamedTuple):
    """One kind of model, trained with several seeds and evaluated on the same questions."""

    sums: Sums
    """The mean over seeds; `bootstrap_interval` and `paired_test` take it."""
    mean: float
    """The average over seeds, which is also the average of `sums`."""
    deviation: float
    """Sample standard deviation over seeds; NaN with one seed."""


def average_seeds(sums: Sequence[Sums], counts: Counts) -> Seeds:
    """Average the results of several seeds, which share their counts.

    Raises:
        UserError: there is none, or they were not evaluated on the same questions.
    """
    if not sums:
        raise UserError("no seed's results to average; evaluate at least one model")
    for position, each in enumerate(sums):
        if each.shape != counts.shape:
            raise UserError(
                f"results of seed {position + 1} of {len(sums)} have the shape {list(each.shape)}, wanted "
                f"{list(counts.shape)}: evaluated on different questions; evaluate all again"
            )
    averages = [macro_average(each, counts) for each in sums]
    deviation = float(np.std(averages, ddof=1)) if len(averages) > 1 else float("nan")
    return Seeds(np.mean(sums, axis=0), float(np.mean(averages)), deviation)


def _macro_averages(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Float [rows]: the mean over groups, of sums and counts [rows, groups]."""
    counted = counts > 0
    means = np.where(counted, sums, 0) / np.where(counted, counts, 1)
    groups = counted.sum(axis=1)
    averages: np.ndarray = means.sum(axis=1) / np.where(groups > 0, groups, np.nan)
    return averages


def _every_swap(clusters: int) -> np.ndarray:
    """Int [2^clusters, clusters]: every way to choose the signs."""
    codes = np.arange(2**clusters)[:, None]
    return 1 - 2 * ((codes >> np.arange(clusters)) & 1)


# --- models next to each other -----------------------------------------------------------------


class Estimate(NamedTuple):
    """A headline score of one model, over all of its seeds, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    deviation: float | None
    """Sample standard deviation over the seeds; None with one."""


class Contrast(NamedTuple):
    """The candidate's score minus another model's."""

    difference: float | None
    p: float | None
    """Holm-corrected over the table; None when it could not be tested."""

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL


class EvaluatedModel(NamedTuple):
    """One model under one centering: a result for each seed."""

    name: str
    results: Sequence[Result]
    centering: str = "none"

    def query_scores(self, benchmark: str, metric: Metric) -> QueryScores:
        """Average the seeds, which were evaluated on the same questions and so agree in counts and clusters."""
        scores = [
            result.query_scores[benchmark][self.centering][metric.setting][metric.name]
            for result in self.results
        ]
        first = scores[0]
        if any(not np.array_equal(first.clusters, each.clusters) for each in scores):
            raise UserError(f"{self.name}: its seeds were evaluated on different questions of {benchmark}")
        return first._replace(sums=average_seeds([each.sums for each in scores], first.counts).sums)


Board = Sequence[tuple[str, Mapping[str, Estimate]]]
"""Titles and estimates of models, the candidate first."""


class Comparison(NamedTuple):
    """Models next to each other on one benchmark."""

    metrics: list[Metric]
    board: Board
    tests: list[dict[str, Contrast]]
    """The candidate's contrasts with each other model; one table, corrected together."""


def compare_models(benchmark: str, models: Sequence[EvaluatedModel]) -> Comparison:
    """Compare the first of `models`, the candidate, with each other one.

    Raises:
        UserError: they were not evaluated on the same questions.
    """
    metrics = find_metrics(benchmark, models[0])
    board = [(each.name, estimate_metrics(benchmark, each)) for each in models]
    return Comparison(metrics, board, compute_contrasts(benchmark, models[0], models[1:], metrics))


def find_metrics(benchmark: str, model: EvaluatedModel) -> list[Metric]:
    """Find the headline metrics that this benchmark has."""
    return choose_known(METRICS.values(), model.results[0].scores[benchmark][model.centering])


def estimate_metrics(benchmark: str, model: EvaluatedModel) -> dict[str, Estimate]:
    """Estimate every headline metric of a model on a benchmark, by the metric's key."""
    estimates = {}
    for metric in find_metrics(benchmark, model):
        scores = model.query_scores(benchmark, metric)
        low, high = bootstrap_interval(scores.sums, scores.counts, resamples=RESAMPLES)
        each = [result.scores[benchmark][model.centering][metric.key] for result in model.results]
        known = [value for value in each if value is not None]
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
        estimates[metric.key] = Estimate(scores.average(), _nan_to_none(low), _nan_to_none(high), spread)
    return estimates


def compute_contrasts(
    benchmark: str, candidate: EvaluatedModel, others: Sequence[EvaluatedModel], metrics: Sequence[Metric]
) -> list[dict[str, Contrast]]:
    """Subtract each other model from the candidate; one table, corrected over all of its tests.

    Raises:
        UserError: the models were not evaluated on the same questions.
    """
    differences: list[list[float | None]] = []
    p_values: list[list[float]] = []
    for other in others:
        row = [_contrast(benchmark, candidate, other, metric) for metric in metrics]
        differences.append([difference for difference, _ in row])
        p_values.append([p for _, p in row])
    adjusted = adjust_holm([p for row in p_values for p in row]).reshape(len(others), len(metrics))
    return [
        {
            metric.key: Contrast(differences[i][j], _nan_to_none(adjusted[i, j]))
            for j, metric in enumerate(metrics)
        }
        for i in range(len(others))
    ]


def _contrast(
    benchmark: str, candidate: EvaluatedModel, other: EvaluatedModel, metric: Metric
) -> tuple[float | None, float]:
    mine, theirs = candidate.query_scores(benchmark, metric), other.query_scores(benchmark, metric)
    same = np.array_equal(mine.clusters, theirs.clusters) and np.array_equal(mine.counts, theirs.counts)
    if not same:
        raise UserError(
            f"{benchmark}: '{candidate.name}' and '{other.name}' were not evaluated on the same questions and "
            "languages; evaluate both with the same benchmark"
        )
    a, b = mine.average(), theirs.average()
    if a is None or b is None:
        return None, float("nan")
    return a - b, paired_test(mine.sums, theirs.sums, mine.counts, rounds=ROUNDS)


def _nan_to_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def find_seeds(results: Mapping[str, Result], first: str) -> list[Result]:
    """Find the results of `first`, and of those that were trained and evaluated like it but for the seed."""

    def settings(result: Result) -> tuple[dict[str, object], dict[str, object]]:
        training = {key: value for key, value in result.training.items() if key != "seed"}
        return training, dict(result.evaluation)

    mine = settings(results[first])
    more = [r for name, r in results.items() if name != first and settings(r) == mine]
    taken = {results[first].training.get("seed")}
    different = []
    for result in more:
        if result.training.get("seed") not in taken:
            taken.add(result.training.get("seed"))
            different.append(result)
    return [results[first], *different]
