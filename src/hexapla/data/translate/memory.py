"""What an engine is that translates English texts, and the one that looks them up in a translation memory.

An engine that has no translation says so: nothing goes on in English under another language's name.
`engines.py` names the others.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from hexapla.data.translate import passages
from hexapla.io import readers
from hexapla.schema import SOURCE_LANGUAGE, UserError


class Engine(Protocol):
    """What translates; `name` goes into the rows that it made."""

    @property
    def name(self) -> str: ...

    def identity(self, lang: str) -> str:
        """All that its translations to `lang` depend on; names what is kept of them."""

    def check(self, languages: Sequence[str]) -> None:
        """Raise UserError, naming what is supported, unless all `languages` are; before any work."""

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """For each English text, of any length, its translations, best first; () where it has none."""


def refuse_unsupported(languages: Sequence[str], known: Iterable[str], holder: str, mend: str) -> None:
    """Raise UserError unless all `languages` are `known` to the `holder`, with what to do about it."""
    names = sorted(set(known) - {SOURCE_LANGUAGE})
    if unknown := [lang for lang in languages if lang not in names]:
        raise UserError(
            f"translate.languages: {holder} has no {', '.join(repr(lang) for lang in unknown)} "
            f"(it has {', '.join(names) or 'none'}); {mend}"
        )


# --- a translation memory ----------------------------------------------------------------------


class Memory:
    """Exact matches on an English text or on its sentences, whatever its spaces and Unicode composition."""

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

    def identity(self, lang: str) -> str:
        units = json.dumps(self.columns.get(lang, {}), sort_keys=True).encode()
        return f"memory {hashlib.sha256(units).hexdigest()} {lang} {passages.rules()}"

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """A text that is not known as a whole is put together from its sentences, if all are known."""
        column = self.columns.get(lang, {})
        whole = {text: known for text in texts if (known := column.get(_plain(text), ()))}
        parts = list({text: None for text in texts if text not in whole})
        made = passages.by_sentence(
            parts, lang, lambda cut: [next(iter(column.get(_plain(text), ())), None) for text in cut]
        )
        whole.update(zip(parts, made, strict=True))
        return [whole[text] for text in texts]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def memory(*, sample: Path, memories: Sequence[str], **_: Any) -> Memory:
    """The user's files first, then the sample's columns: one's own word counts for more."""
    return Memory(chain(*(_file_units(Path(path)) for path in memories), _sample_units(sample)))


def _sample_units(sample: Path) -> Iterator[dict[str, str]]:
    english = {}
    source = sample / "pairs" / f"{SOURCE_LANGUAGE}.jsonl"
    for where, row in readers.read_rows(source, "jsonl"):
        english[_field(where, row, "id")] = row
    for file in sorted(source.parent.glob("*.jsonl")):
        if file != source:
            for where, row in readers.read_rows(file, "jsonl"):
                if (own := _field(where, row, "id")) not in english:
                    raise UserError(f"{where}: id '{own}' is not in {source}")
                for key in ("question", "passage", "answer"):
                    yield {
                        SOURCE_LANGUAGE: _field(str(source), english[own], key),
                        file.stem: _field(where, row, key),
                    }


def _file_units(file: Path) -> Iterator[Mapping[str, str]]:
    if file.suffix.lower() not in (".tmx", ".jsonl"):
        raise UserError(f"{file}: a translation memory is a .tmx or a .jsonl file")
    useful = False
    for where, row in readers.read_tmx(file) if file.suffix.lower() == ".tmx" else _lines(file):
        unit = {lang: _field(where, row, lang) for lang in row}
        useful |= SOURCE_LANGUAGE in unit and len(unit) > 1
        yield unit
    if not useful:
        raise UserError(f"{file}: no unit has '{SOURCE_LANGUAGE}' and another language")


def _lines(file: Path) -> Iterator[readers.Row]:
    for where, row in readers.read_rows(file, "jsonl"):
        if SOURCE_LANGUAGE not in row:
            raise UserError(f'{where}: no \'{SOURCE_LANGUAGE}\' text; a line is {{"en": "...", "de": "..."}}')
        if "id" in row and not (isinstance(row["id"], str) and not row["id"].strip().isdecimal()):
            raise UserError(f"{where}: 'id' stands for Indonesian in a memory; leave row numbers out")
        yield where, row


def _field(where: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: '{key}' wants text, got {'nothing' if value is None else repr(value)[:40]}"
        )
    return value
