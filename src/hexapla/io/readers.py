"""Files that users bring: JSONL, CSV, TSV (all three also as .gz), Parquet, SQuAD's JSON and TMX, as rows
that know their place in the file.

Nothing here is trusted: a broken file is an error of one line, which names the line or row. Rows are read one
after another, so that a file may have any size; only SQuAD's JSON, which is a single value, is read as a whole.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, cast
from xml.etree.ElementTree import Element, ParseError

import pyarrow as pa
import pyarrow.parquet as pq
from defusedxml import DefusedXmlException, ElementTree

from hexapla.schema import UserError, first_line
from hexapla.text.languages import base_language

Row = tuple[str, dict[str, Any]]
"""A row of a user's file, and its place ("file:line" or "file, row n")."""

LONGEST_LINE = 64 << 20
"""Bytes of a line (or of a CSV field); a longer one is no text to embed, but a broken file."""

_BATCH = 1024
_NO_JSON = (ValueError, RecursionError)
"""What `json` raises; besides its own error for numbers of thousands of digits, thousands of brackets."""
_CODES = frozenset({"bpt", "ept", "ph", "it", "ut", "sub"})
"""TMX's elements in a segment that hold no text of it, but markup, and notes within that."""
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".json": "squad",
}  # fmt: skip


@dataclass
class Skip:
    """Rows that are still to be passed over, in as many files as they reach over."""

    left: int = 0

    def passes(self) -> bool:
        """Whether one more row is passed over."""
        if self.left:
            self.left -= 1
            return True
        return False


def format_of(path: Path) -> str:
    """`jsonl`, `csv`, `tsv`, `parquet` or `squad`, by the suffix before `.gz`; UserError for any other."""
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    if found := _SUFFIXES.get(suffix.lower()):
        return found
    raise UserError(f"{path}: format unknown; name it (`format: jsonl`, csv, tsv, parquet or squad)")


def read_rows(path: Path, format: str, skip: Skip | None = None) -> Iterator[Row]:
    """Rows of a file, each with the place to name when it is wrong.

    `skip` are rows to pass over, and is counted down; those of Parquet cost nothing, those of other formats
    are not parsed further than to find where they end.

    Raises:
        UserError: missing or empty file, no UTF-8, broken gzip archive, a line over 64 MiB, broken JSON,
            truncated Parquet, ragged CSV, columns of one name.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty file")
    try:
        yield from _READERS[format](path, skip or Skip())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip archive ({first_line(error)})") from None


def _lines(path: Path, *, limited: bool = True) -> Iterator[tuple[str, str]]:
    """The lines of a text, unzipped where its name ends so, with their places; `limited`: in their length."""
    packed = path.suffix.lower() == ".gz"
    with cast("IO[bytes]", gzip.open(path) if packed else path.open("rb")) as stream:
        for number in count(1):
            line = stream.readline(LONGEST_LINE + 1 if limited else -1)
            where = f"{path}:{number}"
            if not line:
                return
            if limited and len(line) > LONGEST_LINE:
                raise UserError(
                    f"{where}: a line of more than {LONGEST_LINE >> 20} MiB; is this a text file?"
                )
            try:
                yield where, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                raise UserError(f"{where}: not UTF-8 text ({byte}); save the file as UTF-8") from None


def _read_jsonl(path: Path, skip: Skip) -> Iterator[Row]:
    for where, line in _lines(path):
        if not line.isspace() and not skip.passes():
            yield where, json_object(where, line)


def json_object(where: str, line: str) -> dict[str, Any]:
    """A line of JSONL; UserError, at its place, when it is not one object."""
    try:
        row = json.loads(line)
    except _NO_JSON as error:
        raise _no_json(where, error) from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: wants a JSON object, got {type(row).__name__}")
    return row


def _no_json(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: broken JSON ({getattr(error, 'msg', first_line(error))})")


def _read_csv(path: Path, skip: Skip) -> Iterator[Row]:
    yield from _read_table(path, skip, csv.reader((line for _, line in _lines(path)), strict=True))


def _read_tsv(path: Path, skip: Skip) -> Iterator[Row]:
    """A line a row, tabs between fields, no quoting: the media type text/tab-separated-values."""
    lines = (line for _, line in _lines(path))
    yield from _read_table(path, skip, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))


def _read_table(path: Path, skip: Skip, fields: Any) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)  # the process's, but nobody needs the lower one
    good = 0
    header: list[str] = []
    try:
        for values in fields:
            good = fields.line_num
            if not header:
                header = _header(f"{path}:{good}", values)
            elif len(values) != len(header) and values:
                raise UserError(f"{path}:{good}: the row has not as many fields as the header")
            elif values and not skip.passes():
                yield f"{path}:{good}", dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{good + 1}: broken CSV ({error})") from None


def _header(where: str, names: list[str]) -> list[str]:
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{where}: two columns are called '{name}'; rename one")
    return names


def _read_parquet(path: Path, skip: Skip) -> Iterator[Row]:
    number = 0
    try:
        # Else whole row groups are held, which may be as large as the file.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            _header(str(path), file.schema_arrow.names)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if skip.left >= rows:
                    skip.left -= rows
                    number += rows
                    continue
                for batch in file.iter_batches(_BATCH, row_groups=[group]):
                    left, skip.left = skip.left, max(0, skip.left - len(batch))
                    number += min(left, len(batch))
                    for row in batch.slice(min(left, len(batch))).to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text, after row {number}") from None
    # Besides a broken file: codecs that are not there, times and numbers that Python does not have.
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _read_squad(path: Path, skip: Skip) -> Iterator[Row]:
    try:
        tree = json.loads("".join(line for _, line in _lines(path, limited=False)))
    except _NO_JSON as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise _no_json(where, error) from None
    where = str(path)
    try:
        for article in tree["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    where = f"{path}, question '{qa['id']}'"
                    answers = [] if qa.get("is_impossible") else [one["text"] for one in qa["answers"]]
                    row = {"id": qa["id"], "question": qa["question"], "passage": paragraph["context"]}
                    if not skip.passes():
                        yield where, {**row, "answers": answers}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not SQuAD's format ({type(error).__name__}: {error})") from None


_READERS: dict[str, Callable[[Path, Skip], Iterator[Row]]] = {
    "jsonl": _read_jsonl, "csv": _read_csv, "tsv": _read_tsv, "parquet": _read_parquet, "squad": _read_squad,
}  # fmt: skip


def read_tmx(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The units of a TMX 1.4 file as {language: text}; `de-AT` counts as `de`; of two the first."""
    return ((where, texts) for where, _, texts in read_units(path))


def read_units(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The same with each unit's own name, its `tuid`, or ''."""
    if not path.is_file():
        raise UserError(f"{path}: not found")
    number = 0
    try:
        parents = [Element("")]  # the root's
        for event, element in ElementTree.iterparse(path, ("start", "end")):
            if event == "start":
                parents.append(element)
                continue
            parents.pop()
            if element.tag != "tu":
                continue
            number += 1
            yield f"{path}, unit {number}", element.get("tuid", ""), _variants(element)
            # Else the tree would grow with the file.
            parents[-1].clear()
    except ParseError as error:
        raise UserError(f"{path}:{error.position[0]}: broken XML ({error})") from None
    except DefusedXmlException:
        # Entities can blow a small file up to any size; no translation memory needs them.
        raise UserError(f"{path}: declares XML entities; remove them") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{path}: {first_line(error)}; save the file as UTF-8") from None


def _variants(unit: Element) -> dict[str, str]:
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    texts: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        segment = variant.find("seg")
        tag = variant.get(language) or variant.get("lang") or ""
        code = base_language(tag)
        if segment is not None and code:
            texts.setdefault(code, _text(segment))
    return texts


def _text(segment: Element) -> str:
    for code in [element for element in segment.iter() if element.tag in _CODES]:
        code.text, code[:] = "", []  # the text after it stays
    return "".join(segment.itertext()).strip()
