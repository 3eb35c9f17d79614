"""A model's results folder: what evaluating writes, and what report, comparison and gate read.

- `scores.json`: the headline figures, {benchmark: {centering: {measure: figure}}}; DVC's metrics.
- `details.json`: the model's card, and figures by language and by pair of languages.
- `questions.parquet`: a row for each benchmark, centering and question: the ranks of its relevant
  passages and their languages. Every figure can be computed anew from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.evaluation import bias
from hexapla.evaluation.per_query import Found, Outcomes, outcomes
from hexapla.evaluation.ranking import Ranks
from hexapla.evaluation.scoreboard import MEASURES, Scores
from hexapla.io import cache, tables
from hexapla.io.tables import Ragged
from hexapla.schema import UNFOUND, UserError

SCORES, DETAILS, QUESTIONS = "scores.json", "details.json", "questions.parquet"


class Judgement(NamedTuple):
    """One benchmark, judged: its size, and the ranks under each centering."""

    format: str
    languages: tuple[str, ...]
    questions: int
    candidates: int
    ranks: Mapping[str, Ranks | Found]
    """By centering: none, language (the pool's means), trained (the model's own)."""


class Result(NamedTuple):
    """A results folder that was read."""

    card: Mapping[str, Any]
    """`name`, `model_sha256`, and the settings of `training` (empty for a model from elsewhere) and of `evaluation`."""
    scores: Mapping[str, Mapping[str, Scores]]
    benchmarks: Mapping[str, Mapping[str, Any]]
    """By benchmark: format, languages, sizes, and under `centering` figures by language and pair."""
    outcomes: Mapping[str, Mapping[str, Outcomes]]
    """By benchmark, then by centering."""

    @property
    def training(self) -> Mapping[str, Any]:
        """How the model was trained; empty for a model from elsewhere."""
        return dict(self.card.get("training", {}))

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """How it was evaluated: lengths, precision, prompts."""
        return dict(self.card.get("evaluation", {}))


def made(card: Mapping[str, Any], judged: Mapping[str, Judgement]) -> Result:
    """Ranks to every figure."""
    found = {name: {how: outcomes(r) for how, r in each.ranks.items()} for name, each in judged.items()}
    scores = {name: {how: headline(o) for how, o in each.items()} for name, each in found.items()}
    details = {
        name: {
            "format": each.format,
            "languages": list(each.languages),
            "questions": each.questions,
            "candidates": each.candidates,
            "centering": {how: _by_group(found[name][how], ranks) for how, ranks in each.ranks.items()},
        }
        for name, each in judged.items()
    }
    return Result(dict(card), scores, details, found)


def write(folder: Path, card: Mapping[str, Any], judged: Mapping[str, Judgement]) -> Result:
    """Write the three files, each whole or not at all, the scores last; others in the folder stay."""
    result = made(card, judged)
    tables.write_columns(folder / QUESTIONS, _columns(judged))
    cache.write_json(folder / DETAILS, {"model": result.card, "benchmarks": result.benchmarks})
    cache.write_json(folder / SCORES, result.scores)
    return result


def read(folder: Path) -> Result:
    """Read a folder that `write` wrote.

    Raises:
        UserError: a file is missing, broken or of another version.
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
        ranks = _ranks(columns, details["benchmarks"])
        card, benchmarks = details["model"], details["benchmarks"]
        scores = {n: {how: dict(scores[n][how]) for how in d["centering"]} for n, d in benchmarks.items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{folder}: not a results folder of this version ({error!r}); evaluate again"
        ) from None
    found = {name: {how: outcomes(r) for how, r in each.items()} for name, each in ranks.items()}
    return Result(card, scores, benchmarks, found)


def headline(found: Outcomes) -> dict[str, float | None]:
    """The averages under flat, stable names: `map_mono`, ..., `rank_distance`; or `ndcg10`, `r100`."""
    return {
        key: found[measure.setting][measure.name].figure()
        for key, measure in MEASURES.items()
        if measure.setting in found
    }


def flat(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, float]:
    """Every figure under one name, as MLflow wants them: `sample/map_multi`, `sample/language/map_multi`."""
    return {
        f"{benchmark}/{key}" if how == "none" else f"{benchmark}/{how}/{key}": value
        for benchmark, variants in scores.items()
        for how, figures in variants.items()
        for key, value in figures.items()
        if value is not None
    }


def _by_group(found: Outcomes, ranks: Ranks | Found) -> dict[str, Any]:
    """Figures by language or pair, and the matrices of question by passage language."""
    parts: dict[str, Any] = {
        setting: {name: outcome.by_group() for name, outcome in each.items()}
        for setting, each in found.items()
    }
    if isinstance(ranks, Ranks):
        parts["matrices"] = {
            "r1": _listed(bias.found_first(ranks.single, ranks.asked)),
            "share_top10": _listed(bias.shown(ranks.top, ranks.asked, languages=len(ranks.languages))),
        }
    return parts


def _listed(matrix: np.ndarray) -> list[list[float | None]]:
    """Rows the question's language, columns the passage's, in the order of `languages`."""
    return [[None if np.isnan(cell) else round(float(cell), 6) for cell in row] for row in matrix]


# --- ranks as columns --------------------------------------------------------------------------


def _columns(judged: Mapping[str, Judgement]) -> dict[str, Any]:
    parts = [
        {
            "benchmark": np.full(len(ranks.ids), name),
            "centering": np.full(len(ranks.ids), how),
            "lang": np.array(ranks.languages)[ranks.asked],
            "id": ranks.ids.astype(str),
            **(_parallel_columns(ranks) if isinstance(ranks, Ranks) else _judged_columns(ranks)),
        }
        for name, each in judged.items()
        for how, ranks in each.ranks.items()
    ]
    return {column: _joined([part[column] for part in parts]) for column in parts[0]}


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Ragged):
        return Ragged(np.concatenate([p.values for p in parts]), np.concatenate([p.lengths for p in parts]))
    return np.concatenate(parts).astype(object)


def _parallel_columns(ranks: Ranks) -> dict[str, Ragged]:
    rows, found = np.nonzero(ranks.single)
    names, lengths = np.array(ranks.languages, dtype=object), np.bincount(rows, minlength=len(ranks.ids))
    return {
        "passage_lang": Ragged(names[found], lengths),
        "rank": Ragged(ranks.single[rows, found].astype(object), lengths),
        "rank_in_all": Ragged(ranks.multi[rows, found].astype(object), lengths),
        "grade": Ragged(np.ones(len(rows), dtype=np.int64), lengths),
        "top_lang": Ragged(names[ranks.top].ravel(), np.full(len(ranks.ids), ranks.top.shape[1])),
    }


def _judged_columns(found: Found) -> dict[str, Ragged]:
    rows, at = np.nonzero(found.ranks)
    names, lengths = np.array(found.languages, dtype=object), np.bincount(rows, minlength=len(found.ids))
    values = found.ranks[rows, at]
    none, nothing = np.zeros(len(found.ids), dtype=np.int64), np.array([], dtype=object)
    return {
        "passage_lang": Ragged(names[found.asked[rows]], lengths),
        "rank": Ragged(np.where(values == UNFOUND, None, values), lengths),  # type: ignore[call-overload]
        "rank_in_all": Ragged(nothing, none),
        "grade": Ragged(found.grades[rows, at].astype(np.int64), lengths),
        "top_lang": Ragged(nothing, none),
    }


def _ranks(columns: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, dict[str, Ranks | Found]]:
    found: dict[str, dict[str, Ranks | Found]] = {}
    for name, detail in details.items():
        kind = _read_parallel if detail["format"] == "lareqa" else _read_judged
        found[name] = {
            how: kind(columns, (columns["benchmark"] == name) & (columns["centering"] == how), detail)
            for how in detail["centering"]
        }
    return found


def _read_parallel(columns: Mapping[str, Any], rows: np.ndarray, detail: Mapping[str, Any]) -> Ranks:
    languages = tuple(detail["languages"])
    position = {lang: i for i, lang in enumerate(languages)}
    passages, lengths = _rows(columns["passage_lang"], rows)
    where = (np.repeat(np.arange(len(lengths)), lengths), np.array([position[lang] for lang in passages]))
    single = np.zeros((len(lengths), len(languages)), dtype=np.int64)
    multi = np.zeros_like(single)
    single[where] = _rows(columns["rank"], rows)[0]
    multi[where] = _rows(columns["rank_in_all"], rows)[0]
    top, size = _rows(columns["top_lang"], rows)
    asked = np.array([position[lang] for lang in columns["lang"][rows]])
    first = np.array([position[lang] for lang in top]).reshape(len(size), -1)
    return Ranks(languages, columns["id"][rows].astype(str), asked, single, multi, first)


def _read_judged(columns: Mapping[str, Any], rows: np.ndarray, detail: Mapping[str, Any]) -> Found:
    languages = tuple(detail["languages"])
    position = {lang: i for i, lang in enumerate(languages)}
    values, lengths = _rows(columns["rank"], rows)
    within = np.concatenate([np.arange(length) for length in lengths])
    where = (np.repeat(np.arange(len(lengths)), lengths), within)
    ranks = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
    grades = np.zeros_like(ranks)
    missed = np.isnan(values.astype(float))
    ranks[where] = np.where(missed, UNFOUND, np.where(missed, 0, values).astype(np.int64))
    grades[where] = _rows(columns["grade"], rows)[0]
    asked = np.array([position[lang] for lang in columns["lang"][rows]])
    return Found(languages, columns["id"][rows].astype(str), asked, ranks, grades)


def _rows(column: Ragged, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return column.values[np.repeat(rows, column.lengths)], column.lengths[rows]
