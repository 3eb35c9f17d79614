"""The only code that knows file formats. Every write is atomic: whole, or not there at all."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from defusedxml import DefusedXmlException, ElementTree

from hexapla.records import PAIR_COLUMNS, Mistake, Pair

Row = tuple[str, dict[str, Any]]
"""A row of a user's file, and where it stands ("file:line" or "file, row n")."""

_ROW_GROUP = 8192
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".json": "squad"}


# --- writing ---------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o644)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file`, for a folder; what stood at `path` before is replaced at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch
        scratch.chmod(0o755)
        shutil.rmtree(path, ignore_errors=True)
        scratch.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Indented, in the given key order, the same bytes for the same tree."""
    write_text(path, json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with whole_file(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_pairs(path: Path, pairs: Iterable[tuple[str, ...]], extra: Sequence[str] = ()) -> int:
    """Write the parallel table as Parquet, a row group at a time; returns the number of rows.

    Args:
        path: the file to write.
        pairs: the rows; with `extra`, tuples that carry these further text columns at their end.
        extra: names of further columns.
    """
    schema = pa.schema([(name, pa.string()) for name in (*PAIR_COLUMNS, *extra)])
    count = 0
    with whole_file(path) as scratch, pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
        for group in _groups(pairs):
            columns = [pa.array(column, pa.string()) for column in zip(*group, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(group)
    return count


class Ragged(NamedTuple):
    """A column of lists: `values` one after another, `lengths` int [rows]; None in `values` is null."""

    values: np.ndarray
    lengths: np.ndarray


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray | Ragged]) -> None:
    """Columns of equal length as one Parquet file."""
    arrays = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            offsets = np.concatenate([[0], np.cumsum(column.lengths)])
            arrays[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(column.values))
        else:
            arrays[name] = pa.array(column)
    with whole_file(path) as scratch:
        pq.write_table(pa.table(arrays), scratch, compression="zstd")


def _groups(pairs: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    rest = iter(pairs)
    while group := list(islice(rest, _ROW_GROUP)):
        yield group


# --- reading our own -------------------------------------------------------------------------


def read_pairs(path: Path) -> pa.Table:
    """The parallel table as Arrow columns.

    Raises:
        Mistake: the file is missing, broken, or lacks a column.
    """
    table = _read_parquet_whole(path)
    if missing := [name for name in PAIR_COLUMNS if name not in table.column_names]:
        raise Mistake(f"{path}: column '{missing[0]}' is missing")
    return table


def _read_parquet_whole(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise Mistake(f"{path}: not found; run `dvc repro`, which makes it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise Mistake(f"{path}: not a readable Parquet file ({_first_line(error)})") from None


def iter_pairs(table: pa.Table) -> Iterator[Pair]:
    """The rows of a table that `read_pairs` gave, one at a time."""
    for batch in table.select(list(PAIR_COLUMNS)).to_batches(max_chunksize=_ROW_GROUP):
        yield from map(Pair._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def read_columns(path: Path) -> dict[str, np.ndarray | Ragged]:
    """What `write_columns` wrote.

    Raises:
        Mistake: the file is missing or broken.
    """
    table = _read_parquet_whole(path)
    columns: dict[str, np.ndarray | Ragged] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type):
            lengths = np.diff(column.offsets.to_numpy())
            columns[name] = Ragged(column.flatten().to_numpy(zero_copy_only=False), lengths)
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def read_json(path: Path) -> Any:
    """Raises Mistake when the file is missing or no JSON, with the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mistake(f"{path}: not found") from None
    except json.JSONDecodeError as error:
        raise Mistake(f"{path}:{error.lineno}: broken JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise Mistake(f"{path}: not UTF-8 text") from None


def read_curve(path: Path, column: str) -> tuple[list[float], list[float]]:
    """Steps and values of a curve that training wrote; both empty for a model that was not trained."""
    rows = [row for _, row in read_rows(path, "csv")]
    return [float(row["step"]) for row in rows], [float(row[column]) for row in rows]


def sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, over its files' names and bytes, in order of name."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


# --- reading what users bring ------------------------------------------------------------------


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
            for batch in file.iter_batches(_ROW_GROUP):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowInvalid, OSError) as error:
        raise Mistake(f"{path}: not a readable Parquet file ({_first_line(error)})") from None


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
