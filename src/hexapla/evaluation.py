"""One evaluation: a benchmark's vectors to ranks, ranks to figures.

Settings (arXiv 2408.10536): *mono*: question and pool in one language; *cross*: each ordered pair of
different languages, ids that both have; *multi*: one pool of all languages, every translation of
the answer is relevant. Figures are averaged over the questions of a language (or a pair), then over
languages (or pairs).
"""

from typing import Any, NamedTuple

import numpy as np

from hexapla.benchmarks import Retrieval
from hexapla.bias import own_language_share, rank_distance
from hexapla.encoder import Encoder
from hexapla.measures import MEASURES

_TOP = 10
_QUERIES_AT_ONCE = 512


class Ranks(NamedTuple):
    """Where the relevant candidates of every question stand; all that the measures need.

    Column l of `single` and `multi` is the relevant candidate in language l, 0 where there is none.
    """

    languages: tuple[str, ...]
    question_language: np.ndarray
    """int [questions], position in `languages`."""
    single: np.ndarray
    """int [questions, languages], the rank among the candidates of language l."""
    multi: np.ndarray
    """int [questions, languages], the rank among all candidates."""
    top_languages: np.ndarray
    """int [questions, 10], the languages of the first candidates of the whole pool."""


def encode(
    encoder: Encoder, benchmark: Retrieval, *, question_tokens: int, passage_tokens: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [questions, dim] and [candidates, dim]."""
    questions = [question.text for question in benchmark.questions]
    candidates = [candidate.text for candidate in benchmark.candidates]
    return (
        encoder.encode(questions, "query", question_tokens, batch_size, progress=True),
        encoder.encode(candidates, "passage", passage_tokens, batch_size, progress=True),
    )


def rank(benchmark: Retrieval, questions: np.ndarray, candidates: np.ndarray) -> Ranks:
    """Rank the relevant candidates by inner product; of equals, the earlier candidate leads.

    Memory is bounded: 512 questions by all candidates at a time.
    """
    position = {lang: i for i, lang in enumerate(benchmark.languages)}
    pool = np.array([position[candidate.lang] for candidate in benchmark.candidates])
    starts = np.searchsorted(pool, np.arange(len(position)))
    relevant = _relevant(benchmark, pool)
    single = np.zeros_like(relevant)
    multi = np.zeros_like(relevant)
    top = np.zeros((len(questions), min(_TOP, len(candidates))), dtype=np.int64)
    for first in range(0, len(questions), _QUERIES_AT_ONCE):
        part = slice(first, first + _QUERIES_AT_ONCE)
        scores = questions[part] @ candidates.T
        top[part] = pool[_first(scores, top.shape[1])]
        for language in range(len(position)):
            held = relevant[part, language]
            ahead = np.add.reduceat(_ahead(scores, held), starts, axis=1, dtype=np.int64)
            single[part, language] = np.where(held >= 0, 1 + ahead[:, language], 0)
            multi[part, language] = np.where(held >= 0, 1 + ahead.sum(axis=1), 0)
    asked = np.array([position[question.lang] for question in benchmark.questions])
    return Ranks(benchmark.languages, asked, single, multi, top)


def _relevant(benchmark: Retrieval, pool: np.ndarray) -> np.ndarray:
    """Int [questions, languages]: the relevant candidate in each language, -1 where there is none."""
    relevant = np.full((len(benchmark.questions), len(benchmark.languages)), -1)
    by_id = benchmark.relevant
    for row, question in enumerate(benchmark.questions):
        held = by_id[question.id]
        relevant[row, pool[held]] = held
    return relevant


def _ahead(scores: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Bool [questions, candidates]: which candidates stand before the question's `held` one."""
    own = np.take_along_axis(scores, held[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < held[:, None]
    ahead: np.ndarray = (scores > own) | ((scores == own) & earlier)
    return ahead


def _first(scores: np.ndarray, k: int) -> np.ndarray:
    """Int [questions, k], the best candidates; of equals, the earlier ones."""
    least = np.partition(scores, -k, axis=1)[:, -k]
    best = np.empty((len(scores), k), dtype=np.int64)
    for row, (line, bound) in enumerate(zip(scores, least, strict=True)):
        held = np.flatnonzero(line >= bound)
        best[row] = held[np.argsort(-line[held], kind="stable")[:k]]
    return best


def figures(ranks: Ranks) -> dict[str, Any]:
    """Figures by language and by language pair ("question-passage"), in the report's layout."""
    rows = {lang: ranks.question_language == i for i, lang in enumerate(ranks.languages)}
    languages = list(enumerate(ranks.languages))
    single = {name: MEASURES[name] for name in ("map", "r1")}
    mono = {
        name: {lang: _average(measure(ranks.single[rows[lang], i : i + 1])) for i, lang in languages}
        for name, measure in single.items()
    }
    cross = {
        name: {
            f"{asked}-{found}": _average(measure(ranks.single[rows[asked], i : i + 1]))
            for asked in ranks.languages
            for i, found in languages
            if found != asked
        }
        for name, measure in single.items()
    }
    per_question = {
        **{name: MEASURES[name](ranks.multi) for name in ("map", "r10")},
        "rank_distance": rank_distance(ranks.multi),
        "own_language_top10": own_language_share(ranks.top_languages, ranks.question_language),
    }
    multi = {
        name: {lang: _average(values[rows[lang]]) for lang in ranks.languages}
        for name, values in per_question.items()
    }
    return {"mono": mono, "cross": cross, "multi": multi}


def headline(parts: dict[str, Any]) -> dict[str, float | None]:
    """The macro averages under flat, stable names: `map_mono`, ..., `rank_distance`."""
    return {
        "map_mono": _macro(parts["mono"]["map"]),
        "map_cross": _macro(parts["cross"]["map"]),
        "map_multi": _macro(parts["multi"]["map"]),
        "r1_mono": _macro(parts["mono"]["r1"]),
        "r1_cross": _macro(parts["cross"]["r1"]),
        "r10_multi": _macro(parts["multi"]["r10"]),
        "rank_distance": _macro(parts["multi"]["rank_distance"]),
        "own_language_top10": _macro(parts["multi"]["own_language_top10"]),
    }


def _average(values: np.ndarray) -> float | None:
    """Over the questions that have a relevant candidate; None when no question has (JSON's null)."""
    held = values[~np.isnan(values)]
    return round(float(held.mean()), 6) if held.size else None


def _macro(values: dict[str, float | None]) -> float | None:
    held = [value for value in values.values() if value is not None]
    return round(sum(held) / len(held), 6) if held else None
