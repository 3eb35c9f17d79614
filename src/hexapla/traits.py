"""What can be measured of a row of the parallel table, so that every expectation is a plain bound."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import NamedTuple

from tqdm import tqdm

from hexapla.languages import Identifier, base, script_share
from hexapla.records import SOURCE_LANGUAGE, Pair


class Traits(NamedTuple):
    """One row's; None where a trait does not apply, and then nothing is expected of it."""

    question_chars: int
    passage_chars: int
    length_ratio: float | None
    """Characters of the passage for one of its English row's."""
    question_script: float | None
    """Share of the letters that are in the language's script."""
    passage_script: float | None
    question_language: str | None
    """The row's own code when the identifier agrees, else the one that it found."""
    passage_language: str | None
    copy_of_english: str | None
    """`question` or `passage`, when it is the same as in the English row."""
    answer_found: bool | None
    in_benchmark: str | None
    """Names of the benchmarks that hold the question or the passage."""
    pair_key: str
    """The same for rows whose language, question and passage are the same, normalised."""


def normalise(text: str) -> str:
    """What two texts must share to count as the same: NFKC, case-folded, no spaces, no punctuation."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # Composed again: what stood between a letter and its accent may have gone.
    return unicodedata.normalize("NFKC", "".join(char for char in folded if _counts(char)))


FAULTS = ("empty", "in a benchmark", "the passage itself", "holds the answer", "length")
"""Why a negative may not be one; of several the first counts."""


def fault(
    negative: str,
    row: Pair,
    benchmarks: Collection[AbstractSet[str]],
    *,
    chars: tuple[int, int],
    answer_in_passage: bool,
) -> str | None:
    """The first of `FAULTS` that the row's negative has, None when it has none.

    `benchmarks` are texts, normalised; `chars` are the least and the most that a passage may have. Where
    answers stand verbatim in their passages (`answer_in_passage`), a negative in which the row's answer
    stands is likely to answer the question too.
    """
    key = normalise(negative)
    found = (
        not negative.strip(),
        any(key in texts for texts in benchmarks),
        key == normalise(row.passage),
        answer_in_passage and bool(row.answer) and row.answer in negative,
        not chars[0] <= len(negative.strip()) <= chars[1],
    )
    return next((name for name, so in zip(FAULTS, found, strict=True) if so), None)


@cache
def _counts(char: str) -> bool:
    # Punctuation, separators, controls (zero-width joiners too), and accents that stand alone (`).
    kind = unicodedata.category(char)
    return kind[0] not in "PZC" and kind != "Sk"


def measure(
    rows: Sequence[Pair],
    benchmarks: Mapping[str, AbstractSet[str]],
    identifier: Identifier | None,
    identified: Sequence[str],
) -> Iterator[Traits]:
    """The traits of each row, in order.

    `benchmarks` holds, per benchmark, its texts normalised; `identified` names the texts that the
    identifier looks at (`question`, `passage`).
    """
    originals: dict[str, Pair] = {}
    for row in rows:
        if row.lang == SOURCE_LANGUAGE:
            originals.setdefault(row.id, row)
    for row in tqdm(rows, desc="measuring", unit="row", disable=None):
        question, passage, lang = row.question or "", row.passage or "", row.lang or ""
        original = originals.get(row.id) if lang != SOURCE_LANGUAGE else None
        keys = normalise(question), normalise(passage)
        found = {name: _language(getattr(row, name) or "", lang, identifier) for name in identified}
        yield Traits(
            question_chars=len(question.strip()),
            passage_chars=len(passage.strip()),
            length_ratio=len(passage) / len(original.passage) if original and original.passage else None,
            question_script=script_share(question, lang) if question.strip() else None,
            passage_script=script_share(passage, lang) if passage.strip() else None,
            question_language=found.get("question"),
            passage_language=found.get("passage"),
            copy_of_english=_copied(keys, original),
            answer_found=row.answer in passage if row.answer else None,
            in_benchmark=", ".join(n for n in benchmarks if not benchmarks[n].isdisjoint(keys)) or None,
            pair_key=hashlib.sha256("\n".join((lang, *keys)).encode()).hexdigest()[:16],
        )


def _copied(keys: tuple[str, str], original: Pair | None) -> str | None:
    if original is not None:
        for name, key in zip(("question", "passage"), keys, strict=True):
            if key and key == normalise(getattr(original, name) or ""):
                return name
    return None


def _language(text: str, lang: str, identifier: Identifier | None) -> str | None:
    if identifier is None or lang not in identifier.known or not text.strip():
        return None
    found = identifier.find(text)
    return lang if found == base(lang) else found


def together(
    rows: Sequence[Pair], keys: Sequence[str], rejected: AbstractSet[int]
) -> Iterator[tuple[bool, bool]]:
    """Per row: is its English row kept, and does an earlier kept row hold the same pair.

    `keys` are the rows' `pair_key`; `rejected` are the positions of those rejected for themselves.
    """
    seen: set[str] = set()
    english: set[str] = set()
    repeats: set[int] = set()

    def look(i: int) -> bool:
        if repeated := keys[i] in seen:
            repeats.add(i)
        seen.add(keys[i])
        return not repeated

    # English first, wherever it stands in the table: a translation that goes because its English row
    # went must not take a later row with the same text with it.
    for i, row in enumerate(rows):
        if row.lang == SOURCE_LANGUAGE and i not in rejected and look(i):
            english.add(row.id)
    for i, row in enumerate(rows):
        if row.lang != SOURCE_LANGUAGE and i not in rejected and row.id in english:
            look(i)
    for i, row in enumerate(rows):
        yield row.lang == SOURCE_LANGUAGE or row.id in english, i in repeats
