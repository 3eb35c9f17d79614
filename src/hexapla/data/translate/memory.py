"""The engine that looks texts up in a translation memory: the sample's columns, and files of the user's."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hexapla.data.translate.by_sentence import refuse_unsupported, sentence_identity, translate_by_sentence
from hexapla.io import readers
from hexapla.schema import SOURCE_LANGUAGE, UserError


class TranslationMemory:
    """Find exact matches of an English text or of its sentences, whatever its spaces and Unicode composition."""

    name = "memory"

    def __init__(self, units: Iterable[Mapping[str, str]]) -> None:
        """Read units of the form {language: text}; of several translations of a text, an earlier unit's is better."""
        self.columns: dict[str, dict[str, tuple[str, ...]]] = {}
        for unit in units:
            key = _normalize(unit.get(SOURCE_LANGUAGE, ""))
            for lang, text in unit.items():
                if key and lang != SOURCE_LANGUAGE and (text := text.strip()):
                    column = self.columns.setdefault(lang, {})
                    known = column.get(key, ())
                    column[key] = known if text in known else (*known, text)

    def check(self, languages: Sequence[str]) -> None:
        cure = "add a TMX or JSONL file that has it to translate.memories, or take another engine"
        refuse_unsupported(languages, self.columns, "the translation memory", cure)

    def identity(self, lang: str) -> str:
        units = json.dumps(self.columns.get(lang, {}), sort_keys=True).encode()
        return f"memory {hashlib.sha256(units).hexdigest()} {lang} {sentence_identity()}"

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """Look up each text; one that is not known as a whole is made of its sentences, if all are known."""
        column = self.columns.get(lang, {})
        whole = {text: known for text in texts if (known := column.get(_normalize(text), ()))}
        rest = list({text: None for text in texts if text not in whole})
        joined = translate_by_sentence(
            rest, lang, lambda cut: [next(iter(column.get(_normalize(text), ())), None) for text in cut]
        )
        whole.update(zip(rest, joined, strict=True))
        return [whole[text] for text in texts]


def _normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def read_memory(*, sample: Path, memories: Sequence[str]) -> TranslationMemory:
    """Read the user's files first, then the sample's columns: the user's translations are better.

    Args:
        sample: the folder of the shipped translations.
        memories: TMX or JSONL files.

    Raises:
        UserError: a file is missing, broken, or no translation memory.
    """
    return TranslationMemory(
        chain(*(_read_units(Path(path)) for path in memories), _read_sample_units(sample))
    )


def _read_sample_units(sample: Path) -> Iterator[dict[str, str]]:
    english = {}
    source = sample / "pairs" / f"{SOURCE_LANGUAGE}.jsonl"
    for where, row in readers.read_rows(source, "jsonl"):
        english[_take_text(where, row, "id")] = row
    for file in sorted(source.parent.glob("*.jsonl")):
        if file != source:
            for where, row in readers.read_rows(file, "jsonl"):
                if (own := _take_text(where, row, "id")) not in english:
                    raise UserError(f"{where}: id '{own}' is not in {source}")
                for key in ("question", "passage", "answer"):
                    yield {
                        SOURCE_LANGUAGE: _take_text(str(source), english[own], key),
                        file.stem: _take_text(where, row, key),
                    }


def _read_units(file: Path) -> Iterator[Mapping[str, str]]:
    if file.suffix.lower() not in (".tmx", ".jsonl"):
        raise UserError(f"{file}: a translation memory is a .tmx or a .jsonl file")
    useful = False
    for where, row in readers.read_tmx(file) if file.suffix.lower() == ".tmx" else _read_lines(file):
        unit = {lang: _take_text(where, row, lang) for lang in row}
        useful |= SOURCE_LANGUAGE in unit and len(unit) > 1
        yield unit
    if not useful:
        raise UserError(f"{file}: no unit has '{SOURCE_LANGUAGE}' and another language")


def _read_lines(file: Path) -> Iterator[readers.Row]:
    for where, row in readers.read_rows(file, "jsonl"):
        if SOURCE_LANGUAGE not in row:
            raise UserError(f'{where}: no \'{SOURCE_LANGUAGE}\' text; a line is {{"en": "...", "de": "..."}}')
        if "id" in row and not (isinstance(row["id"], str) and not row["id"].strip().isdecimal()):
            raise UserError(f"{where}: 'id' means Indonesian in a memory; leave row numbers out")
        yield where, row


def _take_text(where: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: '{key}' wants text, got {'nothing' if value is None else repr(value)[:40]}"
        )
    return value
