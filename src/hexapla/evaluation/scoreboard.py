"""The headline measures: their names, which way is better, what is best among models, what fell short."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hexapla.schema import UserError

Scores = Mapping[str, float | None]
"""The headline figures of one model on one benchmark, by measure."""


@dataclass(frozen=True)
class Measure:
    """A headline figure. `even` wants the value that no preference for a language would give."""

    key: str
    setting: str
    name: str
    """The outcome it is the average of: `outcomes(...)[setting][name]`."""
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
        if self.better == "higher":
            return 1.0
        return languages - 1.0 if self.key == "rank_distance" else float(languages)

    def show(self, value: float | None) -> str:
        return "–" if value is None else f"{value:,.{self.digits}f}"


QUALITY = (
    Measure("map_mono", "mono", "map", "mAP mono", "higher", 3, "Question and passages in one language."),
    Measure(
        "map_cross", "cross", "map", "mAP cross", "higher", 3,
        "Passages in another language; every pair of languages.",
    ),
    Measure(
        "map_multi", "multi", "map", "mAP multi", "higher", 3,
        "One pool of all languages; the answer in each of them has to be found.",
    ),
    Measure(
        "map20_multi", "multi", "map20", "mAP@20 multi", "higher", 3,
        "The same, cut at rank 20 and averaged over all questions at once, as LAReQA and XTREME-R give it.",
    ),
    Measure(
        "mrr_multi", "multi", "mrr", "MRR multi", "higher", 3,
        "One over the rank of the first passage that answers, in the pool of all languages.",
    ),
    Measure(
        "r1_mono", "mono", "r1", "R@1 mono", "higher", 3,
        "Share of questions whose answer comes first, one language.",
    ),
    Measure("r1_cross", "cross", "r1", "R@1 cross", "higher", 3, "The same across two languages."),
    Measure(
        "r10_multi", "multi", "r10", "R@10 multi", "higher", 3,
        "Share of the answer's translations among the first ten of the pool of all languages.",
    ),
)  # fmt: skip
BIAS = (
    Measure(
        "rank_distance", "multi", "rank_distance", "Rank distance", "lower", 1,
        "How many ranks lie between the best and the worst placed translation of the answer, on average.",
    ),
    Measure(
        "worst_rank", "multi", "worst_rank", "Worst rank", "lower", 1,
        "How far down one has to read to see every translation of the answer, on average.",
    ),
    Measure(
        "own_language_top10", "multi", "own_language_top10", "Own language in top 10", "even", 3,
        "Share of the first ten passages that are in the question's language.",
    ),
    Measure(
        "r10_other", "multi", "r10_other", "R@10 other languages", "higher", 3,
        "Share of the answer's translations into other languages than the question's among the first ten.",
    ),
)  # fmt: skip
JUDGED = (
    Measure(
        "ndcg10", "judged", "ndcg10", "nDCG@10", "higher", 3,
        "Discounted gain of the first ten passages, as a share of the best possible.",
    ),
    Measure("r100", "judged", "r100", "Recall@100", "higher", 3, "Share of the relevant in the first 100."),
)  # fmt: skip
MEASURES = {measure.key: measure for measure in (*QUALITY, *BIAS, *JUDGED)}
SHORT = tuple(
    MEASURES[key]
    for key in (
        "map_mono", "map_cross", "map_multi", "r1_mono", "r10_multi", "rank_distance", "own_language_top10",
        "ndcg10", "r100",
    )
)  # fmt: skip
"""What a terminal has room for."""


def held(measures: Iterable[Measure], scores: Scores) -> list[Measure]:
    """Those of the measures that a benchmark of this kind has."""
    return [measure for measure in measures if measure.key in scores]


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
    centering: str
    measure: Measure
    accepted: float
    tolerance: float
    now: float

    @property
    def short(self) -> bool:
        """Worse than accepted by more than the tolerance; better is never short."""
        worse = self.accepted - self.now if self.measure.better == "higher" else self.now - self.accepted
        return worse > self.tolerance


def check(scores: Mapping[str, Mapping[str, Scores]], accepted: Mapping[str, Any], where: str) -> list[Check]:
    """Set the accepted figures beside the scores.

    Args:
        scores: of one model, by benchmark and centering.
        accepted: {benchmark: {centering: {measure: {"accepted": figure, "tolerance": in its unit}}}}.
        where: the file that `accepted` came from, for messages.

    Raises:
        UserError: an unknown benchmark, centering or measure, or no two numbers for it.
    """
    checks = []
    for benchmark, centering, key, figure in _flat(accepted, where):
        if benchmark not in scores:
            raise UserError(f"{where}: benchmark '{benchmark}' has no scores; it has: {', '.join(scores)}")
        if centering not in scores[benchmark]:
            known = ", ".join(scores[benchmark])
            raise UserError(
                f"{where}: {benchmark}: centering '{centering}' was not judged; there are: {known}"
            )
        name = f"{benchmark}: {centering}: {key}"
        if key not in MEASURES:
            raise UserError(f"{where}: {name}: '{key}' is not one of {', '.join(MEASURES)}")
        try:
            bar, tolerance = float(figure["accepted"]), float(figure["tolerance"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: {name}: wants numbers `accepted`, `tolerance`") from None
        now = scores[benchmark][centering].get(key)
        if now is None:
            raise UserError(f"{where}: {name}: the model has no such figure")
        checks.append(Check(benchmark, centering, MEASURES[key], bar, tolerance, now))
    if not checks:
        raise UserError(f"{where}: no figure to check")
    return checks


def _flat(accepted: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, str, Any]]:
    for benchmark, variants in accepted.items():
        for centering, figures in variants.items():
            if not isinstance(figures, Mapping):
                raise UserError(f"{where}: {benchmark}: {centering}: wants a mapping of measures")
            for key, figure in figures.items():
                yield benchmark, centering, key, figure
