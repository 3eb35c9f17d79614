"""Which texts are, nearly, one of the known texts: shared runs of characters, found for thousands at a time.

A text's shingles are all its runs of `WIDTH` characters (Broder 1997, "On the resemblance and containment of
documents"), as 64-bit hashes; texts are compared by the sets of their shingles. A sample of the known texts'
shingles is indexed to find who may be near whom, and who may be is then compared by all shingles.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["question", "passage"]

WIDTH = 8
LEAST = 16
"""Shingles that two questions must have to be near; shorter ones are found when they are equal."""
LEAST_PART = 32
"""The same of a text that stands in a longer one: any shorter sentence may stand in two places by chance."""

_KEPT = 4
"""One of this many shingles is indexed: enough of LEAST to be found by, a quarter of the memory."""
_COMMON = 64
"""A shingle of more texts than this says nothing about which it is, and is not indexed."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xD6E8FEB86659FD93)


class Match(NamedTuple):
    text: int
    """Position of the text that was looked for."""
    known: int
    """Position of the known text."""
    overlap: float
    """Of the two's shingles, as `Index` says; 1.0 for equal texts."""
    equal: bool


class Index:
    """Known texts to look others up in; about 15 bytes a character (30 of Chinese), in each worker.

    Args:
        texts: the known texts, normalised (`normalize.normalize_texts`), so that case, spaces and marks do not count.
        kinds: of each text, whether it is a question.
        least: the least overlap of a match, above 0; 1 leaves equal texts alone.

    The overlap of two questions is what they share of the shingles that either has (Jaccard): "what is the
    capital of" is no reason to think that two ask for the same. With a passage it is the share of the shorter
    text's shingles that the other has, so a known sentence is found in a long passage, and a piece of a known
    paragraph by itself; a known question must then stand there as a whole.
    """

    def __init__(self, texts: Sequence[str], kinds: Sequence[Kind], least: float) -> None:
        self._least = least
        self._equal: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            self._equal.setdefault(text, []).append(number)
        self._questions = np.array([kind == "question" for kind in kinds], bool)
        self._texts = _shingled(texts)
        owners, hashes = _sampled(self._texts)
        hashes, owners = _distinct(hashes, owners)
        starts = (
            np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.zeros(0, int)
        )
        counts = np.diff(np.append(starts, len(hashes)))
        rare = np.repeat(counts <= _COMMON, counts) & (self._texts.sizes[owners] >= LEAST)
        self._hashes, self._owners = hashes[rare], owners[rare]
        self._indexed = np.bincount(self._owners, minlength=len(texts))
        self._shift = np.uint64(64 - max(16, min(27, int(8 * len(self._hashes)).bit_length())))
        self._held = np.zeros(1 << int(np.uint64(64) - self._shift), bool)
        self._held[self._hashes >> self._shift] = True

    def find(self, texts: Sequence[str], kind: Kind) -> list[Match]:
        """All known texts that each of `texts` (normalised) is equal or near to, in order of both."""
        found = [
            Match(i, known, 1.0, True) for i, text in enumerate(texts) for known in self._equal.get(text, ())
        ]
        if self._least < 1.0 and len(self._hashes):
            looked = _shingled(texts)
            equal = {match[:2] for match in found}
            for text, known in self._candidates(looked):
                if (text, known) not in equal and (overlap := self._overlap(looked, text, known, kind)):
                    found.append(Match(text, known, overlap, False))
        return sorted(found)

    def _candidates(self, looked: "_Shingled") -> list[tuple[int, int]]:
        """Pairs of a text and a known text that share half of what is wanted, by the indexed shingles."""
        owners, hashes = _sampled(looked)
        hashes, owners = _distinct(hashes, owners)  # a text that repeats itself is no longer for it
        mine = np.bincount(owners, minlength=len(looked.sizes))
        likely = self._held[hashes >> self._shift] & (looked.sizes[owners] >= LEAST)
        hashes, owners = hashes[likely], owners[likely]
        low = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - low
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        known = self._owners[np.repeat(low, counts) + within]
        pairs, shared = np.unique(np.repeat(owners, counts) * len(self._indexed) + known, return_counts=True)
        texts, known = np.divmod(pairs, max(1, len(self._indexed)))
        wanted = np.minimum(mine[texts], self._indexed[known]) * (self._least / 2)
        near = shared >= wanted
        return list(zip(texts[near].tolist(), known[near].tolist(), strict=True))

    def _overlap(self, looked: "_Shingled", text: int, known: int, kind: Kind) -> float:
        """Of the two by all their shingles; 0 where it is too small for a match."""
        one, other = looked.of(text), self._texts.of(known)
        both_ask = bool(self._questions[known]) and kind == "question"
        if min(len(one), len(other)) < (LEAST if both_ask else LEAST_PART):
            return 0.0
        shared = len(np.intersect1d(one, other, assume_unique=True))
        least = self._least
        if both_ask:
            overlap = shared / (len(one) + len(other) - shared)
        elif not self._questions[known] and kind == "passage":
            overlap = shared / min(len(one), len(other))
        else:  # a question in a passage, whichever of the two is known
            least, question = 1.0, other if self._questions[known] else one
            overlap = shared / len(question)
        return overlap if overlap >= least else 0.0


class _Shingled(NamedTuple):
    """Texts one after another, and the hash of the shingle that begins at each character."""

    hashes: np.ndarray
    """uint64; those of a text's last WIDTH - 1 characters reach beyond it and are not its own."""
    starts: np.ndarray
    """int64 [texts]: the place of each text's first shingle."""
    sizes: np.ndarray
    """int64 [texts]: how many it has."""

    def of(self, text: int) -> np.ndarray:
        """The text's different shingles, in order."""
        start = self.starts[text]
        return np.unique(self.hashes[start : start + self.sizes[text]])


def _shingled(texts: Sequence[str]) -> _Shingled:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.cumsum([0, *map(len, texts)])
    # A Chinese character, a syllable of kana or Hangul says as much as some letters: each counts twice.
    twice = (codes >= 0x2E80) & (codes < 0xD7B0) | (codes >= 0x20000)
    codes = np.repeat(codes, np.where(twice, 2, 1))
    ends += np.cumsum(np.concatenate([[0], twice]))[ends]
    hashes = (codes.astype(np.uint64) + np.uint64(1)) * _MIXER
    width, base = 1, _BASE
    # A polynomial of the characters, modulo 2^64, its width doubled until it is WIDTH.
    with np.errstate(over="ignore"):
        while width < WIDTH and len(hashes) > width:
            hashes = hashes[:-width] * base + hashes[width:]
            width, base = 2 * width, base * base
        hashes ^= hashes >> np.uint64(32)
        hashes *= _MIXER  # so that its first bits, which tables go by, depend on all of them
    return _Shingled(hashes, ends[:-1], np.maximum(np.diff(ends) - WIDTH + 1, 0))


def _sampled(texts: _Shingled) -> tuple[np.ndarray, np.ndarray]:
    """The texts and the hashes of the shingles that are kept, wherever they stand."""
    places = np.flatnonzero((texts.hashes & np.uint64(_KEPT - 1)) == 0)
    owners = np.searchsorted(texts.starts, places, "right") - 1
    own = places - texts.starts[owners] < texts.sizes[owners] if len(places) else np.zeros(0, bool)
    return owners[own], texts.hashes[places[own]]


def _distinct(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In order of hash, then owner, each combination once."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    if not len(order):
        return hashes, owners
    new = np.append(True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1]))
    return hashes[new], owners[new]
