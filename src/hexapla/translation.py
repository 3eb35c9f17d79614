"""Engines that translate English texts, behind one small protocol, and rows made of what they give.

An engine that has no translation says so, and the row is left out and counted: nothing goes on in
English under another language's name. The translation memory is here, models are in `machine.py`.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from hexapla import intake
from hexapla.records import SOURCE_LANGUAGE, Mistake, Pair

_CHUNK = 512
"""Pairs that an engine sees at once: enough to sort by length, few enough to hold."""


class Engine(Protocol):
    """What translates; `name` goes into the rows that it made."""

    @property
    def name(self) -> str: ...

    def check(self, languages: Sequence[str]) -> None:
        """Raise Mistake, naming what is supported, unless all `languages` are; before any work."""

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """For each English text its translations, best first; () where the engine has none."""


@dataclass
class Tally:
    """What became of a language's rows; of the translated ones some lost something.

    `answers_lost` are those whose answer is not found, `negatives_lost` counts the negatives that have
    no translation.
    """

    translated: int = 0
    missing: int = 0
    answers_lost: int = 0
    negatives_lost: int = 0


def translate_pairs(pairs: Iterable[Pair], lang: str, engine: Engine, tally: Tally) -> Iterator[Pair]:
    """The English `pairs` in `lang`, as far as question and passage both have a translation.

    The answer is the engine's first that stands verbatim in the translated passage, or ''. A negative
    without a translation is left out of its row. The engine sees equal texts of a chunk once.
    """
    rest = iter(pairs)
    while chunk := list(islice(rest, _CHUNK)):
        needed = ((pair.question, pair.passage, pair.answer, *pair.negatives) for pair in chunk)
        texts = list(dict.fromkeys(chain.from_iterable(needed)))
        found = dict(zip(texts, engine.translate(texts, lang), strict=True))
        for pair in chunk:
            questions, passages, answers = found[pair.question], found[pair.passage], found[pair.answer]
            if not questions or not passages:
                tally.missing += 1
                continue
            answer = next((text for text in answers if text in passages[0]), "")
            negatives = tuple(found[text][0] for text in pair.negatives if found[text])
            tally.translated += 1
            tally.answers_lost += bool(pair.answer and not answer)
            tally.negatives_lost += len(pair.negatives) - len(negatives)
            yield pair._replace(
                lang=lang,
                question=questions[0],
                passage=passages[0],
                answer=answer,
                engine=engine.name,
                negatives=negatives,
            )


def refuse_unsupported(languages: Sequence[str], known: Iterable[str], holder: str, mend: str) -> None:
    """Raise Mistake unless all `languages` are `known` to the `holder`, with what to do about it."""
    names = sorted(set(known) - {SOURCE_LANGUAGE})
    if unknown := [lang for lang in languages if lang not in names]:
        raise Mistake(
            f"translate.languages: {holder} has no {', '.join(repr(lang) for lang in unknown)} "
            f"(it has {', '.join(names) or 'none'}); {mend}"
        )


# --- a translation memory ----------------------------------------------------------------------


class Memory:
    """Exact matches on the English text, whatever its spaces and its Unicode composition."""

    name = "memory"

    def __init__(self, units: Iterable[Mapping[str, str]]) -> None:
        """Units are {language: text}; of several translations of one text, earlier units' are better."""
        self.columns: dict[str, dict[str, tuple[str, ...]]] = {}
        for unit in units:
            key = _plain(unit.get(SOURCE_LANGUAGE, ""))
            for lang, text in unit.items():
                if key and lang != SOURCE_LANGUAGE and (text := text.strip()):
                    column = self.columns.setdefault(lang, {})
                    known = column.get(key, ())
                    column[key] = known if text in known else (*known, text)

    def check(self, languages: Sequence[str]) -> None:
        mend = "add a TMX or JSONL file that has it to translate.memories, or take another engine"
        refuse_unsupported(languages, self.columns, "the translation memory", mend)

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        column = self.columns.get(lang, {})
        return [column.get(_plain(text), ()) for text in texts]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def memory(*, sample: Path, memories: Sequence[str], **_: Any) -> Memory:
    """The user's files first, then the sample's columns: one's own word counts for more."""
    return Memory(chain(*(_file_units(Path(path)) for path in memories), _sample_units(sample)))


def _sample_units(sample: Path) -> Iterator[dict[str, str]]:
    english = {}
    source = sample / "pairs" / f"{SOURCE_LANGUAGE}.jsonl"
    for where, row in intake.read_rows(source, "jsonl"):
        english[_field(where, row, "id")] = row
    for file in sorted(source.parent.glob("*.jsonl")):
        if file != source:
            for where, row in intake.read_rows(file, "jsonl"):
                if (own := _field(where, row, "id")) not in english:
                    raise Mistake(f"{where}: id '{own}' is not in {source}")
                for key in ("question", "passage", "answer"):
                    yield {
                        SOURCE_LANGUAGE: _field(str(source), english[own], key),
                        file.stem: _field(where, row, key),
                    }


def _file_units(file: Path) -> Iterator[Mapping[str, str]]:
    if file.suffix.lower() not in (".tmx", ".jsonl"):
        raise Mistake(f"{file}: a translation memory is a .tmx or a .jsonl file")
    useful = False
    for where, row in intake.read_tmx(file) if file.suffix.lower() == ".tmx" else _lines(file):
        unit = {lang: _field(where, row, lang) for lang in row}
        useful |= SOURCE_LANGUAGE in unit and len(unit) > 1
        yield unit
    if not useful:
        raise Mistake(f"{file}: no unit has '{SOURCE_LANGUAGE}' and another language")


def _lines(file: Path) -> Iterator[intake.Row]:
    for where, row in intake.read_rows(file, "jsonl"):
        if SOURCE_LANGUAGE not in row:
            raise Mistake(f'{where}: no \'{SOURCE_LANGUAGE}\' text; a line is {{"en": "...", "de": "..."}}')
        yield where, row


def _field(where: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise Mistake(f"{where}: '{key}' wants text, got {'nothing' if value is None else repr(value)[:40]}")
    return value
