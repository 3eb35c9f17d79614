"""Embeddings that were computed before: a second run, or one that goes on after a kill, computes only the rest.

The unit is a *window*: a few thousand texts that `embed` encodes together. Each window is one file, named by
a hash of its texts and of everything else that its embeddings depend on, and written atomically. So several
processes may share the folder: equal names hold equal bytes.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from hexapla.io import cache

LIMIT = 20 << 30
"""Bytes that all windows together may take by default."""

_DIGEST = 16
_OURS = re.compile(r"\.?[0-9a-f]{32}\.vectors.*")
"""Names of our files, and of the scratch files that a killed process leaves."""
_log = logging.getLogger(__name__)


def window_key(settings: Mapping[str, str | int], texts: Iterable[str | tuple[str, str]]) -> str:
    """The name of a window: a hash of `settings` and `texts`, in their order.

    Args:
        settings: everything but the texts that the embeddings depend on.
        texts: a pair of texts never has the name of one text, nor of another pair.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for text in texts:
        parts = [part.encode() for part in ((text,) if isinstance(text, str) else text)]
        digest.update(struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts)) + b"".join(parts))
    return digest.hexdigest()


class EmbeddingCache:
    """A folder of windows, bounded for any number of processes that use it at once.

    Args:
        root: the folder; `embeddings` in Hexapla's cache by default.
        limit: bytes. The windows that were used longest ago go first, but never one that was used since this
            object was made: a corpus that is larger than the limit keeps what fits, instead of nothing.
    """

    def __init__(self, root: Path | None = None, *, limit: int = LIMIT) -> None:
        self.root, self.limit = root or cache.cache_root() / "embeddings", limit
        self._opened = time.time_ns()
        self._full = False

    def read(self, key: str, rows: int, dim: int) -> Float32[np.ndarray, "rows dim"] | None:
        """The embeddings of a window; None where there are none, or only a broken file."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, values = data[:_DIGEST], data[_DIGEST:]
        if len(values) != 4 * rows * dim or digest != _checksum(values):
            _log.warning("%s: the file is broken and is dropped; its texts are encoded again", path)
            path.unlink(missing_ok=True)
            return None
        _mark_used(path)
        return np.frombuffer(values, "<f4").reshape(rows, dim)

    def write(self, key: str, embeddings: Float32[np.ndarray, "rows dim"]) -> None:
        """Keep a window. A failure to write costs one warning, and nothing more is kept."""
        if self._full:
            return
        values = np.ascontiguousarray(embeddings, "<f4").tobytes()
        try:
            cache.make_folder(self.root)
            with (self.root / ".lock").open("a") as lock:
                # One process at a time measures and writes, or together they would exceed the limit.
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._full = not self._make_room(_DIGEST + len(values))
                if not self._full:
                    with cache.atomic_file(self._path(key)) as scratch:
                        scratch.write_bytes(_checksum(values) + values)
                    _mark_used(self._path(key))
                else:
                    _log.warning(
                        "%s: full (limit %d bytes); no more embeddings are kept", self.root, self.limit
                    )
        except OSError as error:
            self._full = True
            _log.warning("%s: no embeddings are kept: %s", self.root, error)

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.vectors"

    def _make_room(self, size: int) -> bool:
        """Drop the oldest windows until `size` more bytes fit; False where they do not fit even then."""
        files = [(file.stat(), file.path) for file in os.scandir(self.root) if _OURS.fullmatch(file.name)]
        total = size + sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= self.limit or stat.st_mtime_ns >= self._opened:
                break
            Path(path).unlink(missing_ok=True)
            total -= stat.st_size
        return total <= self.limit


def _checksum(values: bytes) -> bytes:
    return hashlib.blake2b(values, digest_size=_DIGEST).digest()


def _mark_used(path: Path) -> None:
    now = time.time_ns()
    try:
        os.utime(path, ns=(now, now))
    except OSError:  # another process has dropped it meanwhile, or the folder is read-only
        return
