"""The parallel table, to be trained on at any size: texts by row, and text columns as codes.

A small table is read into memory. A large one is written out once as an uncompressed Arrow file in the
cache, which is mapped: its texts stay on the disk until a batch asks for them, and all processes of a
machine share what the system keeps of it.
"""

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hexapla.io import cache, hashing, tables
from hexapla.schema import UserError, first_line
from hexapla.training.samplers import Codes

SMALL = 64 << 20
"""Bytes of Parquet from which on a table is mapped rather than read."""

_BYTES = 2**31 - 1
"""What the texts of one Arrow array of type string may take."""


class Table:
    """The rows of a file in their order; made by `open`."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path, self.rows, self._table = path, int(table.num_rows), table
        self._chunks = {name: table[name].chunks for name in table.column_names}
        self._starts = {
            name: np.cumsum([0, *map(len, chunks)], dtype=np.int64) for name, chunks in self._chunks.items()
        }

    def codes(self, column: str) -> Codes:
        """A text column as codes, numbered as their texts first come."""
        texts = self._table[column]
        if texts.nbytes > _BYTES:
            # The different ones are put together, and might not fit.
            texts = texts.cast(pa.large_string())
        encoded = texts.dictionary_encode()
        values = np.empty(self.rows, np.int32)
        for start, chunk in zip(self._starts[column], encoded.chunks, strict=False):
            values[start : start + len(chunk)] = chunk.indices.to_numpy()
        return Codes(values, _Names(encoded.chunk(0).dictionary) if self.rows else ())

    def texts(self, column: str, rows: np.ndarray) -> list[str]:
        return [chunk[place].as_py() for chunk, place in self._cells(column, rows)]

    def negatives(self, rows: np.ndarray) -> list[list[str]]:
        """Passages that don't answer the row's question, in its language; often none."""
        if "negatives" not in self._chunks:
            return [[] for _ in rows]
        return [chunk[place].as_py() or [] for chunk, place in self._cells("negatives", rows)]

    def _cells(self, column: str, rows: np.ndarray) -> Iterator[tuple[Any, int]]:
        """Chunk and place in it of each row; Arrow's `take` would first put all chunks together."""
        chunks, starts = self._chunks[column], self._starts[column]
        of = np.searchsorted(starts, rows, side="right") - 1
        return (
            (chunks[chunk], place)
            for chunk, place in zip(of.tolist(), (rows - starts[of]).tolist(), strict=True)
        )


class _Names(Sequence[str]):
    """An Arrow column as texts, each made when asked for: millions of strings would fill the memory."""

    def __init__(self, texts: pa.Array) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self._texts[place].to_pylist()
        return self._texts[int(place)].as_py()


def open(path: Path) -> Table:  # noqa: A001 - said with the module's name
    """The parallel table that `validate` wrote, a file or a folder.

    Raises:
        UserError: a file is missing, broken, or lacks a column; the cache can't be written to.
    """
    if sum(file.stat().st_size for file in tables.table_files(path)) >= SMALL:
        return Table(path, _mapped(path))
    return Table(path, tables.read_pairs(path))


def _mapped(path: Path) -> pa.Table:
    """The table out of the cache, where it is put if it is not there, or not whole."""
    schema, rows = tables.schema(path), tables.count_rows(path)
    target = cache.cache_root() / "tables" / f"{hashing.sha256(path)}.arrow"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("a") as lock:
            # Of the processes of a training one writes, and the others wait.
            fcntl.flock(lock, fcntl.LOCK_EX)
            table = _opened(target, schema, rows)
            if table is None:
                _write(target, path, schema)
                table = _opened(target, schema, rows)
    except OSError as error:
        why = first_line(error)
        raise UserError(
            f"{target}: can't be written ({why}); let HEXAPLA_CACHE name another folder"
        ) from None
    if table is None:
        raise UserError(f"{target}: can't be read back; let HEXAPLA_CACHE name another folder")
    return table


def _write(target: Path, path: Path, schema: pa.Schema) -> None:
    with (
        cache.atomic_file(target) as scratch,
        pa.OSFile(str(scratch), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in tables.stream_batches(path):
            writer.write_batch(batch)


def _opened(target: Path, schema: pa.Schema, rows: int) -> pa.Table | None:
    """The mapped table; None if it is not there, or not that of the Parquet files."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
        table.validate()
    except (pa.ArrowInvalid, OSError):
        return None
    return table if table.num_rows == rows and table.schema.equals(schema) else None
