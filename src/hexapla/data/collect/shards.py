"""Read a source of any size into shards, and write the rows that stay as the parts of a table.

Each shard holds the checked pairs of a number of the source's rows, in their order, with a note of what became of
those rows. Shards lie in the cache, in a folder named by all that the pairs depend on, so a killed run need not read
them again.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from hexapla.config import Source
from hexapla.data.collect import sources
from hexapla.data.collect.dedup import KEPT, RowFates
from hexapla.data.collect.rows import SourceCounts, make_pairs
from hexapla.io import cache, hashing, tables
from hexapla.io.readers import Row
from hexapla.schema import SOURCE_LANGUAGE, Pair, UserError

FORMAT = 1
"""Part of every folder's key: raise it when the layout of shards or of notes changes."""
SHARD_ROWS = 1 << 15
"""Rows of the source that make a shard: what a killed run loses."""


class SourceShards(NamedTuple):
    """A source that has been read."""

    source: Source
    parts: tuple[Path, ...]
    counts: SourceCounts


def find_folder(source: Source, sample: Path) -> Path | None:
    """Return where a source's shards are cached; None if nobody can tell whether the source has changed.

    Raises:
        UserError: the source's files are not there.
    """
    known = sources.fingerprint(source, sample)
    if known is None:
        return None
    key = hashing.key(FORMAT, SHARD_ROWS, known)
    return cache.entry("collect", key, suffix="")


def read_source(source: Source, sample: Path, folder: Path) -> SourceShards:
    """Read what has not been read yet of a source into `folder`, and count what became of its rows.

    Args:
        source: one with a kind, no preset.
        sample: the folder of the shipped sample.
        folder: the folder for the shards.

    Raises:
        UserError: a row does not fit, or there are no pairs.
    """
    end = folder / "end.json"
    if not end.is_file() or cache.read_json(end) > len(_read_notes(folder)):
        _read_rest(source, sample, folder)
        cache.write_json(end, len(_read_notes(folder)))
    notes = _read_notes(folder)
    counts = SourceCounts()
    for note in notes:
        for name, count in note["tally"].items():
            setattr(counts, name, getattr(counts, name) + count)
    if not any(note["english"] for note in notes):
        listed = [f"{count:,} {name.replace('_', ' ')}" for name, count in vars(counts).items() if count]
        why = "every id needs a row in English; " if counts.translations else ""
        raise UserError(
            f"collect.sources: no pairs in '{source.title}' ({', '.join(listed) or 'nothing read'}); {why}"
            "mend the source or take it off the list"
        )
    return SourceShards(source, tuple(_shard(folder, number) for number in range(len(notes))), counts)


def make_conflict_error(
    read: Sequence[SourceShards], sample: Path, first: tuple[int, int], second: tuple[int, int]
) -> UserError:
    """Return the error for two rows of one id that have different texts.

    Each row is given by the position of its shard among all sources' shards, and by its position in the shard.
    """
    parts = [(each, number) for each in read for number in range(len(each.parts))]
    places = []
    for part, row in (first, second):
        each, number = parts[part]
        pair = next(islice(tables.stream_pairs(each.parts[number]), row, None))
        places.append(_find_place(each.source, sample, number, pair))
    own = pair.id.removeprefix(f"{pair.source}/")
    return UserError(
        f"{places[1]}: id '{own}' of source '{pair.source}' occurs before with another text, at {places[0]}; "
        "a source's ids must differ"
    )


def _find_place(source: Source, sample: Path, number: int, pair: Pair) -> str:
    """Return the place of the row that a shard's pair was made from; the source's title if it is gone."""
    source = dataclasses.replace(source, limit=None)
    rows = sources.read_rows(source, sample, skip=number * SHARD_ROWS)
    for where, row in islice(rows, SHARD_ROWS):
        if pair in list(make_pairs([(where, row)], source, SourceCounts())):
            return where
    return source.title


# --- reading a source into shards ----------------------------------------------------------------


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"


def _note(folder: Path, number: int) -> Path:
    """Return the file that is written after the shard, and so is the sign that the shard is complete."""
    return folder / f"{number:05d}.json"


def _read_notes(folder: Path) -> list[dict[str, Any]]:
    """Return the notes of all shards before the first missing one: their counts, and how many are English."""
    notes: list[dict[str, Any]] = []
    while (file := _note(folder, len(notes))).is_file() and _shard(folder, len(notes)).is_file():
        notes.append(cache.read_json(file))
    return notes


def _read_rest(source: Source, sample: Path, folder: Path) -> None:
    """Read from the first missing shard to the source's end.

    Where a limit was reached, reading begins again at the shard that reached it, because rows in other languages
    may still belong to the pairs that were taken.
    """
    english = [note["english"] for note in _read_notes(folder)]
    while source.limit is not None and sum(english) >= source.limit:
        english.pop()
    done = len(english)
    left = None if source.limit is None else source.limit - sum(english)
    counts, starts = SourceCounts(), list[SourceCounts]()

    def note_starts(rows: Iterator[Row]) -> Iterator[Row]:
        # A row is asked for only when all pairs of the rows before it have been given and counted.
        for number, row in enumerate(rows):
            if number % SHARD_ROWS == 0:
                starts.append(dataclasses.replace(counts))
            yield row

    def write(number: int, pairs: Iterable[Pair]) -> None:
        english = _write_shard(_shard(folder, done + number), pairs)
        end = starts[number + 1] if number + 1 < len(starts) else counts
        note = {"english": english, "tally": _subtract(end, starts[number])}
        cache.write_json(_note(folder, done + number), note)

    rows = note_starts(sources.read_rows(source, sample, skip=done * SHARD_ROWS))
    pairs = make_pairs(rows, dataclasses.replace(source, limit=left), counts)
    shown = tqdm(pairs, f"collect {source.title}", unit=" pairs", unit_scale=True, disable=None)
    written = 0
    for number, part in groupby(shown, lambda _: len(starts) - 1):
        for empty in range(written, number):
            write(empty, ())
        write(number, part)
        written = number + 1
    for empty in range(written, len(starts)):
        write(empty, ())


def _write_shard(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the pairs; return how many are English."""
    english = 0

    def count_english() -> Iterator[Pair]:
        nonlocal english
        for pair in pairs:
            english += pair.lang == SOURCE_LANGUAGE
            yield pair

    tables.write_pairs(path, count_english())
    return english


def _subtract(end: SourceCounts, start: SourceCounts) -> dict[str, int]:
    return {name: value - getattr(start, name) for name, value in dataclasses.asdict(end).items()}


# --- writing the table, the rows of an id together -----------------------------------------------

HELD_ROWS = 1 << 17
"""Rows that are held at a time."""

IdRows = list[Pair]
"""The rows of an id: English first, then the languages in the order of their codes."""


def group_by_id(parts: Sequence[Path], fates: RowFates, folder: Path) -> Iterator[IdRows]:
    """Yield the rows that stay, those of an id together, in the order of their English rows.

    Data that came parallel may hold each language by itself, millions of rows apart. Its rows are then distributed
    over files, each of consecutive ids and small enough to be held, and put together one file at a time.

    Args:
        parts: a source's shards.
        fates: what becomes of the rows of these shards.
        folder: an empty one, for rows that memory might not hold.
    """
    kept = fates.fates == KEPT
    pairs = itertools.compress(itertools.chain.from_iterable(map(tables.stream_pairs, parts)), kept)
    owners = fates.owners[kept]
    if _are_adjacent(owners, np.flatnonzero(kept)):
        yield from _group_adjacent(pairs)
    else:
        for file in _distribute(pairs, owners, folder):
            yield from _group_adjacent(_bring_together(file))


def write_table(folder: Path, prefix: str, groups: Iterable[IdRows], most: int) -> Counter[str]:
    """Write `<folder>/<prefix>-00000.parquet` and so on, and return the number of rows by language.

    Each file has at most `most` rows, unless one id has more; no id is split between two files.
    """
    languages: Counter[str] = Counter()
    for number, part in enumerate(_split_parts(groups, most)):
        tables.write_pairs(folder / f"{prefix}-{number:05d}.parquet", part)
        languages.update(pair.lang for pair in part)
    return languages


def _are_adjacent(owners: Int64[np.ndarray, " rows"], positions: Int64[np.ndarray, " rows"]) -> bool:
    """Return whether each row follows its English row, with only that one's other translations in between."""
    return bool((owners == np.maximum.accumulate(np.where(owners == positions, positions, -1))).all())


def _group_adjacent(pairs: Iterable[Pair]) -> Iterator[IdRows]:
    for _, rows in itertools.groupby(pairs, lambda pair: pair.id):
        english, *others = rows
        others.sort(key=lambda pair: pair.lang)
        yield [english, *(pair._replace(passage_id=english.passage_id) for pair in others)]


def _split_parts(groups: Iterable[IdRows], most: int) -> Iterator[list[Pair]]:
    part: list[Pair] = []
    for group in groups:
        if part and len(part) + len(group) > most:
            yield part
            part = []
        part += group
    if part:
        yield part


def _distribute(pairs: Iterator[Pair], owners: Int64[np.ndarray, " rows"], folder: Path) -> Iterator[Path]:
    """Yield folders of files, in order of the ids; each holds all rows of its ids, in the order they came in."""
    _, numbers = np.unique(owners, return_inverse=True)
    # A new folder begins at an id before which there are as many rows as can be held.
    before = np.cumsum(np.bincount(numbers)) - 1
    folders = (before // HELD_ROWS)[numbers]
    for turn, at in enumerate(range(0, len(owners), HELD_ROWS)):
        piles: dict[int, list[Pair]] = {}
        for number, pair in zip(folders[at : at + HELD_ROWS].tolist(), pairs, strict=False):
            piles.setdefault(number, []).append(pair)
        for number, pile in piles.items():
            tables.write_pairs(folder / f"{number:05d}" / f"{turn:05d}.parquet", pile)
    return (folder / f"{number:05d}" for number in np.unique(folders).tolist())


def _bring_together(folder: Path) -> Iterator[Pair]:
    """Yield all rows of a folder, those of an id together, English first, in the order of the English rows."""
    by_id: dict[str, list[Pair]] = {}
    others: list[Pair] = []
    for pair in tables.stream_pairs(folder):
        if pair.lang == SOURCE_LANGUAGE:
            by_id[pair.id] = [pair]
        else:
            others.append(pair)
    for pair in others:
        by_id[pair.id].append(pair)
    return itertools.chain.from_iterable(by_id.values())
