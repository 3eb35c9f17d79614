"""The files that Hexapla itself writes and reads back. Every write is atomic: whole, or not there at all.

Beside `intake`, which reads what users bring, the only code that knows file formats.
"""

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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hexapla import intake
from hexapla.records import PAIR_COLUMNS, Mistake, Pair

_ROW_GROUP = 8192
_TEXT = pa.string()
_TEXTS = pa.list_(_TEXT)


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


def write_pairs(path: Path, pairs: Iterable[tuple[Any, ...]], extra: Sequence[str] = ()) -> int:
    """Write the parallel table as Parquet, a row group at a time; returns the number of rows.

    Args:
        path: the file to write.
        pairs: the rows; with `extra`, tuples that carry these further text columns at their end.
        extra: names of further columns.
    """
    names = (*PAIR_COLUMNS, *extra)
    schema = pa.schema([(name, _TEXTS if name == "negatives" else _TEXT) for name in names])
    count = 0
    with whole_file(path) as scratch, pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
        for group in _groups(pairs):
            columns = map(pa.array, zip(*group, strict=True), schema.types)
            writer.write_batch(pa.record_batch(list(columns), schema=schema))
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


def _groups(pairs: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    rest = iter(pairs)
    while group := list(islice(rest, _ROW_GROUP)):
        yield group


# --- reading our own -------------------------------------------------------------------------


def read_pairs(path: Path) -> pa.Table:
    """The parallel table as Arrow columns; one that was written before there were negatives has none.

    Raises:
        Mistake: the file is missing, broken, or lacks a column, or negatives are not lists of texts.
    """
    table = _read_parquet_whole(path)
    if "negatives" not in table.column_names:
        table = table.append_column("negatives", pa.nulls(table.num_rows, _TEXTS))
    if missing := [name for name in PAIR_COLUMNS if name not in table.column_names]:
        raise Mistake(f"{path}: column '{missing[0]}' is missing")
    if not table["negatives"].type.equals(_TEXTS):
        held = table["negatives"].type
        raise Mistake(f"{path}: column 'negatives' holds {held}, wants lists of texts; run `dvc repro`")
    return table


def _read_parquet_whole(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise Mistake(f"{path}: not found; run `dvc repro`, which makes it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise Mistake(f"{path}: not a readable Parquet file ({intake.first_line(error)})") from None


def iter_pairs(table: pa.Table) -> Iterator[Pair]:
    """The rows of a table that `read_pairs` gave, one at a time."""
    for batch in table.select(list(PAIR_COLUMNS)).to_batches(max_chunksize=_ROW_GROUP):
        *texts, negatives = (column.to_pylist() for column in batch.columns)
        yield from map(Pair, *texts, (tuple(text or "" for text in each or ()) for each in negatives))


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
    rows = [row for _, row in intake.read_rows(path, "csv")]
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
