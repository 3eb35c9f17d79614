"""A model's results folder: what evaluating writes, and what the report, comparisons and the gate read.

- `scores.json`: the headline scores, {benchmark: {centering: {metric: score}}}; DVC's metrics.
- `details.json`: the model's card, and scores by language and by pair of languages.
- `questions.parquet`: a row for each benchmark, centering and query: the ranks of its relevant passages and
  their languages. Every score can be computed again from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.evaluation import metrics
from hexapla.evaluation.metrics import Scores, ScoresBySetting, average_headlines, score_queries
from hexapla.evaluation.ranking import JudgedRanks, ParallelRanks
from hexapla.io import cache, tables
from hexapla.io.tables import Ragged
from hexapla.schema import UNFOUND, UserError

SCORES, DETAILS, QUESTIONS = "scores.json", "details.json", "questions.parquet"


class RankedBenchmark(NamedTuple):
    """One benchmark, ranked by a model: its size, and the ranks under each centering."""

    format: str
    languages: tuple[str, ...]
    queries: int
    passages: int
    ranks: Mapping[str, ParallelRanks | JudgedRanks]
    """By centering: none, language (the pool's means), trained (the model's own)."""


class Result(NamedTuple):
    """The content of a results folder."""

    card: Mapping[str, Any]
    """`name`, `model_sha256`, and the settings of `training` (empty for a model from elsewhere) and of
    `evaluation`."""
    scores: Mapping[str, Mapping[str, Scores]]
    """By benchmark, then by centering."""
    benchmarks: Mapping[str, Mapping[str, Any]]
    """By benchmark: format, languages, sizes, and under `centering` scores by language and pair."""
    query_scores: Mapping[str, Mapping[str, ScoresBySetting]]
    """By benchmark, then by centering."""

    @property
    def training(self) -> Mapping[str, Any]:
        """How the model was trained; empty for a model from elsewhere."""
        return dict(self.card.get("training", {}))

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """How it was evaluated: lengths, precision, prompts."""
        return dict(self.card.get("evaluation", {}))


def build_result(card: Mapping[str, Any], ranked: Mapping[str, RankedBenchmark]) -> Result:
    """Compute every score from the ranks."""
    query_scores = {
        name: {how: score_queries(ranks) for how, ranks in each.ranks.items()}
        for name, each in ranked.items()
    }
    scores = {
        name: {how: average_headlines(scored) for how, scored in each.items()}
        for name, each in query_scores.items()
    }
    details = {
        name: {
            "format": each.format,
            "languages": list(each.languages),
            "queries": each.queries,
            "passages": each.passages,
            "centering": {
                how: _average_groups(query_scores[name][how], ranks) for how, ranks in each.ranks.items()
            },
        }
        for name, each in ranked.items()
    }
    return Result(dict(card), scores, details, query_scores)


def write(folder: Path, card: Mapping[str, Any], ranked: Mapping[str, RankedBenchmark]) -> Result:
    """Write the three files, each atomically and the scores last; others in the folder stay."""
    result = build_result(card, ranked)
    tables.write_columns(folder / QUESTIONS, _to_columns(ranked))
    cache.write_json(folder / DETAILS, {"model": result.card, "benchmarks": result.benchmarks})
    cache.write_json(folder / SCORES, result.scores)
    return result


def read(folder: Path) -> Result:
    """Read a folder that `write` wrote.

    Raises:
        UserError: a file is missing, broken, or of another version.
    """
    for file in (SCORES, DETAILS, QUESTIONS):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder / file}: not found; `dvc repro` or `dvc pull` brings a pipeline's results, "
                "`hexapla evaluate --out` writes those of any model"
            )
    scores, details = cache.read_json(folder / SCORES), cache.read_json(folder / DETAILS)
    columns = tables.read_columns(folder / QUESTIONS)
    try:
        ranks = _read_ranks(columns, details["benchmarks"])
        card, benchmarks = details["model"], details["benchmarks"]
        scores = {n: {how: dict(scores[n][how]) for how in d["centering"]} for n, d in benchmarks.items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{folder}: not a results folder of this version ({error!r}); evaluate again"
        ) from None
    query_scores = {n: {how: score_queries(r) for how, r in each.items()} for n, each in ranks.items()}
    return Result(card, scores, benchmarks, query_scores)


def flatten(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, float]:
    """Give every score one name, as MLflow wants it: `sample/map_multi`, `sample/language/map_multi`."""
    return {
        f"{benchmark}/{key}" if how == "none" else f"{benchmark}/{how}/{key}": value
        for benchmark, variants in scores.items()
        for how, by_metric in variants.items()
        for key, value in by_metric.items()
        if value is not None
    }


def _average_groups(scores: ScoresBySetting, ranks: ParallelRanks | JudgedRanks) -> dict[str, Any]:
    """Average by language or pair, and compute the matrices of query language by passage language."""
    parts: dict[str, Any] = {
        setting: {name: each.by_group() for name, each in by_metric.items()}
        for setting, by_metric in scores.items()
    }
    if isinstance(ranks, ParallelRanks):
        recall = metrics.recall_matrix(ranks.in_language, ranks.query_languages)
        share = metrics.share_matrix(
            ranks.top_languages, ranks.query_languages, languages=len(ranks.languages)
        )
        parts["matrices"] = {"r1": _to_lists(recall), "share_top10": _to_lists(share)}
    return parts


def _to_lists(matrix: np.ndarray) -> list[list[float | None]]:
    """Rows are the query's language, columns the passage's, in the order of `languages`."""
    return [[None if np.isnan(cell) else round(float(cell), 6) for cell in row] for row in matrix]


# --- ranks as columns --------------------------------------------------------------------------


def _to_columns(ranked: Mapping[str, RankedBenchmark]) -> dict[str, Any]:
    parts = [
        {
            "benchmark": np.full(len(ranks.ids), name),
            "centering": np.full(len(ranks.ids), how),
            "lang": np.array(ranks.languages)[ranks.query_languages],
            "id": ranks.ids.astype(str),
            **(_parallel_columns(ranks) if isinstance(ranks, ParallelRanks) else _judged_columns(ranks)),
        }
        for name, each in ranked.items()
        for how, ranks in each.ranks.items()
    ]
    return {column: _concatenate([part[column] for part in parts]) for column in parts[0]}


def _concatenate(parts: list[Any]) -> Any:
    if isinstance(parts[0], Ragged):
        return Ragged(np.concatenate([p.values for p in parts]), np.concatenate([p.lengths for p in parts]))
    return np.concatenate(parts).astype(object)


def _parallel_columns(ranks: ParallelRanks) -> dict[str, Ragged]:
    rows, langs = np.nonzero(ranks.in_language)
    names, lengths = np.array(ranks.languages, dtype=object), np.bincount(rows, minlength=len(ranks.ids))
    top = ranks.top_languages
    return {
        "passage_lang": Ragged(names[langs], lengths),
        "rank": Ragged(ranks.in_language[rows, langs].astype(object), lengths),
        "rank_in_all": Ragged(ranks.in_pool[rows, langs].astype(object), lengths),
        "grade": Ragged(np.ones(len(rows), dtype=np.int64), lengths),
        "top_lang": Ragged(names[top].ravel(), np.full(len(ranks.ids), top.shape[1])),
    }


def _judged_columns(ranks: JudgedRanks) -> dict[str, Ragged]:
    rows, at = np.nonzero(ranks.ranks)
    names, lengths = np.array(ranks.languages, dtype=object), np.bincount(rows, minlength=len(ranks.ids))
    values = ranks.ranks[rows, at]
    none, nothing = np.zeros(len(ranks.ids), dtype=np.int64), np.array([], dtype=object)
    return {
        "passage_lang": Ragged(names[ranks.query_languages[rows]], lengths),
        "rank": Ragged(np.where(values == UNFOUND, None, values), lengths),  # type: ignore[call-overload]
        "rank_in_all": Ragged(nothing, none),
        "grade": Ragged(ranks.grades[rows, at].astype(np.int64), lengths),
        "top_lang": Ragged(nothing, none),
    }


def _read_ranks(
    columns: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, dict[str, ParallelRanks | JudgedRanks]]:
    ranks: dict[str, dict[str, ParallelRanks | JudgedRanks]] = {}
    for name, detail in details.items():
        read_kind = _read_parallel if detail["format"] == "lareqa" else _read_judged
        ranks[name] = {
            how: read_kind(columns, (columns["benchmark"] == name) & (columns["centering"] == how), detail)
            for how in detail["centering"]
        }
    return ranks


def _read_parallel(columns: Mapping[str, Any], rows: np.ndarray, detail: Mapping[str, Any]) -> ParallelRanks:
    languages = tuple(detail["languages"])
    position = {lang: i for i, lang in enumerate(languages)}
    passages, lengths = _select(columns["passage_lang"], rows)
    where = (np.repeat(np.arange(len(lengths)), lengths), np.array([position[lang] for lang in passages]))
    in_language = np.zeros((len(lengths), len(languages)), dtype=np.int64)
    in_pool = np.zeros_like(in_language)
    in_language[where] = _select(columns["rank"], rows)[0]
    in_pool[where] = _select(columns["rank_in_all"], rows)[0]
    top, size = _select(columns["top_lang"], rows)
    query_languages = np.array([position[lang] for lang in columns["lang"][rows]])
    top_languages = np.array([position[lang] for lang in top]).reshape(len(size), -1)
    ids = columns["id"][rows].astype(str)
    return ParallelRanks(languages, ids, query_languages, in_language, in_pool, top_languages)


def _read_judged(columns: Mapping[str, Any], rows: np.ndarray, detail: Mapping[str, Any]) -> JudgedRanks:
    languages = tuple(detail["languages"])
    position = {lang: i for i, lang in enumerate(languages)}
    values, lengths = _select(columns["rank"], rows)
    within = np.concatenate([np.arange(length) for length in lengths])
    where = (np.repeat(np.arange(len(lengths)), lengths), within)
    ranks = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
    grades = np.zeros_like(ranks)
    missed = np.isnan(values.astype(float))
    ranks[where] = np.where(missed, UNFOUND, np.where(missed, 0, values).astype(np.int64))
    grades[where] = _select(columns["grade"], rows)[0]
    query_languages = np.array([position[lang] for lang in columns["lang"][rows]])
    return JudgedRanks(languages, columns["id"][rows].astype(str), query_languages, ranks, grades)


def _select(column: Ragged, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return column.values[np.repeat(rows, column.lengths)], column.lengths[rows]
