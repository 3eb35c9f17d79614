"""Files that users bring: JSONL, CSV, Parquet and TMX, as rows that know where they stand.

Nothing here is trusted: what a file breaks is told in one line, with the line or row that broke it.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pyarrow as pa
import pyarrow.parquet as pq
from defusedxml import DefusedXmlException, ElementTree

from hexapla.records import Mistake

Row = tuple[str, dict[str, Any]]
"""A row of a user's file, and where it stands ("file:line" or "file, row n")."""

_BATCH = 8192
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".json": "squad"}


def format_of(path: Path) -> str:
    """`jsonl`, `csv`, `parquet` or `squad`, by the file's suffix; Mistake for any other."""
    if found := _SUFFIXES.get(path.suffix.lower()):
        return found
    raise Mistake(f"{path}: format unknown; name it (`format: jsonl`, csv, parquet or squad)")


def read_rows(path: Path, format: str) -> Iterator[Row]:
    """Rows of a JSONL, CSV or Parquet file, each with the place to name when it is wrong.

    Raises:
        Mistake: missing or empty file, broken JSON at a line, truncated Parquet, ragged CSV.
    """
    if not path.is_file():
        raise Mistake(f"{path}: not found")
    if path.stat().st_size == 0:
        raise Mistake(f"{path}: empty file")
    readers = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
    try:
        yield from readers[format](path)
    except UnicodeDecodeError:
        raise Mistake(f"{path}: not UTF-8 text") from None


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            yield where, json_object(where, line)


def json_object(where: str, line: str) -> dict[str, Any]:
    """A line of JSONL; Mistake, at its place, when it is not one object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise Mistake(f"{where}: broken JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise Mistake(f"{where}: wants a JSON object, got {type(row).__name__}")
    return row


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        good = 1
        try:
            for row in reader:
                good = reader.line_num
                where = f"{path}:{good}"
                if None in row or None in row.values():
                    raise Mistake(f"{where}: the row has not as many fields as the header")
                yield where, row
        except csv.Error as error:
            raise Mistake(f"{path}:{good + 1}: broken CSV ({error})") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowInvalid, OSError) as error:
        raise Mistake(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def read_tmx(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The units of a TMX 1.4 file as {language: text}; `de-AT` counts as `de`."""
    if not path.is_file():
        raise Mistake(f"{path}: not found")
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    try:
        units = (element for _, element in ElementTree.iterparse(path) if element.tag == "tu")
        for number, unit in enumerate(units, 1):
            texts = {}
            for variant in unit.iter("tuv"):
                segment = variant.find("seg")
                code = (variant.get(language) or variant.get("lang") or "").split("-")[0].lower()
                if segment is not None and code:
                    texts[code] = "".join(segment.itertext()).strip()
            unit.clear()
            yield f"{path}, unit {number}", texts
    except ParseError as error:
        raise Mistake(f"{path}:{error.position[0]}: broken XML ({error})") from None
    except DefusedXmlException:
        # Entities can blow a small file up to any size; no translation memory needs them.
        raise Mistake(f"{path}: declares XML entities; remove them") from None


def first_line(error: Exception) -> str:
    """Of a reader's message, which may have many; a Mistake has one."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
