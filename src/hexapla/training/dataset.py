"""The parallel table for training at any size: texts by row, and text columns as codes.

The table is written once as an uncompressed Arrow file into the cache and mapped into memory. So its texts stay on
the disk until a batch asks for them, and all processes of a machine share what the system keeps of it.
"""

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from hexapla.io import cache, hashing, tables
from hexapla.schema import UserError, first_line
from hexapla.training.samplers import CodedColumn

_ARROW_STRING_BYTES = 2**31 - 1
"""The most text that one Arrow array of type `string` can hold."""


class PairTable:
    """The rows of a parallel table in their order; `open_table` makes it."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path, self.rows, self._table = path, int(table.num_rows), table

    def encode_column(self, column: str) -> CodedColumn:
        """Encode a text column as codes, numbered in the order in which the texts first occur."""
        texts = self._table[column]
        if (
            texts.nbytes > _ARROW_STRING_BYTES
        ):  # All different texts become one array, which they may overflow.
            texts = texts.cast(pa.large_string())
        encoded = texts.dictionary_encode()
        codes = np.concatenate(
            [np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in encoded.chunks)]
        )
        return CodedColumn(codes, _ArrowTexts(encoded.chunk(0).dictionary) if self.rows else ())

    def texts(self, column: str, rows: Int[np.ndarray, " rows"]) -> list[str]:
        # Row by row, because Arrow's `take` would first copy the whole column into one array.
        texts = self._table[column]
        return [texts[row].as_py() for row in rows.tolist()]

    def negatives(self, rows: Int[np.ndarray, " rows"]) -> list[list[str]]:
        """Passages that don't answer the row's question, in its language; often none."""
        if "negatives" not in self._table.column_names:
            return [[] for _ in rows]
        lists = self._table["negatives"]
        return [lists[row].as_py() or [] for row in rows.tolist()]


class _ArrowTexts(Sequence[str]):
    """An Arrow column that makes each text when it is asked for; millions of Python strings would fill the memory."""

    def __init__(self, texts: pa.Array) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, position: Any) -> Any:
        part = self._texts[position]
        return part.to_pylist() if isinstance(position, slice) else part.as_py()


def open_table(path: Path) -> PairTable:
    """Open the parallel table that `validate` wrote, a file or a folder.

    Raises:
        UserError: a file is missing, broken, or lacks a column; the cache can't be written to.
    """
    schema, rows = tables.schema(path), tables.count_rows(path)
    target = cache.entry("tables", hashing.sha256(path), ".arrow")
    try:
        cache.make_folder(target.parent)
        with target.with_name(f".{target.name}.lock").open("a") as lock:
            # One process of a training writes the file, the others wait for it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (table := _map(target)) is None or table.num_rows != rows or not table.schema.equals(schema):
                with cache.atomic_file(target) as scratch, pa.ipc.new_file(str(scratch), schema) as writer:
                    for batch in tables.stream_batches(path):
                        writer.write_batch(batch)
                table = _map(target)
    except OSError as error:
        reason = first_line(error)
        raise UserError(
            f"{target}: can't be written ({reason}); let HEXAPLA_CACHE name another folder"
        ) from None
    if table is None:
        raise UserError(f"{target}: can't be read back; let HEXAPLA_CACHE name another folder")
    return PairTable(path, table)


def _map(file: Path) -> pa.Table | None:
    """Map an Arrow file into memory; None if it is missing or broken."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        table.validate()
    except (pa.ArrowInvalid, OSError):
        return None
    return table
