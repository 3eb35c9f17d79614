"""From a source's rows to pairs, all with the same checks at the door.

Of several answers the first counts; a row whose list of answers is empty is skipped: its passage does not
answer it. Data that is parallel already comes in one of two forms: a row a language, with a column of
languages and shared ids; or columns of all languages in a row, told by `{lang}` in their names. Nothing is
remembered from row to row, so a source may have any size.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hexapla.config_data import Source
from hexapla.data.collect import cutting
from hexapla.data.collect.cells import REQUIRED, Cells, UnusableError
from hexapla.io.readers import Row
from hexapla.schema import ORIGINAL, SOURCE_LANGUAGE, Pair, UserError
from hexapla.text.languages import base_language, is_known_language, standard_code


@dataclass
class Tally:
    """What became of a source's `read` rows.

    `kept`, `duplicates` and `near_duplicates` are set by whoever removes duplicates, who moves
    `translations` to `without_english`. Each other row is in one of the counts that follow; `cut` and
    `cleaned` are of pairs that were given.
    """

    read: int = 0
    kept: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    skipped: int = 0
    """Said to have no answer."""
    other_rows: int = 0
    """Not what `where` asks for."""
    other_language: int = 0
    """Not in one of the source's `languages`."""
    without_english: int = 0
    """Without the English columns; in data with a row a language, rows in others whose English row is not
    there, or was left out: for its length, by `limit`, or as another of these counts says."""
    unusable: int = 0
    """Of a data set of the hub: with an empty text, or one with characters that no text has; of rows with
    columns of several languages the translations too, each by itself."""
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


def pairs(rows: Iterable[Row], source: Source, tally: Tally) -> Iterator[Pair]:
    """The pairs of rows, of each row English first; `passage_id` is '' in other languages.

    What `sample` takes is decided by a hash, of the id where there is a row a language (so that the
    languages of a pair go the same way), else of the content: the same rows whatever their order. Passages
    are cut before lengths are asked for, and those of English rows alone. An English row without an id gets
    one from its content.

    Raises:
        UserError: a row does not fit; the message names its place. A row of the hub whose text is unusable is
            counted and left out instead, and so is a translation alone that stands in a column: a published
            data set can't be mended by its user.
    """
    columns = _columns(source)
    languages = dict.fromkeys(map(_standing_for, source.languages))
    source = dataclasses.replace(source, languages=tuple(languages))
    given = 0
    for where, row in rows:
        tally.read += 1
        try:
            if given == source.limit and _language(Cells(where, row, source.columns)) == SOURCE_LANGUAGE:
                tally.over_limit += 1
                continue
            found = _found(where, row, source, columns, tally)
        except UnusableError:
            if source.kind != "hub":
                raise
            found = "unusable"
        if isinstance(found, str):
            setattr(tally, found, getattr(tally, found) + 1)
            continue
        english = found[0].lang == SOURCE_LANGUAGE
        tally.translations += len(found) - english
        given += english
        yield from found
        if given == source.limit and not _more_to_come(row, source):
            return


def content_digest(question: str, passage: str) -> bytes:
    """16 bytes, the same for texts that differ in spaces or in their Unicode composition alone."""
    return _digest(question, passage)


def _columns(source: Source) -> dict[str, dict[str, str]]:
    """Of data with columns of several languages: by language, our column -> theirs; else empty.

    Raises:
        UserError: the source's languages are none, or two of them are one.
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
    # Their names have a code as it is written in `languages`.
    written: dict[str, str] = {}
    for lang in source.languages:
        if (other := written.setdefault(_standing_for(lang), lang)) != lang:
            raise UserError(
                f"source '{source.title}': languages: '{other}' and '{lang}' are one; take one off"
            )
    return {
        lang: {ours: theirs.replace("{lang}", code) for ours, theirs in source.columns.items()}
        for lang, code in {SOURCE_LANGUAGE: SOURCE_LANGUAGE, **written}.items()
    }


def _found(
    where: str,
    row: Mapping[str, Any],
    source: Source,
    columns: Mapping[str, Mapping[str, str]],
    tally: Tally,
) -> list[Pair] | str:
    """The pairs of one row, or the name of the tally's count for rows that give none."""
    whole = Cells(where, row, source.columns)
    if any(str(whole.raw(column)) != value for column, value in source.where.items()):
        return "other_rows"
    if not columns:
        lang = _language(whole)
        if source.languages and lang not in (SOURCE_LANGUAGE, *source.languages):
            return "other_language"
        pair = _pair(whole, source, lang, tally)
        return pair if isinstance(pair, str) else [pair]
    cells = {lang: Cells(where, row, theirs) for lang, theirs in columns.items()}
    present = [lang for lang in columns if cells[lang].filled(*REQUIRED)]
    if SOURCE_LANGUAGE not in present:
        return "without_english"
    english = _pair(cells[SOURCE_LANGUAGE], source, SOURCE_LANGUAGE, tally)
    if isinstance(english, str):
        return english
    own = english.id.removeprefix(f"{source.title}/")
    found = [english]
    for lang in present:
        if lang != SOURCE_LANGUAGE:
            found += _translation(cells[lang], source, lang, tally, own)
    return found


def _translation(cells: Cells, source: Source, lang: str, tally: Tally, own: str) -> list[Pair]:
    """The pair of a row's columns in another language; none of a bad one of the hub, which is counted."""
    try:
        pair = _pair(cells, source, lang, tally, own)
    except UnusableError:
        if source.kind != "hub":
            raise
        tally.unusable += 1
        return []
    return [pair] if isinstance(pair, Pair) else []


def _language(cells: Cells) -> str:
    """Of a row in one language: what its column `lang` says, in its plain form, else English."""
    if not cells.has("lang"):
        return SOURCE_LANGUAGE
    lang = cells.text("lang")
    if not is_known_language(lang):
        raise UserError(
            f"{cells.where}: language '{lang}' is no code of ISO 639; mend it or leave the row out"
        )
    return _standing_for(lang)


def _standing_for(lang: str) -> str:
    """The code that rows have for one of ISO 639; all English is one, such as `en-GB`."""
    code = standard_code(lang)
    return SOURCE_LANGUAGE if base_language(code) == SOURCE_LANGUAGE else code


def _more_to_come(row: Mapping[str, Any], source: Source) -> bool:
    """Whether rows in other languages, of pairs that were taken, may stand anywhere after this one."""
    return Cells("", row, source.columns).has("lang") and source.languages != (SOURCE_LANGUAGE,)


def _pair(cells: Cells, source: Source, lang: str, tally: Tally, known: str = "") -> Pair | str:
    """The pair of one row in one language; its id is `known` where its English pair was taken."""
    answer = cells.answer()
    if answer is None:
        return "skipped"
    question, whole, own = cells.text("question"), cells.text("passage"), known or cells.text("id")
    negatives = cells.negatives()
    english = lang == SOURCE_LANGUAGE
    if not own and not english:
        raise UserError(
            f"{cells.where}: a row in '{lang}' needs the id of its English row; name the column in the "
            "source's `columns: {id: ...}`"
        )
    passage = cutting.cut(whole, answer, source.cut_passages, lang) if source.cut_passages else whole
    digest = content_digest(question, passage)
    if english and not _fits(question, passage, source):
        return "short_or_long"
    key = hashlib.sha256(own.encode()).digest()[:16] if own and cells.has("lang") else digest
    if not known and int.from_bytes(key[8:]) >= source.sample * 2**64:
        return "not_sampled"
    tally.cut += passage != whole
    tally.cleaned += cells.cleaned
    # A number in the file would change with the order of its rows; the content does not.
    name = f"{source.title}/{own or digest.hex()[:16]}"
    passage_id = f"p{_digest(passage).hex()[:16]}" if english else ""
    return Pair(name, source.title, lang, question, passage, answer, passage_id, ORIGINAL, negatives)


def _fits(question: str, passage: str, source: Source) -> bool:
    texts = (
        (question, source.min_question_chars, source.max_question_chars),
        (passage, source.min_passage_chars, source.max_passage_chars),
    )
    return all(low <= len(text) and (high is None or len(text) <= high) for text, low, high in texts)


def _digest(*texts: str) -> bytes:
    plain = (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)
    return hashlib.sha256("\0".join(plain).encode()).digest()[:16]
