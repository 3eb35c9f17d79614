"""The headline measures: their names, which way is better, what is best among models, what fell short."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hexapla.records import Mistake

Scores = Mapping[str, float | None]
"""The headline figures of one model on one benchmark, by measure."""


@dataclass(frozen=True)
class Measure:
    """A headline figure. `even` wants the value that no preference for a language would give."""

    key: str
    title: str
    better: Literal["higher", "lower", "even"]
    digits: int
    meaning: str

    def distance(self, value: float, languages: int) -> float:
        """How far from the ideal, for comparing; the less the better."""
        if self.better == "even":
            return abs(value - 1 / languages)
        return -value if self.better == "higher" else value

    def ideal(self, languages: int) -> float:
        """What a retriever without fault and without preference reaches with so many languages."""
        if self.better == "even":
            return 1 / languages
        return 1.0 if self.better == "higher" else languages - 1.0

    def show(self, value: float | None) -> str:
        return "–" if value is None else f"{value:,.{self.digits}f}"


QUALITY = (
    Measure("map_mono", "mAP mono", "higher", 3, "Question and passages in one language."),
    Measure("map_cross", "mAP cross", "higher", 3, "Passages in another language; every pair of languages."),
    Measure(
        "map_multi", "mAP multi", "higher", 3,
        "One pool of all languages; the answer in each of them has to be found.",
    ),
    Measure("r1_mono", "R@1 mono", "higher", 3, "Share of questions whose answer comes first, one language."),
    Measure("r1_cross", "R@1 cross", "higher", 3, "The same across two languages."),
    Measure(
        "r10_multi", "R@10 multi", "higher", 3,
        "Share of the answer's translations among the first ten of the pool of all languages.",
    ),
)  # fmt: skip
BIAS = (
    Measure(
        "rank_distance", "Rank distance", "lower", 1,
        "How many ranks lie between the best and the worst placed translation of the answer, on average.",
    ),
    Measure(
        "own_language_top10", "Own language in top 10", "even", 3,
        "Share of the first ten passages that are in the question's language.",
    ),
)  # fmt: skip
MEASURES = {measure.key: measure for measure in (*QUALITY, *BIAS)}


def best(measure: Measure, board: Sequence[Scores], languages: int) -> set[int]:
    """Positions of the models that are best, as far as the shown digits tell."""
    held = {
        position: round(measure.distance(round(value, measure.digits), languages), measure.digits + 2)
        for position, scores in enumerate(board)
        if (value := scores[measure.key]) is not None
    }
    return {position for position, distance in held.items() if distance == min(held.values())}


class Check(NamedTuple):
    """An accepted figure beside the present one."""

    benchmark: str
    measure: Measure
    accepted: float
    tolerance: float
    now: float

    @property
    def short(self) -> bool:
        """Worse than accepted by more than the tolerance; better is never short."""
        worse = self.accepted - self.now if self.measure.better == "higher" else self.now - self.accepted
        return worse > self.tolerance


def check(scores: Mapping[str, Scores], accepted: Mapping[str, Any], where: str) -> list[Check]:
    """Set the accepted figures beside the scores.

    Args:
        scores: of one model, by benchmark.
        accepted: {benchmark: {measure: {"accepted": figure, "tolerance": in the same unit}}}.
        where: the file that `accepted` came from, for messages.

    Raises:
        Mistake: an unknown benchmark or measure, or no two numbers for it.
    """
    checks = []
    for benchmark, figures in accepted.items():
        if benchmark not in scores:
            raise Mistake(f"{where}: benchmark '{benchmark}' has no scores; it has: {', '.join(scores)}")
        for key, figure in figures.items():
            if key not in MEASURES:
                raise Mistake(f"{where}: {benchmark}: '{key}' is not one of {', '.join(MEASURES)}")
            try:
                bar, tolerance = float(figure["accepted"]), float(figure["tolerance"])
            except (KeyError, TypeError, ValueError):
                raise Mistake(f"{where}: {benchmark}: {key}: wants numbers `accepted`, `tolerance`") from None
            now = scores[benchmark].get(key)
            if now is None:
                raise Mistake(f"{where}: {benchmark}: {key}: the model has no such figure")
            checks.append(Check(benchmark, MEASURES[key], bar, tolerance, now))
    if not checks:
        raise Mistake(f"{where}: no figure to check")
    return checks
