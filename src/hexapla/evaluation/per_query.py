"""From ranks to outcomes: what a figure, its interval and its test are all computed from.

An outcome holds sums and counts by *cluster* and *group*. A group is what a figure is averaged over
in the end: a language, or an ordered pair of languages. A cluster is a source question: its eleven
translations are not eleven independent observations, so resampling and swapping move them together.

Settings (arXiv 2408.10536): *mono*: question and pool in one language; *cross*: each ordered pair of
different languages, ids that both have; *multi*: one pool of all languages, every translation of the
answer is relevant; *judged*: one language, relevance by TREC judgements (MIRACL).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hexapla.evaluation import bias
from hexapla.evaluation.measures import JUDGED, MICRO, MULTI, SINGLE
from hexapla.evaluation.ranking import Ranks

TOP = 10


class Found(NamedTuple):
    """Where the judged passages of every topic stand, in benchmarks with TREC judgements."""

    languages: tuple[str, ...]
    ids: np.ndarray
    """str [topics]."""
    asked: np.ndarray
    """int [topics], the position of the topic's language."""
    ranks: np.ndarray
    """int64 [topics, relevant]: from 1; 0 pads, `records.UNFOUND` was not retrieved."""
    grades: np.ndarray
    """int [topics, relevant], above 0 where `ranks` is."""


class Outcome(NamedTuple):
    """One measure in one setting."""

    groups: tuple[str, ...]
    clusters: np.ndarray
    """str [clusters], sorted."""
    sums: np.ndarray
    """float64 [clusters, groups]."""
    counts: np.ndarray
    """int64 [clusters, groups]; a question without any relevant passage counts nowhere."""

    def by_group(self) -> dict[str, float | None]:
        """Mean over the questions of each group; None where it has none (JSON's null)."""
        sums, counts = self.sums.sum(axis=0), self.counts.sum(axis=0)
        return {
            name: round(float(total / count), 6) if count else None
            for name, total, count in zip(self.groups, sums, counts, strict=True)
        }

    def figure(self) -> float | None:
        """Mean over the groups that have a question; None when none has."""
        counts = self.counts.sum(axis=0)
        held = counts > 0
        if not held.any():
            return None
        return round(float((self.sums.sum(axis=0)[held] / counts[held]).mean()), 6)


Outcomes = dict[str, dict[str, Outcome]]
"""By setting, then by measure."""


def outcomes(ranks: Ranks | Found) -> Outcomes:
    """Every measure in every setting that these ranks allow."""
    return _judged(ranks) if isinstance(ranks, Found) else _parallel(ranks)


def _parallel(ranks: Ranks) -> Outcomes:
    names, size = ranks.languages, len(ranks.languages)
    rows, found = np.nonzero(ranks.single)
    asked = ranks.asked[rows]
    own = asked == found
    alone = {name: measure(ranks.single[rows, found, None]) for name, measure in SINGLE.items()}
    pairs = tuple(f"{a}-{b}" for a in names for b in names if a != b)
    # Of the size - 1 pairs that begin with one language, those after the gap move up by one.
    pair = asked * (size - 1) + found - (found > asked)
    whole = {
        **{name: measure(ranks.multi) for name, measure in MULTI.items()},
        "rank_distance": bias.rank_distance(ranks.multi),
        "worst_rank": bias.worst_rank(ranks.multi),
        "own_language_top10": bias.own_language_share(ranks.top, ranks.asked),
        "r10_other": bias.recall_of_others(ranks.multi, ranks.asked, k=TOP),
    }
    everything = np.zeros(len(ranks.ids), dtype=np.int64)
    return {
        "mono": {
            name: _gathered(values[own], found[own], names, ranks.ids[rows[own]])
            for name, values in alone.items()
        },
        "cross": {
            name: _gathered(values[~own], pair[~own], pairs, ranks.ids[rows[~own]])
            for name, values in alone.items()
        },
        "multi": {
            **{name: _gathered(values, ranks.asked, names, ranks.ids) for name, values in whole.items()},
            **{
                name: _gathered(measure(ranks.multi), everything, ("all",), ranks.ids)
                for name, measure in MICRO.items()
            },
        },
    }


def _judged(found: Found) -> Outcomes:
    values = {name: measure(found.ranks, found.grades) for name, measure in JUDGED.items()}
    # A topic's number means nothing beyond its language.
    ids = np.array([f"{found.languages[lang]} {i}" for lang, i in zip(found.asked, found.ids, strict=True)])
    return {
        "judged": {name: _gathered(each, found.asked, found.languages, ids) for name, each in values.items()}
    }


def _gathered(values: np.ndarray, group: np.ndarray, groups: Sequence[str], ids: np.ndarray) -> Outcome:
    """Sum values [n] by cluster and group; NaN is no observation."""
    clusters, cluster = np.unique(ids, return_inverse=True)
    held = ~np.isnan(values)
    cell = cluster[held] * len(groups) + group[held]
    shape = (len(clusters), len(groups))
    size = len(clusters) * len(groups)
    sums = np.bincount(cell, weights=values[held], minlength=size).reshape(shape)
    counts = np.bincount(cell, minlength=size).reshape(shape)
    return Outcome(tuple(groups), clusters, sums, counts)
