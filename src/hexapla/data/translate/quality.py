"""What a translation kept of its English row, in numbers that need no model but the language identifier.

Each is cheap (0.2 ms a row, most of it the identifier's), so that every row of millions has them. None of
them can tell a good translation; each catches one way in which translation goes wrong: cut short, left in
English, of another language, without its figures, without its answer.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from hexapla.schema import Pair, Quality
from hexapla.text.languages import Identifier, base_language

_LETTERS = re.compile(r"[^\W\d_]+")
# English words are Latin: in Chinese or Thai text, which has no spaces, one ends where the script does.
_WORDS = re.compile("[a-z\u00df-\u00f6\u00f8-\u024f\u1e00-\u1eff]{2,}")
# A number with whatever stands between its digits: 1,642.5 and 1.642,5 and 1'642 and Arabic's ١٬٦٤٢٫٥.
_NUMBERS = re.compile(r"\d+(?:[.,'\u2019\u066b\u066c]\d+)*")
_DIGITS = re.compile(r"\d+")
_SPACED = re.compile(r"\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)")
# Of the English, those that stand by themselves: 1930s, 19th and K2 become words, Roman numerals, names.
_ALONE = re.compile(r"(?<![^\W_])(?<!\d[.,'\u2019])" + _NUMBERS.pattern + r"(?![^\W_])")
_FEWEST_DIGITS = 3
_TOLD = (
    "question_language", "passage_language", "length_ratio", "copy_share", "numbers_kept", "answer_kept",
    "cosine",
)  # fmt: skip
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(row: Pair, original: Pair | None, identifier: Identifier) -> Quality:
    """Of one row beside its English row; of an English row (`original` None) only what the languages are.

    The cosine is left to `nearness`, since it takes an encoder.
    """
    question, passage, lang = row.question or "", row.passage or "", row.lang or ""
    found = Quality(
        question_language=_language(question, lang, identifier),
        passage_language=_language(passage, lang, identifier),
    )
    if original is None:
        return found
    asked, told = original.question or "", original.passage or ""
    shares = [copy_share(question, asked), copy_share(passage, told)]
    return found._replace(
        length_ratio=len(passage) / len(told) if told else None,
        copy_share=max((share for share in shares if share is not None), default=None),
        numbers_kept=numbers_kept(f"{question}\n{passage}", f"{asked}\n{told}"),
        answer_kept=bool(row.answer) if original.answer else None,
    )


def _language(text: str, lang: str, identifier: Identifier) -> str | None:
    if lang not in identifier.known or not text.strip():
        return None
    found = identifier.find(text)
    return lang if found == base_language(lang) else found


def copy_share(text: str, english: str) -> float | None:
    """Share of the text's letters that stand in words, of two letters or more, that the English has too.

    1.0 for a text with the letters and digits of the English; None for one without letters. Names make
    for 0.1 to 0.3 where the script is the same, in short questions for more.
    """
    own, given = (unicodedata.normalize("NFKC", each).casefold() for each in (text, english))
    letters = sum(map(len, _LETTERS.findall(own)))
    if not letters:
        return None
    if _plain(own) == _plain(given):
        return 1.0
    known = set(_WORDS.findall(given))
    return sum(len(word) for word in _WORDS.findall(own) if word in known) / letters


def _plain(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def numbers_kept(text: str, english: str) -> float | None:
    """Share of the English text's different numbers that the text has; None where it has none.

    Numbers are compared by their digits, whatever script those are of, without separators and without
    zeros at either end: 5.86 million is 586万. Those of fewer than three digits that are left, or beside
    letters (1930s, 19th), do not count: languages differ in which they write as words.
    """
    wanted = {number for number in _ALONE.findall(english) if len(_significant(number)) >= _FEWEST_DIGITS}
    if not wanted:
        return None
    there = {_significant(found) for form in (_NUMBERS, _DIGITS, _SPACED) for found in form.findall(text)}
    return sum(_significant(number) in there for number in wanted) / len(wanted)


def _significant(number: str) -> str:
    digits = number if number.isascii() else "".join(str(unicodedata.decimal(c, c)) for c in number)
    return re.sub(r"\D", "", digits).strip("0")


# --- of many rows ----------------------------------------------------------------------------


class Spread:
    """How the measures of each language are spread, in memory that does not grow with the rows."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Counter[Any]]] = {}

    def add(self, lang: str, rows: Iterable[Quality]) -> None:
        counts = self._counts.setdefault(lang, {name: Counter() for name in _TOLD})
        for row in rows:
            for name in _TOLD:
                if (value := getattr(row, name)) is not None:
                    counts[name][round(value, 3) if isinstance(value, float) else value] += 1

    def card(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By language and measure: how many rows have it, and its quantiles, or the share of the right ones.

        Quantiles are the least value that 5, 25, 50, 75 and 95 % of the rows do not exceed, to three
        digits. Of a language it is the share of rows that are in their own. A measure that no row has is
        left out.
        """
        return {
            lang: {name: _told(name, lang, counts) for name, counts in each.items() if counts}
            for lang, each in self._counts.items()
        }


def _told(name: str, lang: str, counts: Counter[Any]) -> dict[str, Any]:
    total = counts.total()
    if name in ("question_language", "passage_language", "answer_kept"):
        right = counts[True if name == "answer_kept" else lang]
        return {"counted": total, "share": round(right / total, 4)}
    values = sorted(counts)
    up_to = list(accumulate(counts[value] for value in values))
    quantiles = [next(v for v, n in zip(values, up_to, strict=True) if n >= q * total) for q in QUANTILES]
    return {"counted": total, "quantiles": quantiles}
