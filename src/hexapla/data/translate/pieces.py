"""A column cut into pieces of some neighbouring pairs, and the quality of their rows, kept by piece."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hexapla.data.translate.parallel import Bundle
from hexapla.data.translate.textshards import lost, named
from hexapla.io import cache, tables
from hexapla.schema import QUALITY_COLUMNS, Pair, Quality, UserError

VERSION = 1
"""Part of every name: one more whenever the same rows come to have other figures."""
PAIRS = 2048
"""Of a piece; some seconds of work where passages are encoded."""

_NOTHING = Pair("", "", "", "", "", "", "", "")


class Piece(NamedTuple):
    """Rows of one language that belong to some neighbouring pairs of a part."""

    number: int
    places: list[int]
    """Of each row the pair's, counted in the piece: some pairs have no row in the language."""
    rows: list[Pair]
    originals: list[Pair | None]
    """The English rows; None beside those themselves."""

    def key(self, judges: Sequence[str]) -> str:
        """Names the quality of the rows; `judges` are the identities of what looks at them."""
        both = zip(self.rows, self.originals, strict=True)
        beside = (pair or _NOTHING for pairs in both for pair in pairs)
        texts = (
            text or "" for pair in beside for text in (pair.lang, pair.question, pair.passage, pair.answer)
        )
        return named("quality", VERSION, *judges, *texts)

    def vectors_key(self, judge: str) -> str:
        """Names the vectors of the rows' passages; `judge` is the identity of what makes them."""
        return named("vectors", VERSION, judge, *(row.passage or "" for row in self.rows))


def cut(rows: Iterable[tuple[Bundle, Pair | None]]) -> Iterator[Piece]:
    """The pieces of a part of a column; `rows` are the pairs, each with its row, None if it has none."""
    rest = iter(rows)
    number = 0
    while group := list(islice(rest, PAIRS)):
        there = [(at, bundle.english, row) for at, (bundle, row) in enumerate(group) if row]
        yield Piece(
            number,
            [at for at, _, _ in there],
            [row for _, _, row in there],
            [None if row is english else english for _, english, row in there],
        )
        number += 1


# --- what is kept of them --------------------------------------------------------------------


def place(key: str, suffix: str = ".parquet") -> Path:
    """The file that a piece's quality, or its vectors, are kept in."""
    return cache.entry("quality", key, suffix)


def keep(key: str, found: Sequence[Quality]) -> None:
    tables.write_pairs(place(key), ((*_NOTHING, *each) for each in found), QUALITY_COLUMNS)


def kept(key: str) -> list[Quality]:
    """What `keep` kept.

    Raises:
        UserError: it is gone, or can't be read; then it is removed, so that it will be made again.
    """
    try:
        return list(tables.iter_quality(tables.read_pairs(place(key))))
    except UserError as error:
        raise lost(place(key)) from error


def keep_vectors(key: str, vectors: np.ndarray) -> None:
    whole = BytesIO()  # to a file itself, `np.save` does not tell of a full disk as such
    np.save(whole, vectors, allow_pickle=False)
    with cache.atomic_file(place(key, ".npy")) as scratch:
        scratch.write_bytes(whole.getbuffer())


def kept_vectors(key: str) -> np.ndarray:
    """What `keep_vectors` kept; raises as `kept`."""
    try:
        vectors: np.ndarray = np.load(place(key, ".npy"), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise lost(place(key, ".npy")) from error
    return vectors


def holds_vectors(key: str) -> bool:
    """Whether there are some that can be read; only the file's head and length are looked at."""
    try:
        np.load(place(key, ".npy"), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True
