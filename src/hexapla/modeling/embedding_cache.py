"""A store of vectors that were computed once: a second run, or one that goes on, computes only the rest.

A vector depends on more than its text, so each combination of model, prompt, length, precision and
versions has a folder of its own, a *shelf*. A shelf is a set of *shards*, immutable files that appear
whole. Layout of a shard, little-endian, for n vectors:

    magic, n, dim, CRC-32 of the index          64 bytes
    index: digests of the texts, sorted         n x 16 bytes
           checks, a parity of each vector      n x 4 bytes
    zeros up to a multiple of 64 bytes
    vectors, float32                            n x dim x 4 bytes

Shards are mapped, not read: memory stays flat however many vectors there are.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hexapla.io import cache as store

LIMIT = 20 << 30
"""Bytes that all shelves may take together by default."""

_HEADER = struct.Struct("<8sQII40x")
_MAGIC = b"HEXAVEC1"
_DIGEST = np.dtype("S16")
_SMALL = 1 << 16
_MANY = 16
_log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """A mapped file."""

    path: Path
    digests: np.ndarray
    checks: np.ndarray
    vectors: np.ndarray


class Found(NamedTuple):
    """Where the vectors of some texts lie: int32 [texts] each; shard -1 is nowhere."""

    shards: np.ndarray
    rows: np.ndarray


def digests(texts: Iterable[str | tuple[str, str]]) -> np.ndarray:
    """16 bytes of BLAKE2b for each text or pair; a pair is never mistaken for a text."""
    whole = b"".join(hashlib.blake2b(_bytes(text), digest_size=16).digest() for text in texts)
    return np.frombuffer(whole, _DIGEST)


def _bytes(text: str | tuple[str, str]) -> bytes:
    if isinstance(text, str):
        return b"1" + text.encode("utf-8", "surrogatepass")
    first, second = (part.encode("utf-8", "surrogatepass") for part in text)
    return b"2" + struct.pack("<Q", len(first)) + first + second


class Cache:
    """All shelves under one folder, bounded together.

    Args:
        root: the folder; `store.cache_root()` by default.
        limit: bytes; the shelves whose last use is longest ago go first, one in use never goes.
    """

    def __init__(self, root: Path | None = None, *, limit: int = LIMIT) -> None:
        self.root, self.limit = root or store.cache_root(), limit
        self._size = -1

    @contextmanager
    def shelf(self, key: Mapping[str, str | int]) -> Iterator["Shelf | None"]:
        """The shelf of what `key` tells: everything, beside the text, that a vector depends on.

        None, with a warning, where the folder can't be written to.
        """
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "about.json").is_file():
                store.write_json(folder / "about.json", dict(key))
            lock = (folder / "lock").open("a")
        except OSError as error:
            _log.warning("%s: no vectors are kept: %s", self.root, error)
            yield None
            return
        with lock:
            # Shared by all who use the shelf; whoever wants to drop it needs it alone.
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(folder / "lock")
            yield Shelf(folder, self)

    def room(self, size: int) -> bool:
        """Count `size` more bytes, dropping old shelves if need be; False when they don't fit even so."""
        if self._size < 0 or self._size + size > self.limit:
            self._size = self._measured(self.limit - size)
        if self._size + size > self.limit:
            return False
        self._size += size
        return True

    def _measured(self, wanted: int) -> int:
        """Bytes on disk, after dropping shelves until no more than `wanted` are left, or none can go."""
        sizes = {
            folder: sum(_size(file) for file in folder.glob("*.vectors"))
            for folder in self.root.iterdir()
            if re.fullmatch("[0-9a-f]{32}", folder.name) and (folder / "lock").is_file()
        }
        total = sum(sizes.values())
        for folder in sorted(sizes, key=lambda folder: (folder / "lock").stat().st_mtime_ns):
            if total <= wanted:
                break
            if sizes[folder] and _dropped(folder):
                total -= sizes[folder]
        return total


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # merged away by another process since it was listed
        return 0


def _dropped(folder: Path) -> bool:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(folder, ignore_errors=True)
    return True


class Shelf:
    """Vectors of one model, prompt, length and precision; made by `Cache.shelf`."""

    def __init__(self, folder: Path, cache: Cache) -> None:
        self.folder, self._cache, self._full = folder, cache, False
        self._shards = [shard for path in sorted(folder.glob("*.vectors")) if (shard := _opened(path))]
        small = [shard for shard in self._shards if len(shard.digests) < _SMALL]
        if len(small) > _MANY:
            self._merge(small)

    def find(self, wanted: np.ndarray) -> Found:
        """Look `wanted` (digests, each once) up in every shard."""
        found = Found(np.full(len(wanted), -1, np.int32), np.zeros(len(wanted), np.int32))
        order = np.argsort(wanted)
        ascending = wanted[order]
        for number, shard in enumerate(self._shards):
            if len(shard.digests) < len(wanted):
                at = np.searchsorted(ascending, shard.digests)
                rows = np.flatnonzero(ascending[np.minimum(at, len(wanted) - 1)] == shard.digests)
                held = order[at[rows]]
            else:
                at = np.minimum(np.searchsorted(shard.digests, ascending), len(shard.digests) - 1)
                hit = shard.digests[at] == ascending
                rows, held = at[hit], order[hit]
            found.shards[held], found.rows[held] = number, rows
        return found

    def read(self, found: Found, into: np.ndarray) -> np.ndarray:
        """Copy what was found to the same rows of `into`; bool [texts], which of them are there now."""
        there = np.zeros(len(found.shards), bool)
        for number in np.unique(found.shards[found.shards >= 0]):
            shard = self._shards[number]
            held = np.flatnonzero(found.shards == number)
            rows = found.rows[held]
            vectors = shard.vectors[rows]
            if vectors.shape[1] != into.shape[1] or (_parity(vectors) != shard.checks[rows]).any():
                _broken(shard.path)
                continue
            into[held], there[held] = vectors, True
        return there

    def add(self, names: np.ndarray, vectors: np.ndarray) -> None:
        """Keep `vectors` under their texts' digests. What can't be written costs a warning, once."""
        if self._full or not len(names):
            return
        size = _HEADER.size + len(names) * (20 + vectors.shape[1] * 4)
        try:
            self._full = not self._cache.room(size)
            if self._full:
                _log.warning(
                    "%s: full (limit %d bytes); going on without", self._cache.root, self._cache.limit
                )
                return
            order = np.argsort(names)
            _write(self.folder, names[order], _parity(vectors)[order], vectors[order])
        except OSError as error:
            self._full = True
            _log.warning("%s: vectors can't be kept: %s", self.folder, error)

    def _merge(self, small: list[Shard]) -> None:
        """Many small shards become few: each is one more place to look in."""
        rest = [shard for shard in self._shards if len(shard.digests) >= _SMALL]
        groups: list[list[Shard]] = [[]]
        for shard in small:
            if sum(len(held.digests) for held in groups[-1]) + len(shard.digests) > 2 * _SMALL:
                groups.append([])
            groups[-1].append(shard)
        try:
            for group in groups:
                names, first = np.unique(np.concatenate([s.digests for s in group]), return_index=True)
                checks, vectors = (np.concatenate([s[i] for s in group])[first] for i in (2, 3))
                path = _write(self.folder, names, checks, vectors)
                for shard in group:
                    if shard.path != path:
                        shard.path.unlink(missing_ok=True)
                rest += [shard for shard in [_opened(path)] if shard]
        except (OSError, ValueError):
            # A full disk, or shards of different widths: what lies there is still good to use.
            return
        self._shards = rest


def _parity(vectors: np.ndarray) -> np.ndarray:
    """uint32 [rows]: changes with any single bit of a row."""
    bits = np.ascontiguousarray(vectors, "<f4").view("<u4")
    return np.asarray(np.bitwise_xor.reduce(bits, axis=1), np.uint32)


def _write(folder: Path, names: np.ndarray, checks: np.ndarray, vectors: np.ndarray) -> Path:
    """The file is named after its digests: two processes that write the same end with one file."""
    index = names.tobytes() + checks.astype("<u4").tobytes()
    name = hashlib.blake2b(names.tobytes(), digest_size=16).hexdigest()
    path = folder / f"{name}.vectors"
    with store.atomic_file(path) as scratch, scratch.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, len(names), vectors.shape[1], zlib.crc32(index)))
        file.write(index + bytes(-len(index) % 64))
        file.write(np.ascontiguousarray(vectors, "<f4").data)
    return path


def _opened(path: Path) -> Shard | None:
    """None for a file that is broken, or that another process has merged away since."""
    try:
        whole = np.memmap(path, np.uint8, "r")
        magic, rows, dim, crc = _HEADER.unpack(bytes(whole[: _HEADER.size]))
        end = _HEADER.size + rows * 20
        start = end + -end % 64
        if magic != _MAGIC or len(whole) != start + rows * dim * 4 or zlib.crc32(whole[64:end].data) != crc:
            raise ValueError("not as long as it says, or other bytes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error):
        _broken(path)
        return None
    names = whole[64 : 64 + rows * 16].view(_DIGEST)
    return Shard(
        path, names, whole[64 + rows * 16 : end].view("<u4"), whole[start:].view("<f4").reshape(rows, dim)
    )


def _broken(path: Path) -> None:
    _log.warning("%s: broken, dropped; its texts are encoded anew", path)
    path.unlink(missing_ok=True)
