"""Texts in the form in which they are compared: equal texts, near texts, answers, negatives.

Texts are normalized thousands at a time: their characters as one array and a table of which characters count,
which gives what `normalize_text` gives, several times as fast.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt32, UInt64

_CODE_POINTS = 0x110000
_END = "\n"


def code_points(text: str) -> UInt32[np.ndarray, " chars"]:
    """Return the text's characters as numbers, without a copy of each."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def character_mask(
    codes: UInt32[np.ndarray, " chars"], counts: Callable[[str], bool]
) -> Bool[np.ndarray, " codepoints"]:
    """Return a table, by code point, of what `counts` says; it asks only for characters that occur in `codes`."""
    table = np.zeros(_CODE_POINTS, bool)
    table[codes] = True
    occurring = np.flatnonzero(table)
    table[occurring] = [counts(chr(code)) for code in occurring.tolist()]
    return table


# --- equal texts ---------------------------------------------------------------------------------


def normalize_text(text: str) -> str:
    """Return what two texts must share to count as the same: NFKC, case-folded, no spaces, no punctuation."""
    # Composed again, because what separated a letter from its accent may be gone.
    return unicodedata.normalize("NFKC", "".join(char for char in _fold(text) if _is_kept(char)))


def normalize_texts(texts: Sequence[str | None]) -> list[str]:
    """Return `normalize_text` of each text, and '' for None."""
    if not texts:
        return []
    folded = [_fold(text).replace(_END, " ") if text else "" for text in texts]
    codes = code_points(_END.join(folded))
    kept = character_mask(codes, lambda char: char == _END or _is_kept(char))[codes]
    rest = codes[kept].tobytes().decode("utf-32-le", "surrogatepass").split(_END)
    return [unicodedata.normalize("NFKC", text) for text in rest]


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@cache
def _is_kept(char: str) -> bool:
    # Punctuation, separators, controls (zero-width joiners too), and accents without a letter (`) go.
    kind = unicodedata.category(char)
    return kind[0] not in "PZC" and kind != "Sk"


# --- near texts ----------------------------------------------------------------------------------


@cache
def _factors(width: int) -> UInt64[np.ndarray, " width"]:
    return np.random.default_rng(1).integers(2**63, size=width, dtype=np.uint64) * 2 + 1


def hash_shingles(codes: UInt32[np.ndarray, " chars"], width: int) -> UInt64[np.ndarray, " shingles"]:
    """Return a 64-bit hash of each run of `width` characters (Broder 1997), one for each place where one begins.

    Equal runs have equal hashes. A hash is a sum of the characters times random odd factors, modulo 2^64, with
    its upper half folded into its lower half, whose bits would otherwise depend on few bits of the characters.
    """
    count = max(0, len(codes) - width + 1)
    hashes = np.zeros(count, np.uint64)
    for place, factor in enumerate(_factors(width)):
        hashes += codes[place : place + count] * factor
    hashes ^= hashes >> np.uint64(32)
    return hashes


# --- negatives -----------------------------------------------------------------------------------

FAULTS = ("empty", "in a benchmark", "the passage itself", "holds the answer", "length")
"""Reasons why a text may not be a negative; of several the first counts."""


class Positive(NamedTuple):
    """The parts of a row that its negatives are compared with."""

    passage: str
    """The normalized passage."""
    answer: str
    """An answer that no negative may hold; '' where there is none."""
    chars: tuple[float, float]
    """The least and the greatest length of a passage, in characters."""


def find_fault(negative: str, key: str, positive: Positive, *, in_benchmark: bool) -> int:
    """Return the number, from 1, of the first of `FAULTS` that a negative has; 0 when it has none.

    `key` is the normalized negative. Where answers occur verbatim in their passages, a negative that holds the
    row's answer is likely to answer the question too.
    """
    length = len(negative.strip())
    faults = (
        not length,
        in_benchmark,
        key == positive.passage,
        bool(positive.answer) and positive.answer in negative,
        not positive.chars[0] <= length <= positive.chars[1],
    )
    return faults.index(True) + 1 if any(faults) else 0
