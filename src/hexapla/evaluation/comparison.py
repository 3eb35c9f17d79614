"""Models side by side: each headline figure with its interval, each difference with its test.

The method (told to the reader by `reporting`): percentile bootstrap and paired randomisation test,
both over source questions, so that the translations of a question move together; the p-values of one
table are Holm-corrected together; several seeds of one configuration are averaged question by question.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hexapla.evaluation import statistics
from hexapla.evaluation.per_query import Outcome
from hexapla.evaluation.results import Result
from hexapla.evaluation.scoreboard import MEASURES, Measure, held
from hexapla.schema import UserError

LEVEL = 0.05
"""Below this a corrected p-value is called significant."""

RESAMPLES, ROUNDS = 2000, 10_000


class Figure(NamedTuple):
    """A headline figure, over all seeds that are there."""

    value: float | None
    low: float | None
    high: float | None
    deviation: float | None
    """Sample standard deviation over the seeds; None with one."""


class Contrast(NamedTuple):
    """The candidate minus another model."""

    difference: float | None
    p: float | None
    """Holm-corrected over the table; None when it could not be tested."""

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL


class Judged(NamedTuple):
    """One model under one centering: its results, a seed each."""

    name: str
    results: Sequence[Result]
    centering: str = "none"

    def outcome(self, benchmark: str, measure: Measure) -> Outcome:
        """The seeds' mean; they were judged on the same questions, so counts and clusters agree."""
        outcomes = [
            result.outcomes[benchmark][self.centering][measure.setting][measure.name]
            for result in self.results
        ]
        first = outcomes[0]
        if any(not np.array_equal(first.clusters, each.clusters) for each in outcomes):
            raise UserError(f"{self.name}: its seeds were judged on different questions of {benchmark}")
        sums = statistics.over_seeds([each.sums for each in outcomes], first.counts).sums
        return first._replace(sums=sums)


Board = Sequence[tuple[str, Mapping[str, Figure]]]
"""Titles and figures, the candidate's first."""


class Comparison(NamedTuple):
    """Models side by side on one benchmark."""

    measures: list[Measure]
    board: Board
    tests: list[dict[str, Contrast]]
    """Of each other model, the candidate's contrasts with it; one table, corrected together."""


def compared(benchmark: str, judged: Sequence[Judged]) -> Comparison:
    """The first of `judged`, the candidate, beside each other one.

    Raises:
        UserError: they were not judged on the same questions.
    """
    measures = measures_of(benchmark, judged[0])
    board = [(each.name, figures(benchmark, each)) for each in judged]
    return Comparison(measures, board, contrasts(benchmark, judged[0], judged[1:], measures))


def measures_of(benchmark: str, model: Judged) -> list[Measure]:
    """The headline measures that this benchmark has."""
    return held(MEASURES.values(), model.results[0].scores[benchmark][model.centering])


def figures(benchmark: str, model: Judged) -> dict[str, Figure]:
    """Every headline figure of a model on a benchmark, by the measure's key."""
    found = {}
    for measure in measures_of(benchmark, model):
        outcome = model.outcome(benchmark, measure)
        low, high = statistics.interval(outcome.sums, outcome.counts, resamples=RESAMPLES)
        each = [result.scores[benchmark][model.centering][measure.key] for result in model.results]
        known = [value for value in each if value is not None]
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
        found[measure.key] = Figure(outcome.figure(), _known(low), _known(high), spread)
    return found


def contrasts(
    benchmark: str, candidate: Judged, others: Sequence[Judged], measures: Sequence[Measure]
) -> list[dict[str, Contrast]]:
    """The candidate minus each other model, one table: corrected over all of its tests.

    Raises:
        UserError: the models were not judged on the same questions.
    """
    differences: list[list[float | None]] = []
    p_values: list[list[float]] = []
    for other in others:
        row = [_contrast(benchmark, candidate, other, measure) for measure in measures]
        differences.append([difference for difference, _ in row])
        p_values.append([p for _, p in row])
    adjusted = statistics.holm([p for row in p_values for p in row]).reshape(len(others), len(measures))
    return [
        {
            measure.key: Contrast(differences[i][j], _known(adjusted[i, j]))
            for j, measure in enumerate(measures)
        }
        for i in range(len(others))
    ]


def _contrast(
    benchmark: str, candidate: Judged, other: Judged, measure: Measure
) -> tuple[float | None, float]:
    mine, theirs = candidate.outcome(benchmark, measure), other.outcome(benchmark, measure)
    same = np.array_equal(mine.clusters, theirs.clusters) and np.array_equal(mine.counts, theirs.counts)
    if not same:
        raise UserError(
            f"{benchmark}: '{candidate.name}' and '{other.name}' were not judged on the same questions and "
            "languages; evaluate both with the same benchmark"
        )
    a, b = mine.figure(), theirs.figure()
    if a is None or b is None:
        return None, float("nan")
    return a - b, statistics.paired(mine.sums, theirs.sums, mine.counts, rounds=ROUNDS)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def seeds_of(results: Mapping[str, Result], first: str) -> list[Result]:
    """The results of `first`, and of those that were trained and evaluated like it but for the seed."""

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
