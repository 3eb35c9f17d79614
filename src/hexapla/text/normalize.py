"""Texts in the form in which they are compared: equal texts, near texts, answers, negatives.

Texts are normalized thousands at a time: their characters as one array and a table of which characters count,
which gives what `normalize_text` gives, several times as fast.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32, UInt64

from hexapla.text.languages import base_language, character_mask, code_points

_END = "\n"


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


# --- answers -------------------------------------------------------------------------------------

_ATTACHING = frozenset(
    [
        "ar",
        "arc",
        "az",
        "ckb",
        "el",
        "et",
        "eu",
        "fa",
        "fi",
        "he",
        "hu",
        "ka",
        "kk",
        "kn",
        "ko",
        "ku",
        "ky",
        "ml",
        "mn",
        "ps",
        "qu",
        "sd",
        "ta",
        "te",
        "tk",
        "tr",
        "tt",
        "ug",
        "ur",
        "uz",
        "yi",
    ]
)
"""Languages that write articles, prepositions, particles or case endings together with a word: an answer is often a
part of a longer word of its passage (Turkish `tungsten` in `tungstendir`, Greek `το Τόκιο` in `στο Τόκιο`)."""


def find_answer(passage: str, answer: str, lang: str, *, ignore_case: bool = False) -> tuple[int, int] | None:
    """Return where the answer first occurs in the passage, its start and end, but not inside a word.

    A match inside a number (4 in 1945) never counts. A match that begins or ends inside a word (cat in category)
    counts only where words attach to one another: in scripts without spaces (Thai, Han, kana, …), wherever they
    occur, and in the languages of `_ATTACHING`. An empty answer occurs nowhere.
    """
    if not answer:
        return None
    if not ignore_case and answer not in passage:
        return None
    attaching = base_language(lang) in _ATTACHING
    pattern = re.compile(re.escape(answer), re.IGNORECASE if ignore_case else 0)
    start = 0
    while match := pattern.search(passage, start):
        edges = [passage[at - 1 : at + 1] for at in match.span() if 0 < at < len(passage)]
        if not any(_is_inside(*edge, attaching) for edge in edges):
            return match.span()
        start = match.start() + 1
    return None


def contains_answer(passage: str, answer: str, lang: str) -> bool:
    """Return whether the answer occurs in the passage, as `find_answer` says."""
    return find_answer(passage, answer, lang) is not None


@cache
def _is_inside(before: str, after: str, attaching: bool) -> bool:
    """Return whether the place between two characters is inside a number or inside a word that must stay whole."""
    if before.isdecimal() and after.isdecimal():
        return True
    return not attaching and all(map(_is_spaced, (before, after)))


def _is_spaced(char: str) -> bool:
    """Return whether a character is part of words that have spaces between them."""
    if unicodedata.category(char)[0] not in "LMN":
        return False
    return not unicodedata.name(char, "").startswith(_UNSPACED)


_UNSPACED = (
    "CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "THAI", "LAO ", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO", "YI ",
)  # fmt: skip
"""How Unicode's names of characters begin in scripts whose words have no spaces between them."""


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
    lang: str
    """The row's language, which decides what counts as an occurrence of the answer."""


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
        contains_answer(negative, positive.answer, positive.lang),
        not positive.chars[0] <= length <= positive.chars[1],
    )
    return faults.index(True) + 1 if any(faults) else 0
