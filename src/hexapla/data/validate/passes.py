"""The two passes of validation over a table of any size.

The row pass looks at each row by itself, part by part, in any process; what it finds is kept in the cache. The
table pass then compares all rows: whether a translation's English row is kept, and whether its texts occurred
before, depends on what the row pass rejected. Only some dozens of bytes a row go from one pass to the next, in
arrays that are mapped files where they are large.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache as memoize
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from hexapla.config import Executor, Validate
from hexapla.data.validate import checks, contamination
from hexapla.data.validate.checks import Rule, RuleResult
from hexapla.data.validate.contamination import BenchmarkIndex, BenchmarkMatch, RowName
from hexapla.io import cache, hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.tasks import Failure, Task
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE, UserError
from hexapla.text import normalize
from hexapla.text.languages import script_shares

FORMAT = 3
"""Part of the cache's key for the row pass: raise it when the same rows and settings give another result."""

IDENTIFIED_TEXTS: Mapping[str, tuple[str, ...]] = {
    "off": (),
    "passage": ("passage",),
    "both": ("question", "passage"),
}
"""The texts whose language is checked, by the parameter `language`."""

_SMALL_TABLE = 20_000
"""Rows that this process checks itself, because starting another one would take longer."""
_STRETCH = 1 << 20
_ODD = np.uint64(0x9E3779B97F4A7C15)

Columns = dict[str, Any]
"""A list or an array by column name, with one value for each row."""


class RowGroup(NamedTuple):
    """The rows of one language and one source in a part."""

    lang: str
    """'' for all rows whose column `lang` holds no language code."""
    source: str
    rows: int
    results: list[RuleResult]


class RowPass(NamedTuple):
    """What the row pass finds in a part."""

    columns: Columns
    """One value for each row: `id`, `lang`; `group`, the position of the row's group; `named`, whether it has id
    and language; `english`; `failed`, whether it fails any rule, and `reasons`; `faults`, what is wrong with each
    of its negatives; and the keys `ids_*` (of the id), `rows_*` (of id and language) and `pairs_*` (of language,
    normalized question and normalized passage), 16 bytes each in two halves."""
    groups: list[RowGroup]
    matches: list[BenchmarkMatch]
    """Sorted by row."""


# --- the row pass ----------------------------------------------------------------------------------


class TablePart(NamedTuple):
    """A file of the table."""

    file: Path
    rows: int
    key: str
    """A hash of everything that the result of the row pass depends on."""

    @property
    def cached(self) -> Path:
        """The file that holds the result's columns; the rest is in a JSON file of the same name."""
        return cache.entry("validate", self.key)


def run_row_pass(
    files: Sequence[Path], texts: Path, validate: Validate, executor: Executor
) -> list[TablePart]:
    """Check the rows of each file by themselves, unless the cache has the result; `load_row_pass` reads it.

    The work stays on this machine, where the files are, whatever the executor's kind.

    Args:
        files: the parts of the table.
        texts: the file that `contamination.collect_texts` wrote.
        validate: the settings.
        executor: how many processes to use.

    Raises:
        UserError: files could not be read or checked.
    """
    settings = repr(dataclasses.replace(validate, min_kept=0.0))
    code = f"rows {FORMAT} {unicodedata.unidata_version} {version('great_expectations')}"
    parts = []
    for file in files:
        depends = "\n".join([hashing.sha256(file), texts.stem, settings, code])
        key = hashlib.sha256(depends.encode()).hexdigest()
        parts.append(TablePart(file, tables.count_rows(file), key))
    by_key = {part.key: part for part in parts}
    tasks = [
        Task(part.key, part.file.stem, (str(part.file), str(texts), validate), part.rows)
        for part in by_key.values()
        if not part.cached.is_file()
    ]
    failures = executors.run(
        check_part,
        tasks,
        dataclasses.replace(executor, kind="local"),
        save=lambda task, result: _save(by_key[task.key].cached, result),
        unit="rows",
        describe="validating",
        light=_SMALL_TABLE,
        on_gpu=False,
    )
    if failures:
        raise UserError(_describe(failures, len(parts)))
    return parts


def _describe(failures: Sequence[Failure], parts: int) -> str:
    error = failures[0].error.removeprefix("UserError: ")
    many = f" (and {len(failures) - 1} more of {parts} parts)" if len(failures) > 1 else ""
    return f"{error}{many}"


def _save(file: Path, result: RowPass) -> None:
    card = {
        "groups": [group._asdict() for group in result.groups],
        "matches": [match._asdict() for match in result.matches],
    }
    cache.write_json(file.with_suffix(".json"), card)
    tables.write_columns(file, result.columns)  # last, because this file says that the result is complete


def load_row_pass(part: TablePart) -> RowPass:
    """Read the result of the row pass for a part."""
    groups = [RowGroup(**group) for group in _read_card(part)["groups"]]
    return RowPass(tables.read_columns(part.cached), groups, load_matches(part))


def load_matches(part: TablePart) -> list[BenchmarkMatch]:
    """Read the texts of a part that occur in a benchmark, without the rest of the result."""
    return [BenchmarkMatch(**match) for match in _read_card(part)["matches"]]


def _read_card(part: TablePart) -> Any:
    return cache.read_json(part.cached.with_suffix(".json"))


def check_part(file: str, texts: str, validate: Validate) -> RowPass:
    """Check the rows of one part by themselves; a pure function of the files and the settings.

    Some thousand texts are in memory at a time.

    Raises:
        UserError: the part can't be read.
    """
    index = contamination.load_index(Path(texts), validate.max_overlap)
    stretches: list[Columns] = []
    matches: list[BenchmarkMatch] = []
    waiting: list[Columns] = []
    groups: dict[tuple[str, str], RowGroup] = {}
    rows = 0
    for batch in tables.stream_batches(Path(file)):
        texts_of_rows = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        columns, found = _measure(texts_of_rows, index, validate, rows)
        rows += batch.num_rows
        matches += found
        waiting.append(columns)
        if sum(len(each["row"]) for each in waiting) >= tables.PART_ROWS:
            stretches.append(_check_rows(_concatenate(waiting), validate, groups))
            waiting = []
    if waiting:
        stretches.append(_check_rows(_concatenate(waiting), validate, groups))
    return RowPass(_concatenate(stretches), list(groups.values()), sorted(matches))


def _concatenate(stretches: Sequence[Columns]) -> Columns:
    return {name: _concatenate_column([each[name] for each in stretches]) for name in stretches[0]}


def _concatenate_column(columns: Sequence[Any]) -> Any:
    if isinstance(columns[0], tables.Ragged):
        return tables.Ragged(*(np.concatenate(arrays) for arrays in zip(*columns, strict=True)))
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    return [value for column in columns for value in column]


# --- what the rules look at ------------------------------------------------------------------------


def _measure(
    texts: Columns, index: BenchmarkIndex, validate: Validate, before: int
) -> tuple[Columns, list[BenchmarkMatch]]:
    """Compute what the rules look at and what the table pass needs, and find texts of the benchmarks.

    Args:
        texts: the columns of some rows of the parallel table, as lists.
        index: the benchmarks' texts.
        validate: the settings.
        before: the number of rows of the part that come before these.
    """
    ids, languages = texts["id"], texts["lang"]
    names = [RowName(before + i, *name) for i, name in enumerate(zip(ids, languages, strict=True))]
    columns: Columns = {
        name: texts[name] for name in ("id", "lang", "source", "passage_id", *QUALITY_COLUMNS)
    }
    for name in ("id", "passage_id"):  # an empty text counts as missing
        columns[name] = [each or None for each in texts[name]]
    columns["row"] = np.arange(before, before + len(ids))
    keys = {name: normalize.normalize_texts(texts[name]) for name in ("question", "passage")}
    benchmarks: list[dict[str, None]] = [{} for _ in ids]
    matches = []
    for name, normalized in keys.items():
        columns[f"{name}_chars"] = np.array([len((text or "").strip()) for text in texts[name]], np.int64)
        columns[f"{name}_script"] = _script_shares(texts[name], languages)
        for number, match in contamination.find_matches(index, name, normalized, names):
            benchmarks[number][match.benchmark] = None
            matches.append(match)
    columns["in_benchmark"] = [", ".join(each) or None for each in benchmarks]
    columns["answer_found"] = [
        normalize.contains_answer(passage or "", answer, lang or "") if answer else None
        for answer, passage, lang in zip(texts["answer"], texts["passage"], languages, strict=True)
    ]
    columns["faults"], more = _negative_faults(texts, keys["passage"], index, validate, names)
    columns |= _hash_halves("ids", [key or "" for key in ids])
    columns |= _hash_halves("rows", [f"{key}\n{lang}" for key, lang in zip(ids, languages, strict=True)])
    pairs = zip((lang or "" for lang in languages), keys["question"], keys["passage"], strict=True)
    return columns | _hash_halves("pairs", ["\n".join(each) for each in pairs]), matches + more


def _hash_halves(name: str, texts: Sequence[str]) -> Columns:
    digests = hashing.digests(texts)
    return {f"{name}_{half}": np.ascontiguousarray(digests[:, half]) for half in range(2)}


def _script_shares(texts: Sequence[str | None], languages: Sequence[str | None]) -> np.ndarray:
    shares = np.full(len(texts), np.nan)
    for lang in dict.fromkeys(languages):
        rows = [i for i, each in enumerate(languages) if each == lang]
        shares[rows] = script_shares([texts[i] for i in rows], lang or "")
    return shares


def _negative_faults(
    texts: Columns,
    passages: Sequence[str],
    index: BenchmarkIndex,
    validate: Validate,
    names: Sequence[RowName],
) -> tuple[tables.Ragged, list[BenchmarkMatch]]:
    """Number what is wrong with each negative (see `normalize.FAULTS`), and find those from a benchmark."""
    lists = [tuple(text or "" for text in each or ()) for each in texts["negatives"]]
    lengths = np.array([len(each) for each in lists], np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths).tolist()
    negatives = [text for each in lists for text in each]
    keys = normalize.normalize_texts(negatives)
    found = contamination.find_matches(index, "negatives", keys, [names[row] for row in rows])
    in_benchmark = {number for number, _ in found}
    bounds_of = memoize(validate.bounds)
    faults = np.zeros(len(negatives), np.int8)
    for number, (row, negative) in enumerate(zip(rows, negatives, strict=True)):
        bounds = bounds_of(texts["lang"][row] or "", texts["source"][row] or "")
        positive = normalize.Positive(
            passages[row],
            (texts["answer"][row] or "") if validate.answer_in_passage else "",
            (bounds["min_passage_chars"], bounds["max_passage_chars"]),
            texts["lang"][row] or "",
        )
        faults[number] = normalize.find_fault(
            negative, keys[number], positive, in_benchmark=number in in_benchmark
        )
    return tables.Ragged(faults, lengths), [match for _, match in found]


# --- applying the rules ----------------------------------------------------------------------------

_KEYS = ("ids", "rows", "pairs")
_CARRIED = ("id", "lang", "faults", *(f"{key}_{half}" for key in _KEYS for half in (0, 1)))
_NUMBERS = ("question_script", "passage_script", "length_ratio", "copy_share", "numbers_kept", "cosine")
_OTHERS = ("row", "id", "lang", "passage_id", "question_chars", "passage_chars", "question_language")
_CHECKED = (*_OTHERS, "passage_language", "answer_found", "in_benchmark", *_NUMBERS)


def _check_rows(measured: Columns, validate: Validate, groups: dict[tuple[str, str], RowGroup]) -> Columns:
    """Return the columns of `RowPass` for some rows, and add the rows to their `groups`."""
    import pandas as pd

    frame = pd.DataFrame({name: measured[name] for name in _CHECKED})
    for name in _NUMBERS:
        frame[name] = frame[name].astype(float)  # pandas would keep a column of nothing but None as objects
    first = int(frame["row"].iloc[0])
    group_of_row = np.zeros(len(frame), np.int32)
    reasons: list[list[str]] = [[] for _ in range(len(frame))]
    for (lang, source), rows in group_rows(measured["lang"], measured["source"]).items():
        rules = checks.row_rules(
            lang,
            validate.bounds(lang, source),
            identified=IDENTIFIED_TEXTS[validate.language],
            answer_in_passage=validate.answer_in_passage,
        )
        found = checks.check_frame(rules, frame.iloc[rows])
        earlier = groups.get((lang, source)) or RowGroup(lang, source, 0, [])
        results = checks.add_results([*earlier.results, *(check.result for check in found)])
        groups[lang, source] = RowGroup(lang, source, earlier.rows + len(rows), results)
        group_of_row[rows] = list(groups).index((lang, source))
        for check in found:
            for row in check.failed.tolist():
                reasons[row - first].append(_reason(check.rule, measured, row - first))
    named = [None not in name for name in zip(measured["id"], measured["lang"], strict=True)]
    return {name: measured[name] for name in _CARRIED} | {
        "group": group_of_row,
        "named": np.array(named, bool),
        "english": np.array([lang == SOURCE_LANGUAGE for lang in measured["lang"]], bool),
        "failed": np.array([bool(each) for each in reasons], bool),
        "reasons": ["; ".join(each) or None for each in reasons],
    }


def group_rows(
    languages: Sequence[str | None], sources: Sequence[str | None]
) -> dict[tuple[str, str], Int64[np.ndarray, " rows"]]:
    """Return the positions of each language's and source's rows, in order of appearance.

    Texts that are no language code are one group, '', so that a broken column does not make a million groups.
    """
    by_text: dict[tuple[str, str], list[int]] = {}
    for row, (lang, source) in enumerate(zip(languages, sources, strict=True)):
        by_text.setdefault((lang or "", source or ""), []).append(row)
    groups: dict[tuple[str, str], list[int]] = {}
    for (lang, source), rows in by_text.items():
        groups.setdefault((lang if checks.is_language_code(lang) else "", source), []).extend(rows)
    return {group: np.array(sorted(rows)) for group, rows in groups.items()}


def _reason(rule: Rule, measured: Columns, row: int) -> str:
    if not rule.shows:
        return rule.name
    value = measured[rule.shows][row]
    if isinstance(value, float):
        return f"{rule.name}: {value:.3g}"
    # Nothing in a user's text may look like another reason, or control a terminal.
    return f"{rule.name}: {repr(value)[1:-1].replace('; ', ', ') if isinstance(value, str) else value}"


# --- the table pass --------------------------------------------------------------------------------


class RowKeys(NamedTuple):
    """What the table pass knows about all rows, in the order of the table."""

    ids: UInt64[np.ndarray, "rows 2"]
    """Equal for rows with equal ids; the next two likewise."""
    rows: UInt64[np.ndarray, "rows 2"]
    """By id and language."""
    pairs: UInt64[np.ndarray, "rows 2"]
    """By language, normalized question and normalized passage."""
    english: Bool[np.ndarray, " rows"]
    named: Bool[np.ndarray, " rows"]
    """Whether a row has an id and a language."""
    failed: Bool[np.ndarray, " rows"]
    """Whether the row pass rejected it."""


class RowRelations(NamedTuple):
    """How each row relates to all others: the columns of `checks.TABLE_RULES`."""

    only_row: Bool[np.ndarray, " rows"]
    english_kept: Bool[np.ndarray, " rows"]
    seen_before: Bool[np.ndarray, " rows"]

    @property
    def failed(self) -> Bool[np.ndarray, " rows"]:
        """Whether a row fails any rule of the table pass."""
        failed: np.ndarray = ~self.only_row | ~self.english_kept | self.seen_before
        return failed


def load_keys(parts: Sequence[TablePart], folder: Path) -> RowKeys:
    """Read the keys of all parts, one after another; the large arrays are files in `folder`."""
    count = sum(part.rows for part in parts)
    wide = [_map_keys(folder / name, count) for name in _KEYS]
    narrow = [np.zeros(count, bool) for _ in RowKeys._fields[len(_KEYS) :]]
    for part, at, result in iter_row_passes(parts):
        for name, array in zip(_KEYS, wide, strict=True):
            for half in range(2):
                array[at : at + part.rows, half] = result.columns[f"{name}_{half}"]
        for name, array in zip(RowKeys._fields[len(_KEYS) :], narrow, strict=True):
            array[at : at + part.rows] = result.columns[name]
    return RowKeys(*wide, *narrow)


def _map_keys(file: Path, count: int) -> np.ndarray:
    return cache.scratch_array(file, 2 * count, np.dtype("<u8")).reshape(-1, 2)


def iter_row_passes(parts: Sequence[TablePart]) -> Iterator[tuple[TablePart, int, RowPass]]:
    """Yield each part, the position of its first row in the table, and the result of its row pass."""
    at = 0
    for part in parts:
        yield part, at, load_row_pass(part)
        at += part.rows


def relate_rows(keys: RowKeys, folder: Path) -> RowRelations:
    """Find for each row how it relates to all others.

    None of the rows with the same id and language can be trusted. Of the other rows with the same texts the
    first stays, English rows first wherever they are in the table: a translation that is rejected because its
    English row is rejected must not take a later row with the same texts with it.

    Args:
        keys: what is known about all rows.
        folder: the place for a temporary array.
    """
    count = len(keys.ids)
    leaders = _first_among(keys.rows, keys.named, folder)
    only_row = (np.bincount(leaders, minlength=count)[leaders] == 1) | ~keys.named
    left = ~keys.failed & only_row
    seen_before = _repeats(keys.pairs, left & keys.english, folder)
    leaders = hashing.first_occurrences(keys.ids)
    kept = np.zeros(count, bool)
    kept[leaders[left & keys.english & ~seen_before]] = True
    english_kept = keys.english | kept[leaders]
    seen_before |= _repeats(keys.pairs, left & ~keys.english & english_kept, folder)
    return RowRelations(only_row, english_kept, seen_before)


def _repeats(pairs: np.ndarray, chosen: np.ndarray, folder: Path) -> np.ndarray:
    """Mark the chosen rows whose pair an earlier chosen row has."""
    later: np.ndarray = chosen & (_first_among(pairs, chosen, folder) != np.arange(len(pairs)))
    return later


def _first_among(keys: np.ndarray, chosen: np.ndarray, folder: Path) -> np.ndarray:
    """Return `hashing.first_occurrences` of the chosen rows; each other row gets a key of its own."""
    own = _map_keys(folder / "chosen", len(keys))
    for at in range(0, len(keys), _STRETCH):
        stretch = keys[at : at + _STRETCH].copy()
        others = np.flatnonzero(~chosen[at : at + _STRETCH])
        stretch[others, 0] = (others + at).astype(np.uint64) * _ODD
        stretch[others, 1] = 0
        own[at : at + _STRETCH] = stretch
    found: np.ndarray = hashing.first_occurrences(own)
    return found


def run_table_pass(
    result: RowPass, relations: RowRelations, at: int
) -> tuple[list[RowGroup], list[list[str]]]:
    """Apply the rules about all rows to the rows of one part, whose first row has the position `at`.

    Returns:
        The part's groups with the results of both passes, and the further reasons against each row.
    """
    import pandas as pd

    columns = result.columns
    count = len(columns["group"])
    related = {name: array[at : at + count] for name, array in relations._asdict().items()}
    frame = pd.DataFrame({"row": np.arange(count), "id": columns["id"], "lang": columns["lang"], **related})
    reasons: list[list[str]] = [[] for _ in range(count)]
    groups = []
    for number, group in enumerate(result.groups):
        found = checks.check_frame(checks.TABLE_RULES, frame[columns["group"] == number])
        groups.append(group._replace(results=[*group.results, *(check.result for check in found)]))
        for check in found:
            for row in check.failed.tolist():
                reasons[row].append(check.rule.name)
    return groups, reasons
