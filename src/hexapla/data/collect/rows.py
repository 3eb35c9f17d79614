"""Turn a source's rows into pairs, and check every text on input.

Of several answers the first counts; a row whose list of answers is empty is skipped, because its passage does not
answer the question. Parallel data comes in one of two forms: a row a language, with a column of languages and
shared ids; or columns of all languages in one row, with `{lang}` in their names. Nothing is remembered from row
to row, so a source may have any size.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hexapla.config import HubSource, Source
from hexapla.io.readers import Row
from hexapla.schema import ORIGINAL, SOURCE_LANGUAGE, Pair, UserError
from hexapla.text import sentences
from hexapla.text.languages import base_language, is_known_language, standard_code

FORMAT = 2
"""Part of every cached shard's key: raise it when the same source would give other pairs or other counts."""

REQUIRED = ("question", "passage")


@dataclass
class SourceCounts:
    """How many of a source's `read` rows were kept, and why the others were not.

    `kept`, `duplicates` and `near_duplicates` are set after the removal of duplicates, which also moves
    `translations` to `without_english`. Each other row is in one of the counts that follow; `cut` and `cleaned`
    count pairs that were made.
    """

    read: int = 0
    kept: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    skipped: int = 0
    """Rows that say that they have no answer."""
    other_rows: int = 0
    """Rows that `where` does not ask for."""
    other_language: int = 0
    """Rows in none of the source's `languages`."""
    without_english: int = 0
    """Rows without the English columns; in data with a row a language, rows in other languages whose English row
    is missing, or was left out: for its length, by `limit`, or as another of these counts says."""
    unusable: int = 0
    """Rows of the hub with an empty text, or with characters that belong in no text; of rows with columns of
    several languages, each translation by itself."""
    short_or_long: int = 0
    not_sampled: int = 0
    over_limit: int = 0
    """English rows, in data with a row a language, after `limit` is reached."""
    translations: int = 0
    """Pairs in other languages."""
    cut: int = 0
    """Passages that were longer than `cut_passages`."""
    cleaned: int = 0
    """Pairs from which invisible marks were removed."""


# --- the columns of a row ------------------------------------------------------------------------

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_MARKS = r"\u00ad\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
"""Soft hyphen, zero-width space, marks of writing direction, byte order mark. They are invisible, but an answer with
one is not found in a passage without. Zero-width joiner and non-joiner (U+200D, U+200C) spell words in Persian and
the languages of India, and stay."""

_SUSPECT = re.compile(rf"[{_CONTROLS}\ud800-\udfff{_MARKS}]")
_REFUSED = re.compile(rf"[{_CONTROLS}\ud800-\udfff]")


class UnusableError(UserError):
    """A row has the right columns, but one of its texts is empty or has characters that belong in no text."""


@dataclass
class RowReader:
    """Reads one row by our names of columns; `columns` maps ours to theirs, where the names differ.

    Columns may lie deep in a row: `texts.de.question` goes into objects, a number takes one element of a list
    (`positives.0.text`), and another name goes into each of a list's objects (`negatives.text`). `where` is the
    row's place, for messages.
    """

    where: str
    row: Mapping[str, Any]
    columns: Mapping[str, str]
    cleaned: bool = False
    """Whether invisible marks were removed from a text that was read."""

    def read_text(self, column: str) -> str:
        """Return the stripped text of a column of ours; '' for one that the row lacks and nobody mapped.

        Raises:
            UserError: a column that is required or mapped is missing, or holds no text.
            UnusableError: question or passage is empty, or a text has control characters or half a surrogate.
        """
        theirs, value = self._look_up(column)
        if column == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return self._check(theirs, value, required=column in REQUIRED)

    def read_answer(self) -> str | None:
        """Return the answer: '' when the row names none, None when it says that the passage has none."""
        column = "answer" if "answer" in self.columns or "answer" in self.row else "answers"
        theirs, value = self._look_up(column)
        texts = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(texts, list):
            return self._check(theirs, texts[0], required=False) if texts else None
        return self._check(theirs, value, required=False)

    def read_negatives(self) -> tuple[str, ...]:
        """Return the negatives. Empty ones in a list stay, because `validate` counts what it drops."""
        theirs, value = self._look_up("negatives")
        if value is None or isinstance(value, str):
            text = self._check(theirs, value, required=False)
            return (text,) if text else ()
        if not isinstance(value, list):
            kind = type(value).__name__
            raise UserError(f"{self.where}: column '{theirs}' holds {kind}, wants a list of texts")
        return tuple(self._check(f"{theirs}[{i}]", text, required=False) for i, text in enumerate(value))

    def has(self, column: str) -> bool:
        """Return whether the row has this column of ours, or the source maps it."""
        return column in self.columns or column in self.row

    def read_raw(self, theirs: str) -> Any:
        """Return the value of a column of theirs as it is; raise UserError where there is no such column."""
        there, value = _find_deep(self.row, theirs)
        if not there:
            raise UserError(
                f"{self.where}: no column '{theirs}', which `where` asks for{self._list_columns()}"
            )
        return value

    def is_filled(self, *columns: str) -> bool:
        """Return whether the row has a text in each of these columns of ours."""
        values = [_find_deep(self.row, self.columns.get(column, column))[1] for column in columns]
        return all(value is not None and str(value).strip() for value in values)

    def _look_up(self, column: str) -> tuple[str, Any]:
        """Return their name for a column of ours and its value; None for a column that is not asked for."""
        theirs = self.columns.get(column, column)
        # Where `passage` is their column `answer`, that column is not our `answer` as well.
        if column not in self.columns and column in self.columns.values():
            return theirs, None
        there, value = _find_deep(self.row, theirs)
        if not there and (column in self.columns or column in REQUIRED):
            raise UserError(
                f"{self.where}: no column '{theirs}'{self._list_columns()}; "
                f"name theirs in the source's `columns: {{{column}: ...}}`"
            )
        return theirs, value

    def _list_columns(self) -> str:
        return f" (it has {', '.join(map(str, self.row)) or 'none'})"

    def _check(self, theirs: str, value: Any, *, required: bool) -> str:
        value = "" if value is None else value
        if not isinstance(value, str):
            raise UserError(f"{self.where}: column '{theirs}' holds {type(value).__name__}, wants text")
        if _SUSPECT.search(value):
            if refused := _REFUSED.search(value):
                name = _describe(refused[0])
                raise UnusableError(f"{self.where}: column '{theirs}' holds {name}; mend the text")
            value, self.cleaned = _SUSPECT.sub("", value), True
        text: str = value.strip()
        if required and not text:
            raise UnusableError(f"{self.where}: column '{theirs}' is empty; fill it or leave the row out")
        return text


def _describe(char: str) -> str:
    if char >= "\ud800":
        return "half of a surrogate pair"
    return f"the control character U+{ord(char):04X}"


def _find_deep(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether the row has a column of this name, dotted or not, and its value."""
    if name in row or "." not in name:
        return name in row, row.get(name)
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping):
            if part not in value:
                return False, None
            value = value[part]
        elif isinstance(value, list):
            value = _index_list(value, part)
        else:
            return value is None, None
    return True, value


def _index_list(values: list[Any], part: str) -> Any:
    if part.isdigit():
        return values[int(part)] if int(part) < len(values) else None
    return [value.get(part) if isinstance(value, Mapping) else value for value in values]


# --- from rows to pairs --------------------------------------------------------------------------


def make_pairs(rows: Iterable[Row], source: Source, counts: SourceCounts) -> Iterator[Pair]:
    """Yield the pairs of rows, of each row English first; `passage_id` is '' in other languages.

    A hash decides what `sample` takes, so that the same rows are taken in whatever order they come: a hash of the
    id where there is a row a language (the languages of a pair go the same way), else of the content. Passages are
    cut before bounds on lengths apply, and these apply to English rows alone. An English row without an id gets one
    from its content.

    Args:
        rows: the source's rows, each with its place.
        source: its settings.
        counts: is added to as rows are read.

    Raises:
        UserError: a row does not fit; the message names its place. A row of the hub whose text is unusable is
            counted and left out instead, and so is a single translation in a column, because users can't mend
            a published data set.
    """
    columns = _columns_by_language(source)
    languages = dict.fromkeys(map(_row_language, source.languages))
    source = dataclasses.replace(source, languages=tuple(languages))
    english_pairs = 0
    for where, row in rows:
        counts.read += 1
        try:
            reader = RowReader(where, row, source.columns)
            if english_pairs == source.limit and _read_language(reader) == SOURCE_LANGUAGE:
                counts.over_limit += 1
                continue
            pairs = _make_row_pairs(where, row, source, columns, counts)
        except UnusableError:
            if not isinstance(source, HubSource):
                raise
            pairs = "unusable"
        if isinstance(pairs, str):
            setattr(counts, pairs, getattr(counts, pairs) + 1)
            continue
        has_english = pairs[0].lang == SOURCE_LANGUAGE
        counts.translations += len(pairs) - has_english
        english_pairs += has_english
        yield from pairs
        if english_pairs == source.limit and not _may_continue(row, source):
            return


def hash_content(question: str, passage: str) -> bytes:
    """Return 16 bytes, the same for texts that differ only in spaces or in their Unicode composition."""
    return _hash_texts(question, passage)


def _columns_by_language(source: Source) -> dict[str, dict[str, str]]:
    """Return the map of columns of each language; empty for data that has no columns by language.

    Raises:
        UserError: one of the source's languages is unknown, or two of them are the same.
    """
    for lang in source.languages:
        if not is_known_language(lang):
            raise UserError(f"source '{source.title}': languages: '{lang}' is no code of ISO 639")
    if not any("{lang}" in theirs for theirs in source.columns.values()):
        return {}
    if not source.languages:
        raise UserError(
            f"source '{source.title}': columns with {{lang}} need `languages: [en, ...]`, those to look for"
        )
    # The names of columns have a code as it is written in `languages`.
    written: dict[str, str] = {}
    for lang in source.languages:
        if (other := written.setdefault(_row_language(lang), lang)) != lang:
            raise UserError(
                f"source '{source.title}': languages: '{other}' and '{lang}' are one; take one off"
            )
    return {
        lang: {ours: theirs.replace("{lang}", code) for ours, theirs in source.columns.items()}
        for lang, code in {SOURCE_LANGUAGE: SOURCE_LANGUAGE, **written}.items()
    }


def _make_row_pairs(
    where: str,
    row: Mapping[str, Any],
    source: Source,
    columns: Mapping[str, Mapping[str, str]],
    counts: SourceCounts,
) -> list[Pair] | str:
    """Return the pairs of one row, or the name of the count for a row that gives none."""
    whole = RowReader(where, row, source.columns)
    if any(str(whole.read_raw(column)) != value for column, value in source.where.items()):
        return "other_rows"
    if not columns:
        lang = _read_language(whole)
        if source.languages and lang not in (SOURCE_LANGUAGE, *source.languages):
            return "other_language"
        pair = _make_pair(whole, source, lang, counts)
        return pair if isinstance(pair, str) else [pair]
    readers = {lang: RowReader(where, row, theirs) for lang, theirs in columns.items()}
    present = [lang for lang in columns if readers[lang].is_filled(*REQUIRED)]
    if SOURCE_LANGUAGE not in present:
        return "without_english"
    english = _make_pair(readers[SOURCE_LANGUAGE], source, SOURCE_LANGUAGE, counts)
    if isinstance(english, str):
        return english
    own = english.id.removeprefix(f"{source.title}/")
    pairs = [english]
    for lang in present:
        if lang != SOURCE_LANGUAGE:
            pairs += _make_translation(readers[lang], source, lang, counts, own)
    return pairs


def _make_translation(
    reader: RowReader, source: Source, lang: str, counts: SourceCounts, own: str
) -> list[Pair]:
    """Return the pair of a row's columns in another language; count an unusable one of the hub instead."""
    try:
        pair = _make_pair(reader, source, lang, counts, own)
    except UnusableError:
        if not isinstance(source, HubSource):
            raise
        counts.unusable += 1
        return []
    return [pair] if isinstance(pair, Pair) else []


def _read_language(reader: RowReader) -> str:
    """Return the language that the row's column `lang` names, in its standard form; without one, English."""
    if not reader.has("lang"):
        return SOURCE_LANGUAGE
    lang = reader.read_text("lang")
    if not is_known_language(lang):
        raise UserError(
            f"{reader.where}: language '{lang}' is no code of ISO 639; mend it or leave the row out"
        )
    return _row_language(lang)


def _row_language(lang: str) -> str:
    """Return the code that rows get for a known one; all English is one, such as `en-GB`."""
    code = standard_code(lang)
    return SOURCE_LANGUAGE if base_language(code) == SOURCE_LANGUAGE else code


def _may_continue(row: Mapping[str, Any], source: Source) -> bool:
    """Return whether rows in other languages, of pairs that were taken, may follow this one."""
    return RowReader("", row, source.columns).has("lang") and source.languages != (SOURCE_LANGUAGE,)


def _make_pair(
    reader: RowReader, source: Source, lang: str, counts: SourceCounts, known_id: str = ""
) -> Pair | str:
    """Return the pair of one row in one language, or the name of the count for a row that gives none.

    `known_id` is the id of the English pair that was taken from the same row.
    """
    answer = reader.read_answer()
    if answer is None:
        return "skipped"
    question, whole = reader.read_text("question"), reader.read_text("passage")
    own = known_id or reader.read_text("id")
    negatives = reader.read_negatives()
    english = lang == SOURCE_LANGUAGE
    if not own and not english:
        raise UserError(
            f"{reader.where}: a row in '{lang}' needs the id of its English row; name the column in the "
            "source's `columns: {id: ...}`"
        )
    passage = sentences.truncate(whole, answer, source.cut_passages, lang) if source.cut_passages else whole
    digest = hash_content(question, passage)
    if english and not _has_allowed_length(question, passage, source):
        return "short_or_long"
    key = hashlib.sha256(own.encode()).digest()[:16] if own and reader.has("lang") else digest
    if not known_id and int.from_bytes(key[8:]) >= source.sample * 2**64:
        return "not_sampled"
    counts.cut += passage != whole
    counts.cleaned += reader.cleaned
    # A running number would change with the order of the rows; the content does not.
    name = f"{source.title}/{own or digest.hex()[:16]}"
    passage_id = f"p{_hash_texts(passage).hex()[:16]}" if english else ""
    return Pair(name, source.title, lang, question, passage, answer, passage_id, ORIGINAL, negatives)


def _has_allowed_length(question: str, passage: str, source: Source) -> bool:
    texts = (
        (question, source.min_question_chars, source.max_question_chars),
        (passage, source.min_passage_chars, source.max_passage_chars),
    )
    return all(low <= len(text) and (high is None or len(text) <= high) for text, low, high in texts)


def _hash_texts(*texts: str) -> bytes:
    plain = (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)
    return hashlib.sha256("\0".join(plain).encode()).digest()[:16]
