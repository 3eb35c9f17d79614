"""Folders and arrays on the disk for what is needed while a command runs, and would not fit the memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hexapla.io import cache


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder below `<cache>/<name>` until the block ends; one that a killed command left is removed."""
    with cache.held_folder(cache.cache_root() / name, ".scratch-") as mine:
        yield mine


def array(path: Path, rows: int, kind: np.dtype) -> np.ndarray:
    """An array of zeros, [rows], in a new file: the system keeps in memory what there is room for.

    Raises:
        OSError: the disk is full. It is now that room is taken: where a mapped file is written to and there
            is none, the process is killed.
    """
    if not rows:  # which no file can be mapped to
        return np.zeros(0, kind)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, rows * kind.itemsize)
        else:
            file.truncate(rows * kind.itemsize)
    return np.memmap(path, kind, "r+", shape=(rows,))
