"""The rows of a source that stay, those of an id together, as the parts of a table.

Data that came parallel may hold each language by itself, millions of rows apart. Its rows are then dealt
out to files, each of consecutive ids and few enough to be held, and put together a file at a time.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hexapla.data.collect.distinct import KEPT, Verdicts
from hexapla.io import tables
from hexapla.schema import SOURCE_LANGUAGE, Pair

_HELD = 1 << 17
"""Rows that are held at a time."""

Group = list[Pair]
"""The rows of an id: English first, then the languages in the order of their codes."""


def groups(parts: Sequence[Path], verdicts: Verdicts, folder: Path) -> Iterator[Group]:
    """The rows that stay, in the order of their English rows.

    Args:
        parts: a source's tables.
        verdicts: of the rows of these parts.
        folder: an empty one, for what is not to be held.
    """
    kept = verdicts.fates == KEPT
    pairs = itertools.compress(itertools.chain.from_iterable(map(tables.stream_pairs, parts)), kept)
    owners = verdicts.owners[kept]
    if _adjacent(owners, np.flatnonzero(kept)):
        yield from _grouped(pairs)
    else:
        for file in _dealt(pairs, owners, folder):
            yield from _grouped(_gathered(file))


def write(folder: Path, prefix: str, groups: Iterable[Group], most: int) -> Counter[str]:
    """Write `<folder>/<prefix>-00000.parquet`, `…-00001…`, each of at most `most` rows where an id has not
    more, and none with a part of an id; returns the rows by language.
    """
    languages: Counter[str] = Counter()
    for number, part in enumerate(_cut(groups, most)):
        tables.write_pairs(folder / f"{prefix}-{number:05d}.parquet", part)
        languages.update(pair.lang for pair in part)
    return languages


def _adjacent(owners: np.ndarray, places: np.ndarray) -> bool:
    """Whether each row follows its English row, with none but that one's others in between."""
    return bool((owners == np.maximum.accumulate(np.where(owners == places, places, -1))).all())


def _grouped(pairs: Iterable[Pair]) -> Iterator[Group]:
    for _, rows in itertools.groupby(pairs, lambda pair: pair.id):
        english, *others = rows
        others.sort(key=lambda pair: pair.lang)
        yield [english, *(pair._replace(passage_id=english.passage_id) for pair in others)]


def _cut(groups: Iterable[Group], most: int) -> Iterator[list[Pair]]:
    part: list[Pair] = []
    for group in groups:
        if part and len(part) + len(group) > most:
            yield part
            part = []
        part += group
    if part:
        yield part


# --- rows of an id that stand far apart -------------------------------------------------------------


def _dealt(pairs: Iterator[Pair], owners: np.ndarray, folder: Path) -> Iterator[Path]:
    """Folders of files, in order of the ids: each holds all rows of its ids, in the order they came in."""
    _, numbers = np.unique(owners, return_inverse=True)
    # Ids before which there are as many rows as can be held begin the next folder.
    before = np.cumsum(np.bincount(numbers)) - 1
    folders = (before // _HELD)[numbers]
    for turn, at in enumerate(range(0, len(owners), _HELD)):
        piles: dict[int, list[Pair]] = {}
        for number, pair in zip(folders[at : at + _HELD].tolist(), pairs, strict=False):
            piles.setdefault(number, []).append(pair)
        for number, pile in piles.items():
            tables.write_pairs(folder / f"{number:05d}" / f"{turn:05d}.parquet", pile)
    return (folder / f"{number:05d}" for number in np.unique(folders).tolist())


def _gathered(folder: Path) -> Iterator[Pair]:
    """All rows of a folder, those of an id together, English first, in order of the English rows."""
    of: dict[str, list[Pair]] = {}
    others: list[Pair] = []
    for pair in tables.stream_pairs(folder):
        if pair.lang == SOURCE_LANGUAGE:
            of[pair.id] = [pair]
        else:
            others.append(pair)
    for pair in others:
        of[pair.id].append(pair)
    return itertools.chain.from_iterable(of.values())
