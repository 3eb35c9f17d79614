"""Measure what a translation kept of its English row, with no model but the language identifier.

The measures are cheap (0.2 ms a row, most of it the identifier's), so every row of millions has them. None of
them recognizes a good translation. Each catches one way in which translation goes wrong: it was cut short, left
in English, written in another language, or lost its figures or its answer.
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
# A number with whatever separates its digits: 1,642.5 and 1.642,5 and 1'642 and Arabic's ١٬٦٤٢٫٥.
_NUMBERS = re.compile(r"\d+(?:[.,'\u2019\u066b\u066c]\d+)*")
_DIGITS = re.compile(r"\d+")
_SPACED = re.compile(r"\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)")
# English numbers that are no part of a word: 1930s, 19th and K2 become words, Roman numerals, names.
_ALONE = re.compile(r"(?<![^\W_])(?<!\d[.,'\u2019])" + _NUMBERS.pattern + r"(?![^\W_])")
_FEWEST_DIGITS = 3
_SUMMARIZED = (
    "question_language", "passage_language", "length_ratio", "copy_share", "numbers_kept", "answer_kept",
    "cosine",
)  # fmt: skip
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure_row(row: Pair, original: Pair | None, identifier: Identifier) -> Quality:
    """Measure a row against its English row; an English row (`original` None) has only its languages.

    The cosine takes an encoder, so `quality` adds it.
    """
    question, passage, lang = row.question or "", row.passage or "", row.lang or ""
    languages = Quality(
        question_language=_identify(question, lang, identifier),
        passage_language=_identify(passage, lang, identifier),
    )
    if original is None:
        return languages
    english_question, english_passage = original.question or "", original.passage or ""
    shares = [copy_share(question, english_question), copy_share(passage, english_passage)]
    return languages._replace(
        length_ratio=len(passage) / len(english_passage) if english_passage else None,
        copy_share=max((share for share in shares if share is not None), default=None),
        numbers_kept=numbers_kept(f"{question}\n{passage}", f"{english_question}\n{english_passage}"),
        answer_kept=bool(row.answer) if original.answer else None,
    )


def _identify(text: str, lang: str, identifier: Identifier) -> str | None:
    if lang not in identifier.known or not text.strip():
        return None
    found = identifier.find(text)
    return lang if found == base_language(lang) else found


def copy_share(text: str, english: str) -> float | None:
    """Return the share of the text's letters in words, of two letters or more, that the English has too.

    The share is 1.0 for a text with the letters and digits of the English, None for one without letters.
    Where the script is the same, names alone give 0.1 to 0.3, and more in short questions.
    """
    own, given = (unicodedata.normalize("NFKC", each).casefold() for each in (text, english))
    letters = sum(map(len, _LETTERS.findall(own)))
    if not letters:
        return None
    if _keep_letters(own) == _keep_letters(given):
        return 1.0
    known = set(_WORDS.findall(given))
    return sum(len(word) for word in _WORDS.findall(own) if word in known) / letters


def _keep_letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def numbers_kept(text: str, english: str) -> float | None:
    """Return the share of the English text's different numbers that the text has; None where it has none.

    Numbers are compared by their digits, in any script, without separators and without zeros at either end:
    5.86 million is 586万. A number with fewer than three digits left, or next to letters (1930s, 19th), does
    not count, since languages differ in which of those they write as words.
    """
    english_numbers = {
        number for number in _ALONE.findall(english) if len(_significant_digits(number)) >= _FEWEST_DIGITS
    }
    if not english_numbers:
        return None
    present = {
        _significant_digits(found) for form in (_NUMBERS, _DIGITS, _SPACED) for found in form.findall(text)
    }
    return sum(_significant_digits(number) in present for number in english_numbers) / len(english_numbers)


def _significant_digits(number: str) -> str:
    digits = number if number.isascii() else "".join(str(unicodedata.decimal(c, c)) for c in number)
    return re.sub(r"\D", "", digits).strip("0")


# --- many rows ----------------------------------------------------------------------------


class MeasureSpread:
    """How the measures of each language are distributed, in memory that does not grow with the rows."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Counter[Any]]] = {}

    def add(self, lang: str, rows: Iterable[Quality]) -> None:
        counts = self._counts.setdefault(lang, {name: Counter() for name in _SUMMARIZED})
        for row in rows:
            for name in _SUMMARIZED:
                if (value := getattr(row, name)) is not None:
                    counts[name][round(value, 3) if isinstance(value, float) else value] += 1

    def summarize(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return, by language and measure, how many rows have it, and its quantiles or the share of good rows.

        A quantile is the least value that 5, 25, 50, 75 or 95 % of the rows do not exceed, to three digits. A
        row is good when it is in its own language, or has its answer. A measure that no row has is left out.
        """
        return {
            lang: {name: _summarize(name, lang, counts) for name, counts in each.items() if counts}
            for lang, each in self._counts.items()
        }


def _summarize(name: str, lang: str, counts: Counter[Any]) -> dict[str, Any]:
    total = counts.total()
    if name in ("question_language", "passage_language", "answer_kept"):
        right = counts[True if name == "answer_kept" else lang]
        return {"counted": total, "share": round(right / total, 4)}
    values = sorted(counts)
    up_to = list(accumulate(counts[value] for value in values))
    quantiles = [next(v for v, n in zip(values, up_to, strict=True) if n >= q * total) for q in QUANTILES]
    return {"counted": total, "quantiles": quantiles}
