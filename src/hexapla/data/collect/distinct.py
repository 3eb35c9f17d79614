"""Which rows of all sources stay: each pair once, and no near duplicates; the first that came wins.

Rows are told apart by hashes, which lie in files; what is held are some bytes a row.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hexapla.data.collect import near, sources
from hexapla.io import cache, hashing, tables
from hexapla.schema import SOURCE_LANGUAGE, Pair

KEPT, DUPLICATE, NEAR_DUPLICATE, REPEATED, WITHOUT_ENGLISH = range(5)
"""What may become of a row. Other languages go with their English row; `REPEATED` is such a row that came
before, `WITHOUT_ENGLISH` one whose id has no English row."""

_AT_ONCE = 4096
_KEYS = np.dtype([("row", "<u8", 2), ("english", "<u8", 2), ("content", "<u8", 2)])
"""Hashes of a row's id and language, of its id and English, and of its question and passage."""


class Verdicts(NamedTuple):
    """Of all rows, in order of the parts."""

    fates: np.ndarray
    """uint8 [rows]."""
    owners: np.ndarray
    """int64 [rows]: the place of a row's English row, of an English one its own, -1 where there is none."""


def judge(
    parts: Sequence[Path],
    threshold: float,
    folder: Path,
    clash: Callable[[tuple[int, int], tuple[int, int]], Exception],
) -> Verdicts:
    """Say which rows stay.

    Args:
        parts: tables, in order; of a pair in several languages a row a language, wherever they stand.
        threshold: the least similarity of near duplicates; 1: only equal ones.
        folder: for what memory might not hold.
        clash: makes the exception to raise for two rows, (part, row in it), of one id and language whose
            texts differ.
    """
    sizes = [tables.count_rows(part) for part in parts]
    keys = _hashed(parts, sizes, folder / "keys")
    same = hashing.first_occurrences(keys["row"])
    repeated = np.flatnonzero(same != np.arange(len(same)))
    if differ := _differing(keys, same, repeated):
        raise clash(*(_at(place, sizes) for place in differ))
    fates = np.zeros(len(keys), np.uint8)
    fates[repeated] = REPEATED
    english = _english(keys)
    owners = _owners(keys, english)
    fates[owners < 0] = WITHOUT_ENGLISH
    # Of English rows a repeated one is a duplicate like any other.
    equal = hashing.first_occurrences(keys["content"][english])
    again = equal != np.arange(len(equal))
    fates[english] = np.where(again, DUPLICATE, KEPT)
    if threshold < 1:
        signatures = _signatures(parts, len(english), folder / "signatures")
        left = np.flatnonzero(~again)
        fates[english[left[near.first_near(signatures, left, threshold) != left]]] = NEAR_DUPLICATE
    others = np.flatnonzero((fates == KEPT) & (owners >= 0))
    fates[others] = fates[owners[others]]
    return Verdicts(fates, owners)


def _english(keys: np.ndarray) -> np.ndarray:
    """Places of the English rows."""
    stretches = range(0, len(keys), 1 << 20)
    found = [
        at + np.flatnonzero((part["row"] == part["english"]).all(axis=1))
        for at in stretches
        for part in [keys[at : at + (1 << 20)]]
    ]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _differing(keys: np.ndarray, same: np.ndarray, repeated: np.ndarray) -> tuple[int, int] | None:
    """Places of the first two rows that have their key in common and not their content."""
    for at in range(0, len(repeated), 1 << 20):
        some = repeated[at : at + (1 << 20)]
        differ = (keys["content"][some] != keys["content"][same[some]]).any(axis=1)
        if differ.any():
            place = int(some[differ.argmax()])
            return int(same[place]), place
    return None


def _at(place: int, sizes: Sequence[int]) -> tuple[int, int]:
    """The part, and the row in it."""
    ends = np.cumsum(sizes)
    part = int(np.searchsorted(ends, place, side="right"))
    return part, place - int(ends[part]) + sizes[part]


def _owners(keys: np.ndarray, english: np.ndarray) -> np.ndarray:
    """For each row the place of the first English row that has its id, -1 if none has."""
    if len(english) == len(keys):
        return np.arange(len(keys))
    owners = np.full(len(keys), -1)
    owners[english] = english
    others = np.flatnonzero(owners < 0)
    found = hashing.first_occurrences(np.concatenate([keys["english"][english], keys["english"][others]]))[
        len(english) :
    ]
    there = found < len(english)
    owners[others[there]] = english[found[there]]
    return owners


# --- hashes of the rows --------------------------------------------------------------------------


def _hashed(parts: Sequence[Path], sizes: Sequence[int], file: Path) -> np.ndarray:
    """`_KEYS` [rows], in a mapped file."""
    keys = cache.scratch_array(file, sum(sizes), _KEYS)
    place = 0
    for part in tqdm(parts, "duplicates", unit=" parts", disable=None):
        for rows in _batches(tables.stream_pairs(part)):
            into = keys[place : place + len(rows)]
            into["row"] = hashing.digests(f"{row.lang}\0{row.id}" for row in rows)
            into["english"] = hashing.digests(f"{SOURCE_LANGUAGE}\0{row.id}" for row in rows)
            contents = b"".join(sources.content_digest(row.question, row.passage) for row in rows)
            into["content"] = np.frombuffer(contents, "<u8").reshape(-1, 2)
            place += len(rows)
    return keys


def _signatures(parts: Sequence[Path], count: int, file: Path) -> np.ndarray:
    """Of all English rows, `near.SIGNATURE` [rows], in a mapped file; kept beside the parts as well."""
    whole = cache.scratch_array(file, count, near.SIGNATURE)
    place, version = 0, near.version()
    for part in tqdm(parts, "signatures", unit=" parts", disable=None):
        kept = part.with_name(f"{part.stem}.{version}.npy")
        if not kept.is_file():
            with cache.atomic_file(kept) as temporary, temporary.open("wb") as stream:
                np.save(stream, _signed(part))
        signed = np.load(kept, mmap_mode="r")
        whole[place : place + len(signed)] = signed
        place += len(signed)
    return whole


def _signed(part: Path) -> np.ndarray:
    english = (row for row in tables.stream_pairs(part) if row.lang == SOURCE_LANGUAGE)
    signed = [
        near.sign([row.question for row in rows], [row.passage for row in rows]) for rows in _batches(english)
    ]
    return np.concatenate([np.zeros(0, near.SIGNATURE), *signed])


def _batches(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    while rows := list(islice(pairs, _AT_ONCE)):
        yield rows
