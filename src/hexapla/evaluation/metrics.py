"""Every metric: how it is computed from ranks, its name, its direction and its meaning.

A metric is a function of the ranks of each query's relevant passages, and one entry in `ALL`. `score_queries` computes
all of them and sums them by *cluster* and *group*. A group is what a score is averaged over in the end: a language, or
an ordered pair of languages. A cluster is a source question: its eleven translations are not eleven independent
observations, so resampling and swapping move them together.

Settings (arXiv 2408.10536): *mono*: query and pool in one language; *cross*: each ordered pair of different languages,
ids that both have; *multi*: one pool of all languages, every translation of the answer is relevant; *judged*: one
language, relevance by TREC judgements (MIRACL).

Ranks are int64 [queries, relevant] everywhere: the rank (from 1) of each relevant passage in the query's ranking; 0
pads; `schema.UNFOUND` is a passage that a ranking cut at some depth did not reach: it counts as relevant and is never
found. Every function gives a float [queries], NaN where a query has nothing to score. In the setting *multi* there is a
column for each language; otherwise the order of the columns does not matter.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped

from hexapla.evaluation.ranking import JudgedRanks, ParallelRanks
from hexapla.schema import UNFOUND

Ranks = Int64[np.ndarray, "queries relevant"]
PerQuery = Float64[np.ndarray, " queries"]
Scores = Mapping[str, float | None]
"""The headline scores of one model on one benchmark, by the metric's key."""

# --- finding the answer ----------------------------------------------------------------------------


def average_precision(ranks: Ranks) -> PerQuery:
    """Mean over the relevant passages of the precision at their rank; the ranking is not cut.

    Since it is not cut, it is not comparable with LAReQA's mAP@20: see `average_precision_at`.
    """
    return _divide(_precision(ranks).sum(axis=1), _is_relevant(ranks).sum(axis=1))


def average_precision_at(ranks: Ranks, k: int) -> PerQuery:
    """Average precision as XTREME-R's scorer for LAReQA computes it (k = 20; arXiv 2104.07412).

    Precision is summed over the relevant among the first k and divided by min(relevant, k), so a query with more than
    k relevant passages can reach 1. TREC's `map_cut` divides by the relevant. XTREME-R averages over all queries
    (micro), not over languages.
    """
    total = np.where(_sort_ranks(ranks) <= k, _precision(ranks), 0).sum(axis=1)
    return _divide(total, np.minimum(_is_relevant(ranks).sum(axis=1), k))


def reciprocal_rank(ranks: Ranks) -> PerQuery:
    """One over the rank of the first relevant passage; the ranking is not cut."""
    best = _sort_ranks(ranks).min(axis=1, initial=np.inf)
    return np.where(_is_relevant(ranks).any(axis=1), 1 / best, np.nan)


def recall_at(ranks: Ranks, k: int) -> PerQuery:
    """Share of the relevant passages that are among the first k."""
    relevant = _is_relevant(ranks)
    return _divide((relevant & (ranks <= k)).sum(axis=1), relevant.sum(axis=1))


def ndcg_at(ranks: Ranks, grades: Int[np.ndarray, "queries relevant"] | None = None, *, k: int) -> PerQuery:
    """Discounted gain of the first k over that of the best order (Järvelin and Kekäläinen 2002).

    Linear gain and a discount of log2(rank + 1), as in trec_eval's `ndcg_cut`; other tools raise 2 to the grade.

    Args:
        ranks: of the relevant passages.
        grades: each passage's gain; 1 when left out. A grade below 1 gains nothing, and a query with no other grades
            gives NaN.
        k: the depth, for the best order also.
    """
    relevant = _is_relevant(ranks)
    gains = relevant.astype(float) if grades is None else np.where(relevant, np.maximum(grades, 0), 0.0)
    discount = np.where(relevant & (ranks <= k), np.log2(np.where(relevant, ranks, 1) + 1.0), np.inf)
    best = -np.sort(-gains, axis=1)[:, :k]
    ideal = (best / np.log2(np.arange(2, best.shape[1] + 2))).sum(axis=1)
    return _divide((gains / discount).sum(axis=1), ideal)


def _is_relevant(ranks: np.ndarray) -> np.ndarray:
    """Bool [queries, relevant]: a relevant passage, no padding."""
    return ranks > 0


def _sort_ranks(ranks: np.ndarray) -> np.ndarray:
    """Float [queries, relevant], ascending; padding and what is never found are infinite."""
    return np.sort(np.where(_is_relevant(ranks) & (ranks != UNFOUND), ranks, np.inf), axis=1)


def _precision(ranks: np.ndarray) -> np.ndarray:
    """Float [queries, relevant]: precision at the first, second, ... relevant passage; 0 when not found."""
    precision: np.ndarray = np.arange(1, ranks.shape[1] + 1) / _sort_ranks(ranks)
    return precision


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Quotient [queries], NaN where there is nothing to divide by."""
    quotient: np.ndarray = total / np.where(count > 0, count, np.nan)
    return quotient


# --- language bias ---------------------------------------------------------------------------------


def rank_distance(ranks: Ranks) -> PerQuery:
    """Worst minus best rank of a query's relevant passages (arXiv 2408.10536, section 3.3).

    Returns:
        NaN with fewer than two relevant passages, since a distance is between two; infinite when one was not found.
        The least that n translations allow is n - 1.
    """
    worst = worst_rank(ranks)
    best = np.where(ranks > 0, ranks, UNFOUND).min(axis=1)
    distance = np.where(np.isinf(worst), np.inf, worst - best)
    return np.where((ranks > 0).sum(axis=1) > 1, distance, np.nan)


def worst_rank(ranks: Ranks) -> PerQuery:
    """How deep a reader must go to meet the answer in every language that has it.

    Unlike rank distance, it is not fooled by a query whose translations are all equally low.

    Returns:
        NaN without any relevant passage, infinite when one was not found.
    """
    worst = ranks.max(axis=1)
    return np.where(worst == UNFOUND, np.inf, np.where(worst > 0, worst.astype(float), np.nan))


def own_language_share(
    top_languages: Int[np.ndarray, "queries k"], query_languages: Int[np.ndarray, " queries"]
) -> PerQuery:
    """Share of a query's first k passages that are in the query's own language.

    It is 1 / (number of languages) where language plays no part.
    """
    share: np.ndarray = (top_languages == query_languages[:, None]).mean(axis=1)
    return share


def recall_of_others(ranks: Ranks, query_languages: Int[np.ndarray, " queries"], *, k: int) -> PerQuery:
    """Share of the relevant passages in languages other than the query's that are among the first k.

    NaN for a query that only its own language answers.
    """
    others = (ranks > 0) & (np.arange(ranks.shape[1]) != query_languages[:, None])
    return _divide((others & (ranks <= k)).sum(axis=1), others.sum(axis=1))


def recall_matrix(
    in_language: Int64[np.ndarray, "queries languages"], query_languages: Int[np.ndarray, " queries"]
) -> Float64[np.ndarray, "languages languages"]:
    """Recall@1 by query language (rows) and passage language, each in a pool of one language.

    NaN where no query of a language has a relevant passage in the other.
    """
    relevant = _sum_by_language(in_language > 0, query_languages)
    return _divide(_sum_by_language(in_language == 1, query_languages), relevant)


def share_matrix(
    top_languages: Int[np.ndarray, "queries k"],
    query_languages: Int[np.ndarray, " queries"],
    *,
    languages: int,
) -> Float64[np.ndarray, "languages languages"]:
    """Share of each passage language in the first k passages, by query language (rows).

    The diagonal holds the own-language shares; a column that is high everywhere is a language that attracts queries of
    all languages. Each row sums to 1, or is NaN for a language without queries.
    """
    cell = query_languages[:, None] * languages + top_languages
    counts = np.bincount(cell.ravel(), minlength=languages**2).reshape(languages, languages)
    return _divide(counts, counts.sum(axis=1, keepdims=True))


def _sum_by_language(hits: np.ndarray, query_languages: np.ndarray) -> np.ndarray:
    """Int [languages, languages]: hits [queries, languages], summed over each language's queries."""
    is_of = query_languages == np.arange(hits.shape[1])[:, None]
    total: np.ndarray = is_of.astype(np.int64) @ hits.astype(np.int64)
    return total


# --- the registry ----------------------------------------------------------------------------------


class RankedQueries(NamedTuple):
    """What a metric is computed from, in one setting."""

    ranks: Ranks
    query_languages: Int[np.ndarray, " queries"]
    grades: Int[np.ndarray, "queries relevant"] | None = None
    """In the setting *judged*."""
    top_languages: Int[np.ndarray, "queries k"] | None = None
    """In the setting *multi*."""


Compute = Callable[[RankedQueries], PerQuery]
Direction = Literal["higher", "lower", "even"]


@dataclass(frozen=True)
class Metric:
    """One metric in one setting. `even` is best at the value of a retriever that prefers no language."""

    key: str
    """Its name in scores.json, if it is a headline; it names metric and setting."""
    setting: str
    name: str
    title: str
    better: Direction
    digits: int
    meaning: str
    compute: Compute
    headline: bool = True
    """Other metrics are only in details.json."""
    micro: bool = False
    """Averaged over all queries alike, not over languages."""

    def distance(self, value: float, languages: int) -> float:
        """How far a value is from the ideal, for comparing; the less the better."""
        if self.better == "even":
            return abs(value - 1 / languages)
        return -value if self.better == "higher" else value

    def ideal(self, languages: int) -> float:
        """The value of a retriever without errors and without preference, in this number of languages."""
        if self.better == "even":
            return 1 / languages
        if self.better == "higher":
            return 1.0
        return languages - 1.0 if self.key == "rank_distance" else float(languages)

    def show(self, value: float | None) -> str:
        return "–" if value is None else f"{value:,.{self.digits}f}"


def _of_ranks(function: Callable[[Ranks], PerQuery]) -> Compute:
    return lambda ranked: function(ranked.ranks)


def _own_language_share(ranked: RankedQueries) -> PerQuery:
    assert ranked.top_languages is not None
    return own_language_share(ranked.top_languages, ranked.query_languages)


_AP, _RR = _of_ranks(average_precision), _of_ranks(reciprocal_rank)
_AP_20 = _of_ranks(partial(average_precision_at, k=20))
_R_1, _R_10, _R_100 = (_of_ranks(partial(recall_at, k=k)) for k in (1, 10, 100))

QUALITY = (
    Metric("map_mono", "mono", "map", "mAP mono", "higher", 3, "Question and passages in one language.", _AP),
    Metric(
        "map_cross", "cross", "map", "mAP cross", "higher", 3,
        "Passages in another language; every pair of languages.", _AP,
    ),
    Metric(
        "map_multi", "multi", "map", "mAP multi", "higher", 3,
        "One pool of all languages; the answer in each of them has to be found.", _AP,
    ),
    Metric(
        "map20_multi", "multi", "map20", "mAP@20 multi", "higher", 3,
        "The same, cut at rank 20 and averaged over all questions at once, as LAReQA and XTREME-R give it.",
        _AP_20, micro=True,
    ),
    Metric(
        "mrr_multi", "multi", "mrr", "MRR multi", "higher", 3,
        "One over the rank of the first passage that answers, in the pool of all languages.", _RR,
    ),
    Metric(
        "r1_mono", "mono", "r1", "R@1 mono", "higher", 3,
        "Share of questions whose answer comes first, one language.", _R_1,
    ),
    Metric("r1_cross", "cross", "r1", "R@1 cross", "higher", 3, "The same across two languages.", _R_1),
    Metric(
        "r10_multi", "multi", "r10", "R@10 multi", "higher", 3,
        "Share of the answer's translations among the first ten of the pool of all languages.", _R_10,
    ),
)  # fmt: skip
BIAS = (
    Metric(
        "rank_distance", "multi", "rank_distance", "Rank distance", "lower", 1,
        "How many ranks are between the best and the worst placed translation of the answer, on average.",
        _of_ranks(rank_distance),
    ),
    Metric(
        "worst_rank", "multi", "worst_rank", "Worst rank", "lower", 1,
        "How far down one has to read to see every translation of the answer, on average.",
        _of_ranks(worst_rank),
    ),
    Metric(
        "own_language_top10", "multi", "own_language_top10", "Own language in top 10", "even", 3,
        "Share of the first ten passages that are in the question's language.", _own_language_share,
    ),
    Metric(
        "r10_other", "multi", "r10_other", "R@10 other languages", "higher", 3,
        "Share of the answer's translations into other languages than the question's among the first ten.",
        lambda ranked: recall_of_others(ranked.ranks, ranked.query_languages, k=10),
    ),
)  # fmt: skip
JUDGED = (
    Metric(
        "ndcg10", "judged", "ndcg10", "nDCG@10", "higher", 3,
        "Discounted gain of the first ten passages, as a share of the best possible.",
        lambda ranked: ndcg_at(ranked.ranks, ranked.grades, k=10),
    ),
    Metric("r100", "judged", "r100", "Recall@100", "higher", 3, "Share of the relevant in the first 100.", _R_100),
)  # fmt: skip
_ONLY_IN_DETAILS = tuple(
    Metric(f"{name}_{setting}", setting, name, "", "higher", 3, "", compute, headline=False)
    for setting, name, compute in (
        ("mono", "r10", _R_10),
        ("cross", "r10", _R_10),
        ("multi", "ndcg10", _of_ranks(partial(ndcg_at, k=10))),
        ("multi", "r100", _R_100),
        ("judged", "mrr", _RR),
    )
)
ALL = (*QUALITY, *BIAS, *JUDGED, *_ONLY_IN_DETAILS)
METRICS = {metric.key: metric for metric in ALL if metric.headline}
SHORT = tuple(
    METRICS[key]
    for key in (
        "map_mono", "map_cross", "map_multi", "r1_mono", "r10_multi", "rank_distance", "own_language_top10",
        "ndcg10", "r100",
    )
)  # fmt: skip
"""The metrics that a terminal has room for."""


def choose_known(metrics: Iterable[Metric], scores: Scores) -> list[Metric]:
    """Choose those of the metrics that a benchmark of this kind has."""
    return [metric for metric in metrics if metric.key in scores]


def find_best(metric: Metric, board: Sequence[Scores], languages: int) -> set[int]:
    """Find the positions of the models that are best in the digits that are shown."""
    distances = {
        position: round(metric.distance(round(value, metric.digits), languages), metric.digits + 2)
        for position, scores in enumerate(board)
        if (value := scores[metric.key]) is not None
    }
    return {position for position, distance in distances.items() if distance == min(distances.values())}


# --- scores of the queries -------------------------------------------------------------------------


class QueryScores(NamedTuple):
    """One metric in one setting: its values, summed by cluster and group."""

    groups: tuple[str, ...]
    clusters: Shaped[np.ndarray, " clusters"]
    """Sorted."""
    sums: Float64[np.ndarray, "clusters groups"]
    counts: Int64[np.ndarray, "clusters groups"]
    """A query without any relevant passage counts nowhere."""

    def by_group(self) -> dict[str, float | None]:
        """Mean over the queries of each group; None for a group without queries (null in JSON)."""
        sums, counts = self.sums.sum(axis=0), self.counts.sum(axis=0)
        return {
            name: round(float(total / count), 6) if count else None
            for name, total, count in zip(self.groups, sums, counts, strict=True)
        }

    def average(self) -> float | None:
        """Mean over the groups that have a query; None when none has."""
        counts = self.counts.sum(axis=0)
        known = counts > 0
        if not known.any():
            return None
        return round(float((self.sums.sum(axis=0)[known] / counts[known]).mean()), 6)


ScoresBySetting = dict[str, dict[str, QueryScores]]
"""By setting, then by the metric's name."""


class _Setting(NamedTuple):
    ranked: RankedQueries
    group: np.ndarray
    """int [queries], as a position in `groups`."""
    groups: tuple[str, ...]
    ids: np.ndarray
    """str [queries]."""


def score_queries(ranks: ParallelRanks | JudgedRanks) -> ScoresBySetting:
    """Compute every metric in every setting that these ranks allow."""
    settings = _judged_setting(ranks) if isinstance(ranks, JudgedRanks) else _parallel_settings(ranks)
    scores: ScoresBySetting = {name: {} for name in settings}
    for metric in ALL:
        if setting := settings.get(metric.setting):
            group, groups = setting.group, setting.groups
            if metric.micro:
                group, groups = np.zeros_like(group), ("all",)
            values = metric.compute(setting.ranked)
            scores[metric.setting][metric.name] = _sum_up(values, group, groups, setting.ids)
    return scores


def average_headlines(scores: ScoresBySetting) -> dict[str, float | None]:
    """Average under flat, stable names: `map_mono`, ..., `rank_distance`; or `ndcg10`, `r100`."""
    return {
        key: scores[metric.setting][metric.name].average()
        for key, metric in METRICS.items()
        if metric.setting in scores
    }


def _parallel_settings(ranks: ParallelRanks) -> dict[str, _Setting]:
    names, size = ranks.languages, len(ranks.languages)
    rows, found = np.nonzero(ranks.in_language)
    asked = ranks.query_languages[rows]
    pairs = tuple(f"{a}-{b}" for a in names for b in names if a != b)
    # Of the size - 1 pairs that begin with one language, those after the gap move up by one.
    pair = asked * (size - 1) + found - (found > asked)
    alone = ranks.in_language[rows, found, None]

    def choose(these: np.ndarray, group: np.ndarray, groups: tuple[str, ...]) -> _Setting:
        ranked = RankedQueries(alone[these], asked[these])
        return _Setting(ranked, group[these], groups, ranks.ids[rows[these]])

    whole = RankedQueries(ranks.in_pool, ranks.query_languages, top_languages=ranks.top_languages)
    return {
        "mono": choose(asked == found, found, names),
        "cross": choose(asked != found, pair, pairs),
        "multi": _Setting(whole, ranks.query_languages, names, ranks.ids),
    }


def _judged_setting(ranks: JudgedRanks) -> dict[str, _Setting]:
    # A topic's number means nothing beyond its language.
    ids = [f"{ranks.languages[lang]} {i}" for lang, i in zip(ranks.query_languages, ranks.ids, strict=True)]
    ranked = RankedQueries(ranks.ranks, ranks.query_languages, ranks.grades)
    return {"judged": _Setting(ranked, ranks.query_languages, ranks.languages, np.array(ids))}


def _sum_up(values: np.ndarray, group: np.ndarray, groups: Sequence[str], ids: np.ndarray) -> QueryScores:
    """Sum values [queries] by cluster and group; NaN is no observation."""
    clusters, cluster = np.unique(ids, return_inverse=True)
    known = ~np.isnan(values)
    cell = cluster[known] * len(groups) + group[known]
    shape = (len(clusters), len(groups))
    size = len(clusters) * len(groups)
    sums = np.bincount(cell, weights=values[known], minlength=size).reshape(shape)
    counts = np.bincount(cell, minlength=size).reshape(shape)
    return QueryScores(tuple(groups), clusters, sums, counts)
