"""Tables on the disk: the parallel table, a file or a folder of parts, and columns of one file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hexapla.io import cache
from hexapla.schema import PAIR_COLUMNS, Pair, Quality, UserError, first_line

PART_ROWS = 1 << 16
"""Rows of one file of a table that is a folder: what a worker holds at a time."""

_ROW_GROUP = 8192
_TEXT = pa.string()
_TEXTS = pa.list_(_TEXT)
QUALITY_TYPES: dict[str, pa.DataType] = {
    "length_ratio": pa.float64(),
    "question_language": _TEXT,
    "passage_language": _TEXT,
    "copy_share": pa.float64(),
    "numbers_kept": pa.float64(),
    "answer_kept": pa.bool_(),
    "cosine": pa.float64(),
}
_TYPES = {"negatives": _TEXTS, **QUALITY_TYPES}
"""Types of the quality columns, and of the columns that are not plain text."""


# --- writing ---------------------------------------------------------------------------------


def write_pairs(path: Path, pairs: Iterable[tuple[Any, ...]], extra: Sequence[str] = ()) -> int:
    """Write the parallel table as one Parquet file, a row group at a time; returns the number of rows.

    Args:
        path: the file to write.
        pairs: the rows; with `extra`, tuples that carry these further columns at their end.
        extra: names of further columns: `records.QUALITY_COLUMNS`, or others, which hold text.
    """
    schema = _pair_schema(extra)
    return _write_groups(path, schema, map(partial(_to_batch, schema), _groups(pairs, _ROW_GROUP)))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch], extra: Sequence[str] = ()) -> int:
    """Write what `write_pairs` writes, byte for byte, from record batches of any size with these columns."""
    schema = _pair_schema(extra)
    return _write_groups(path, schema, _regroup(batches, schema))


def _pair_schema(extra: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(name, _TEXT)) for name in (*PAIR_COLUMNS, *extra)])


def _write_groups(path: Path, schema: pa.Schema, groups: Iterable[pa.RecordBatch]) -> int:
    count = 0
    with cache.atomic_file(path) as scratch, pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_batch(group)
            count += group.num_rows
    return count


def _to_batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = map(pa.array, zip(*rows, strict=True), schema.types)
    return pa.record_batch(list(columns), schema=schema)


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the batches as batches of `_ROW_GROUP` rows, the last of what is left."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables(
            [waiting, pa.Table.from_batches([batch]).select(schema.names).cast(schema)]
        )
        while waiting.num_rows >= _ROW_GROUP:
            yield waiting.slice(0, _ROW_GROUP).combine_chunks().to_batches()[0]
            waiting = waiting.slice(_ROW_GROUP)
    if waiting.num_rows:
        yield waiting.combine_chunks().to_batches()[0]


def write_parts(
    folder: Path, prefix: str, pairs: Iterable[tuple[Any, ...]], extra: Sequence[str] = ()
) -> list[Path]:
    """Write rows as `<folder>/<prefix>-00000.parquet`, `…-00001…`, each of `PART_ROWS` rows but the last.

    Each file is whole or not there; that the folder is, is up to the caller (`atomic_folder`).
    """
    files = []
    for number, part in enumerate(_groups(pairs, PART_ROWS)):
        files.append(folder / f"{prefix}-{number:05d}.parquet")
        write_pairs(files[-1], part, extra)
    return files


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
    with cache.atomic_file(path) as scratch:
        pq.write_table(pa.table(arrays), scratch, compression="zstd")


def _groups(pairs: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    rest = iter(pairs)
    while group := list(islice(rest, size)):
        yield group


# --- reading ---------------------------------------------------------------------------------


def table_files(path: Path) -> list[Path]:
    """The Parquet files of a table: of a folder those in it, in order of name; else the file itself.

    Raises:
        UserError: there is no such file or folder, or the folder holds none.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro`, which makes it")
        return [path]
    if not (files := sorted(path.glob("*.parquet"))):
        raise UserError(f"{path}: holds no Parquet files; run `dvc repro`, which makes them")
    return files


def count_rows(path: Path) -> int:
    """Count a table's rows (a file or a folder) without reading them; raises as `read_pairs`."""
    return sum(_opened(file).metadata.num_rows for file in table_files(path))


def schema(path: Path) -> pa.Schema:
    """The columns of a table, a file or a folder, the same in all its files.

    Raises:
        UserError: one lacks a column of the parallel table, or has other columns than the first.
    """
    files = table_files(path)
    schemas = [_opened(file).schema_arrow for file in files]
    for file, held in zip(files, schemas, strict=True):
        if missing := [name for name in PAIR_COLUMNS if name not in ("negatives", *held.names)]:
            raise UserError(f"{file}: column '{missing[0]}' is missing")
        if "negatives" in held.names and not (kind := held.field("negatives").type).equals(_TEXTS):
            raise UserError(f"{file}: column 'negatives' holds {kind}, wants lists of texts; run `dvc repro`")
        if not held.equals(schemas[0]):
            raise UserError(f"{file}: has other columns than {files[0].name}; run `dvc repro`")
    return schemas[0]


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a table of any size, a file or a folder, some thousands at a time; raises as `schema`."""
    schema(path)
    for file in table_files(path):
        try:
            with _opened(file) as parquet:
                yield from parquet.iter_batches(_ROW_GROUP)
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(file, error) from None


def filter_batches(
    path: Path,
    keep: np.ndarray,
    negatives: Ragged | None = None,
    more: Mapping[str, Sequence[Any]] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read the chosen rows of a table, some thousand at a time, without turning them into Python objects.

    Args:
        path: a file or a folder.
        keep: bool [rows]: which rows to read.
        negatives: bool values for all negatives of all rows: which of them to read; none of a null list.
        more: further columns of text, with a value for each chosen row.

    Raises:
        UserError: as `schema`.
    """
    at = chosen = first = 0
    for batch in stream_batches(path):
        mask = keep[at : at + batch.num_rows]
        rows = int(mask.sum())
        found = batch.filter(pa.array(mask))
        if negatives is not None:
            lengths = negatives.lengths[at : at + batch.num_rows]
            values = negatives.values[first : first + int(lengths.sum())]
            first += len(values)
            lists = _filter_lists(found["negatives"], values[np.repeat(mask, lengths)], lengths[mask])
            found = found.set_column(found.schema.get_field_index("negatives"), "negatives", lists)
        for name, texts in (more or {}).items():
            found = found.append_column(name, pa.array(texts[chosen : chosen + rows], _TEXT))
        at, chosen = at + batch.num_rows, chosen + rows
        if rows:
            yield found


def _filter_lists(lists: pa.ListArray, keep: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Keep some values of lists with these lengths; a null list becomes an empty one."""
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    offsets = kept_before[np.concatenate([[0], np.cumsum(lengths)])]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lists.flatten().filter(pa.array(keep)))


def stream_pairs(path: Path) -> Iterator[Pair]:
    """The same as pairs."""
    for batch in stream_batches(path):
        yield from iter_pairs(_with_negatives(pa.Table.from_batches([batch])))


def read_pairs(path: Path) -> pa.Table:
    """The parallel table, a file or a folder, as Arrow columns; see `stream_pairs` for large ones.

    A table that was written before there were negatives has none.

    Raises:
        UserError: the file is missing, broken, or lacks a column, or negatives are not lists of texts.
    """
    schema(path)
    return _with_negatives(pa.concat_tables(map(_read_parquet_whole, table_files(path))))


def _with_negatives(table: pa.Table) -> pa.Table:
    if "negatives" in table.column_names:
        return table
    return table.append_column("negatives", pa.nulls(table.num_rows, _TEXTS))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a readable Parquet file ({first_line(error)})")


def _read_parquet_whole(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`, which makes it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def iter_pairs(table: pa.Table) -> Iterator[Pair]:
    """The rows of a table that `read_pairs` gave, one at a time."""
    for batch in table.select(list(PAIR_COLUMNS)).to_batches(max_chunksize=_ROW_GROUP):
        *texts, negatives = (column.to_pylist() for column in batch.columns)
        yield from map(Pair, *texts, (tuple(text or "" for text in each or ()) for each in negatives))


def iter_quality(table: pa.Table) -> Iterator[Quality]:
    """Beside `iter_pairs`, each row's quality; all None where the table has no such columns."""
    held = [name for name in Quality._fields if name in table.column_names]
    for row in table.select(held).to_pylist() if held else [{}] * table.num_rows:
        yield Quality(**row)


def read_columns(path: Path) -> dict[str, np.ndarray | Ragged]:
    """What `write_columns` wrote.

    Raises:
        UserError: the file is missing or broken.
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
