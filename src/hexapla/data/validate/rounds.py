"""Both rounds of validation over a table of any size: rows by themselves, then beside all others.

Whether a pair's English row is kept, and whether its text was seen before, depend on what the first round
rejected, so that one waits for the other. Between them goes what `verdicts` carries of each row, in files of
the cache; of all rows at a time there are a few arrays, which are mapped files where they are large.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla import config_data, schema
from hexapla.config_data import Executor, Validate
from hexapla.data.validate import checks, contamination, expectations, overlap, verdicts
from hexapla.data.validate.contamination import Hit
from hexapla.data.validate.verdicts import Group, Judged
from hexapla.io import cache, hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.executors import Failure, Task
from hexapla.schema import UserError
from hexapla.text import languages, normalize

_LIGHT = 20_000
"""Rows that are judged in this process: another one would take seconds to begin."""
_STRETCH = 1 << 20
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Part(NamedTuple):
    file: Path
    rows: int
    key: str
    """Of all that its verdicts depend on."""

    @property
    def kept(self) -> Path:
        """Where its verdicts are, with the columns."""
        return cache.entry("validate", self.key)


# --- the first round -------------------------------------------------------------------------------


def first_round(files: Sequence[Path], texts: Path, validate: Validate, executor: Executor) -> list[Part]:
    """Judge the rows of each file by themselves, unless that was done before; `load` reads the verdicts.

    Files are read where they lie, so this machine does it, whatever the executor's kind.

    Raises:
        UserError: files could not be judged.
    """
    settings = repr(dataclasses.replace(validate, min_kept=0.0))
    modules = (checks, contamination, expectations, hashing, languages, overlap, config_data, tables, schema)
    code = f"{cache.code(*modules, normalize, verdicts)} {version('great_expectations')}"
    parts = []
    for file in files:
        depends = "\n".join([hashing.sha256(file), texts.stem, settings, code])
        key = hashlib.sha256(depends.encode()).hexdigest()
        parts.append(Part(file, tables.count_rows(file), key))
    todo = {
        part.key: Task(part.key, part.file.stem, (str(part.file), str(texts), validate), part.rows)
        for part in parts
        if not part.kept.is_file()
    }
    by_key = {part.key: part for part in parts}
    failures = executors.run(
        verdicts.judge,
        list(todo.values()),
        dataclasses.replace(executor, kind="local"),
        save=lambda task, judged: _save(by_key[task.key].kept, judged),
        unit="rows",
        describe="validating",
        light=_LIGHT,
        on_gpu=False,
    )
    if failures:
        raise UserError(_told(failures, len(parts)))
    return parts


def _told(failures: Sequence[Failure], parts: int) -> str:
    error = failures[0].error.removeprefix("UserError: ")
    many = f" (and {len(failures) - 1} more of {parts} parts)" if len(failures) > 1 else ""
    return f"{error}{many}"


def _save(file: Path, judged: Judged) -> None:
    card = {
        "groups": [group._asdict() for group in judged.groups],
        "hits": [hit._asdict() for hit in judged.hits],
    }
    cache.write_json(file.with_suffix(".json"), card)
    tables.write_columns(file, judged.columns)  # last: where it is, all is


def load(part: Part) -> Judged:
    groups = [Group(**group) for group in _card(part)["groups"]]
    return Judged(tables.read_columns(part.kept), groups, hits(part))


def hits(part: Part) -> list[Hit]:
    """Its texts that stand in a benchmark, without the rest of its verdicts."""
    return [Hit(**hit) for hit in _card(part)["hits"]]


def _card(part: Part) -> Any:
    return cache.read_json(part.kept.with_suffix(".json"))


# --- the second round ------------------------------------------------------------------------------


class Keys(NamedTuple):
    """What is known of all rows, in the order of the table."""

    ids: np.ndarray
    """uint64 [rows, 2], as the next two; equal where the rows' ids are."""
    rows: np.ndarray
    """Of id and language."""
    pairs: np.ndarray
    """Of language, question and passage, normalised."""
    english: np.ndarray
    """bool [rows], as all that follow: whether a row is English."""
    named: np.ndarray
    """Whether it has an id and a language."""
    failed: np.ndarray
    """Whether it was rejected for itself."""


class Related(NamedTuple):
    """bool [rows] each, as `expectations.BESIDE` has them."""

    only_row: np.ndarray
    english_kept: np.ndarray
    seen_before: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        found: np.ndarray = ~self.only_row | ~self.english_kept | self.seen_before
        return found


def keys(parts: Sequence[Part], room: Path) -> Keys:
    """Those of all parts, one after another; the large ones in files of the folder `room`."""
    count = sum(part.rows for part in parts)
    wide = [_pairs(room / name, count) for name in Keys._fields[:3]]
    narrow = [np.zeros(count, bool) for _ in Keys._fields[3:]]
    at = 0
    for part in parts:
        columns = load(part).columns
        for name, array in zip(Keys._fields[:3], wide, strict=True):
            for half in range(2):
                array[at : at + part.rows, half] = columns[f"{name}_{half}"]
        for name, array in zip(Keys._fields[3:], narrow, strict=True):
            array[at : at + part.rows] = columns[name]
        at += part.rows
    return Keys(*wide, *narrow)


def _pairs(file: Path, count: int) -> np.ndarray:
    return cache.scratch_array(file, 2 * count, np.dtype("<u8")).reshape(-1, 2)


def relate(keys: Keys, room: Path) -> Related:
    """What each row is beside all others.

    Of rows with the same id and language none can be trusted. Of the rows that are left, the first of equal
    pairs stays, English rows first wherever they stand: a translation that goes because its English row went
    must not take a later row with the same text with it.
    """
    count = len(keys.ids)
    leaders = _first_among(keys.rows, keys.named, room)
    only_row = (np.bincount(leaders, minlength=count)[leaders] == 1) | ~keys.named
    left = ~keys.failed & only_row
    seen_before = _repeated(keys.pairs, left & keys.english, room)
    leaders = hashing.first_occurrences(keys.ids)
    kept = np.zeros(count, bool)
    kept[leaders[left & keys.english & ~seen_before]] = True
    english_kept = keys.english | kept[leaders]
    seen_before |= _repeated(keys.pairs, left & ~keys.english & english_kept, room)
    return Related(only_row, english_kept, seen_before)


def _repeated(pairs: np.ndarray, chosen: np.ndarray, room: Path) -> np.ndarray:
    later: np.ndarray = chosen & (_first_among(pairs, chosen, room) != np.arange(len(pairs)))
    return later


def _first_among(keys: np.ndarray, chosen: np.ndarray, room: Path) -> np.ndarray:
    """`firsts.first` for the chosen rows; of the others each is the only one of its kind."""
    own = _pairs(room / "chosen", len(keys))
    for at in range(0, len(keys), _STRETCH):
        stretch = keys[at : at + _STRETCH].copy()
        others = np.flatnonzero(~chosen[at : at + _STRETCH])
        stretch[others, 0] = (others + at).astype(np.uint64) * _ODD
        stretch[others, 1] = 0
        own[at : at + _STRETCH] = stretch
    found: np.ndarray = hashing.first_occurrences(own)
    return found


def second_round(judged: Judged, related: Related, at: int) -> tuple[list[Group], list[list[str]]]:
    """Great Expectations' verdicts on a part's rows beside all others; `at` is the part's first row.

    Returns:
        The part's groups with the outcomes of both rounds, and each row's further reasons.
    """
    import pandas as pd

    columns = judged.columns
    count = len(columns["group"])
    beside = {name: array[at : at + count] for name, array in related._asdict().items()}
    frame = pd.DataFrame({"row": np.arange(count), "id": columns["id"], "lang": columns["lang"], **beside})
    reasons: list[list[str]] = [[] for _ in range(count)]
    groups = []
    for number, group in enumerate(judged.groups):
        found = checks.judge(frame[columns["group"] == number], expectations.BESIDE)
        groups.append(group._replace(outcomes=[*group.outcomes, *(verdict.outcome for verdict in found)]))
        for verdict in found:
            for row in verdict.rows.tolist():
                reasons[row].append(verdict.rule.name)
    return groups, reasons


def each(parts: Sequence[Part]) -> Iterator[tuple[Part, int, Judged]]:
    """The parts, the position of the first row of each in the table, and what the first round found."""
    at = 0
    for part in parts:
        yield part, at, load(part)
        at += part.rows
