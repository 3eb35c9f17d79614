"""A source, of any size, read into parts that a killed run need not read again.

Each part holds what a number of the source's rows gave, checked, in their order, with a note of what became
of them. They lie in the cache, in a folder named by all that the rows depend on, until someone removes it.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from hexapla.config_data import Source
from hexapla.data.collect import sources
from hexapla.data.collect.sources import Tally
from hexapla.io import cache, tables
from hexapla.io.readers import Row
from hexapla.schema import SOURCE_LANGUAGE, Pair, UserError

PART_ROWS = 1 << 15
"""Rows of the source that a part is made of: what a killed run loses."""


class Gathered(NamedTuple):
    """A source that was read."""

    source: Source
    parts: tuple[Path, ...]
    tally: Tally


def folder(source: Source, sample: Path) -> Path | None:
    """Where a source's parts are kept; None for one of which nobody can say whether it has changed.

    Raises:
        UserError: its files are not there.
    """
    known = sources.fingerprint(source, sample)
    if known is None:
        return None
    own = cache.code(sys.modules[__name__])
    key = hashlib.sha256(f"{own} {PART_ROWS} {known}".encode()).hexdigest()
    return cache.entry("collect", key, suffix="")


def read(source: Source, sample: Path, folder: Path) -> Gathered:
    """Read what is not read yet of a source, and count what became of its rows.

    Args:
        source: no preset.
        sample: the folder of the shipped sample.
        folder: for the parts.

    Raises:
        UserError: a row does not fit, or there are no pairs.
    """
    end = folder / "end.json"
    if not end.is_file() or cache.read_json(end) > len(_notes(folder)):
        _read(source, sample, folder)
        cache.write_json(end, len(_notes(folder)))
    notes = _notes(folder)
    tally = Tally()
    for note in notes:
        for name, count in note["tally"].items():
            setattr(tally, name, getattr(tally, name) + count)
    if not any(note["english"] for note in notes):
        counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in vars(tally).items() if count]
        why = "every id needs a row in English; " if tally.translations else ""
        raise UserError(
            f"collect.sources: no pairs in '{source.title}' ({', '.join(counts) or 'nothing read'}); {why}"
            "mend the source or take it off the list"
        )
    return Gathered(source, tuple(_part(folder, number) for number in range(len(notes))), tally)


def clash(
    read: Sequence[Gathered], sample: Path, first: tuple[int, int], second: tuple[int, int]
) -> UserError:
    """Says that two rows of one id have different texts; each is given by its part, of all, and its place."""
    parts = [(one, number) for one in read for number in range(len(one.parts))]
    places = []
    for part, row in (first, second):
        one, number = parts[part]
        pair = next(islice(tables.stream_pairs(one.parts[number]), row, None))
        places.append(_place(one.source, sample, number, pair))
    own = pair.id.removeprefix(f"{pair.source}/")
    return UserError(
        f"{places[1]}: id '{own}' of source '{pair.source}' stood before with another text, at {places[0]}; "
        "a source's ids must differ"
    )


def _place(source: Source, sample: Path, number: int, pair: Pair) -> str:
    """Where the row stands that a pair of a part was made of; the source's title if it is gone."""
    source = dataclasses.replace(source, limit=None)
    rows = sources.rows(source, sample, skip=number * PART_ROWS)
    for where, row in islice(rows, PART_ROWS):
        if pair in list(sources.pairs([(where, row)], source, Tally())):
            return where
    return source.title


# --- its parts -----------------------------------------------------------------------------------


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"


def _note(folder: Path, number: int) -> Path:
    """Written after the part, and so the sign that it is whole."""
    return folder / f"{number:05d}.json"


def _notes(folder: Path) -> list[dict[str, Any]]:
    """Of the parts, as far as none is missing: their tally, and how many English pairs they hold."""
    notes: list[dict[str, Any]] = []
    while (file := _note(folder, len(notes))).is_file() and _part(folder, len(notes)).is_file():
        notes.append(cache.read_json(file))
    return notes


def _read(source: Source, sample: Path, folder: Path) -> None:
    """From the first missing part to the source's end.

    Where a limit was reached, what follows is read again from the part that reached it: rows in other
    languages may still belong to the pairs that were taken.
    """
    counts = [note["english"] for note in _notes(folder)]
    while source.limit is not None and sum(counts) >= source.limit:
        counts.pop()
    done = len(counts)
    left = None if source.limit is None else source.limit - sum(counts)
    tally, starts = Tally(), list[Tally]()

    def noted(rows: Iterator[Row]) -> Iterator[Row]:
        # A row is asked for when all that comes of those before has been given and counted.
        for number, row in enumerate(rows):
            if number % PART_ROWS == 0:
                starts.append(dataclasses.replace(tally))
            yield row

    def write(number: int, pairs: Iterable[Pair]) -> None:
        english = _write(_part(folder, done + number), pairs)
        end = starts[number + 1] if number + 1 < len(starts) else tally
        note = {"english": english, "tally": _difference(end, starts[number])}
        cache.write_json(_note(folder, done + number), note)

    rows = noted(sources.rows(source, sample, skip=done * PART_ROWS))
    pairs = sources.pairs(rows, dataclasses.replace(source, limit=left), tally)
    shown = tqdm(pairs, f"collect {source.title}", unit=" pairs", unit_scale=True, disable=None)
    written = 0
    for number, part in groupby(shown, lambda _: len(starts) - 1):
        for empty in range(written, number):
            write(empty, ())
        write(number, part)
        written = number + 1
    for empty in range(written, len(starts)):
        write(empty, ())


def _write(path: Path, pairs: Iterable[Pair]) -> int:
    """Returns how many are English."""
    english = 0

    def counted() -> Iterator[Pair]:
        nonlocal english
        for pair in pairs:
            english += pair.lang == SOURCE_LANGUAGE
            yield pair

    tables.write_pairs(path, counted())
    return english


def _difference(end: Tally, start: Tally) -> dict[str, int]:
    return {name: value - getattr(start, name) for name, value in dataclasses.asdict(end).items()}
