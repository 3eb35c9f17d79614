"""From English rows and translations of their texts to the rows of the parallel table.

What has no translation is left out and counted: nothing goes on in English under another language's name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hexapla.io import tables
from hexapla.schema import SOURCE_LANGUAGE, Pair, UserError
from hexapla.text.normalize import contains_answer, find_answer

Translations = tuple[str, ...]
"""Of one text, best first; none where the engine has none."""


class Bundle(NamedTuple):
    """A pair as it was collected: its English row, and those of other languages that came with it."""

    english: Pair
    own: dict[str, Pair]


@dataclass
class Tally:
    """What became of a language's rows.

    `original` are those that came in the language, `missing` those whose question or passage has no
    translation. Of the translated ones `answers_lost` have none in their passage; `negatives_lost` counts
    negatives without translation.
    """

    translated: int = 0
    original: int = 0
    missing: int = 0
    answers_lost: int = 0
    negatives_lost: int = 0


def bundles(part: Path) -> Iterator[Bundle]:
    """The pairs of a part of the collected table, in order.

    Raises:
        UserError: a row in another language does not follow the English row of its id, or stands twice.
    """
    current: Bundle | None = None
    for number, row in enumerate(tables.stream_pairs(part), 1):
        if row.lang == SOURCE_LANGUAGE:
            if current:
                yield current
            current = Bundle(row, {})
            continue
        where = f"{part}: row {number}: '{row.id}' in '{row.lang}'"
        if current is None or row.id != current.english.id:
            raise UserError(f"{where} does not follow its English row; run `dvc repro`")
        if row.lang in current.own:
            raise UserError(f"{where} stands twice; run `dvc repro`")
        current.own[row.lang] = row
    if current:
        yield current


def count(pairs: Path) -> Counter[str]:
    """Rows of the collected table by language.

    Raises:
        UserError: it has no English rows.
    """
    counts: Counter[str] = Counter()
    for batch in tables.stream_batches(pairs):
        counts.update(batch.column("lang").to_pylist())
    if not counts[SOURCE_LANGUAGE]:
        raise UserError(
            f"{pairs}: has no rows in '{SOURCE_LANGUAGE}', from which to translate; run `dvc repro`"
        )
    return counts


def wanted(bundle: Bundle, lang: str) -> tuple[str, ...]:
    """The texts whose translations make the pair's row: question, passage, answer if any, negatives."""
    if lang in bundle.own:
        return ()
    row = bundle.english
    return (row.question, row.passage, *((row.answer,) if row.answer else ()), *row.negatives)


def row(bundle: Bundle, lang: str, found: Sequence[Translations], engine: str, tally: Tally) -> Pair | None:
    """The pair's row in a language, `found` being the translations of the `wanted` texts.

    None when question or passage has none. An answer has to stand in the passage: it is the engine's
    first that does, in whatever case of letters (then as the passage has it), else ''. Negatives without
    translation are left out.
    """
    if own := bundle.own.get(lang):
        tally.original += 1
        return own
    if not found[0] or not found[1]:
        tally.missing += 1
        return None
    english, passage = bundle.english, found[1][0]
    answer = _answer(found[2], passage, lang) if english.answer else ""
    kept = found[3 if english.answer else 2 :]
    negatives = tuple(each[0] for each in kept if each)
    tally.translated += 1
    tally.answers_lost += bool(english.answer and not answer)
    tally.negatives_lost += len(kept) - len(negatives)
    return english._replace(
        lang=lang, question=found[0][0], passage=passage, answer=answer, engine=engine, negatives=negatives
    )


def _answer(candidates: Translations, passage: str, lang: str) -> str:
    for text in candidates:
        if contains_answer(passage, text, lang):
            return text
    for text in candidates:
        if match := find_answer(passage, text, lang, ignore_case=True):
            return passage[slice(*match)]
    return ""
