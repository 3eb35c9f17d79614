"""What can be measured of a row of the parallel table by itself, so that every expectation is a plain bound.

Texts are measured thousands at a time: their characters as one array and a table of what counts of each
character, which gives what `normalise` and `languages.script_share` give, several times as fast.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from hexapla.text.languages import SCRIPTS, base, script_share

_CHARACTERS = 0x110000
_END = "\n"


def normalise(text: str) -> str:
    """What two texts must share to count as the same: NFKC, case-folded, no spaces, no punctuation."""
    # Composed again: what stood between a letter and its accent may have gone.
    return unicodedata.normalize("NFKC", "".join(char for char in _folded(text) if _counts(char)))


def normalised(texts: Sequence[str | None]) -> list[str]:
    """`normalise` of each text, '' of None."""
    if not texts:
        return []
    folded = [_folded(text).replace(_END, " ") if text else "" for text in texts]
    codes = _codes(_END.join(folded))
    kept = _table(codes, _kept)[codes]
    rest = codes[kept].tobytes().decode("utf-32-le", "surrogatepass").split(_END)
    return [unicodedata.normalize("NFKC", text) for text in rest]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@cache
def _counts(char: str) -> bool:
    # Punctuation, separators, controls (zero-width joiners too), and accents that stand alone (`).
    kind = unicodedata.category(char)
    return kind[0] not in "PZC" and kind != "Sk"


def _kept(char: str) -> bool:
    return char == _END or _counts(char)


def script_shares(texts: Sequence[str | None], lang: str) -> np.ndarray:
    """`script_share` of each text, float64 [texts]; NaN where there is no text, or nothing can be said."""
    if base(lang) not in SCRIPTS:
        return np.full(len(texts), np.nan)
    plain = [unicodedata.normalize("NFKC", text) if text and text.strip() else "" for text in texts]
    codes = _codes("".join(plain))
    bounds = np.cumsum([0, *map(len, plain)])

    def count(counts: Callable[[str], bool]) -> np.ndarray:
        so_far = np.cumsum(np.concatenate([[False], _table(codes, counts)[codes]]))
        return np.diff(so_far[bounds])

    letters, own = count(_is_letter), count(lambda char: bool(script_share(char, lang)))
    shares: np.ndarray = own / np.maximum(letters, 1)  # 0 for a text without letters
    shares[np.diff(bounds) == 0] = np.nan
    return shares


def _is_letter(char: str) -> bool:
    return unicodedata.category(char).startswith("L")


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _table(codes: np.ndarray, counts: Callable[[str], bool]) -> np.ndarray:
    """Whether a character counts, bool by its code; of those that occur, which are few."""
    table = np.zeros(_CHARACTERS, bool)
    table[codes] = True
    occurring = np.flatnonzero(table)
    table[occurring] = [counts(chr(code)) for code in occurring.tolist()]
    return table


# --- negatives -----------------------------------------------------------------------------------

FAULTS = ("empty", "in a benchmark", "the passage itself", "holds the answer", "length")
"""Why a negative may not be one; of several the first counts."""


class Own(NamedTuple):
    """What a row's negatives are held against."""

    passage: str
    """Normalised."""
    answer: str
    """One that may not stand in a negative, '' where there is none."""
    chars: tuple[float, float]
    """The least and the most that a passage may have."""


def fault(negative: str, key: str, own: Own, *, in_benchmark: bool) -> int:
    """The number, from 1, of the first of `FAULTS` that a negative has; 0 when it has none.

    `key` is the negative normalised. Where answers stand verbatim in their passages, a negative in which the
    row's answer stands is likely to answer the question too.
    """
    length = len(negative.strip())
    found = (
        not length,
        in_benchmark,
        key == own.passage,
        bool(own.answer) and own.answer in negative,
        not own.chars[0] <= length <= own.chars[1],
    )
    return found.index(True) + 1 if any(found) else 0
