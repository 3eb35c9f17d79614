"""Hashes of texts, files and settings, and the search for duplicates by hash.

Duplicates are found by 16 bytes of each text's hash, so the texts themselves are not held; the hashes may
exceed the memory, since only a part of them is sorted at a time.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

_SORTED_AT_ONCE = 1 << 22
"""Keys that are sorted at a time; with what sorting needs about 200 MB."""


def sha256(path: Path) -> str:
    """Hash a file's bytes, or the names and bytes of all files in a folder in the order of their names."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def key(*parts: Any) -> str:
    """Hash values that JSON can hold; a mapping's order does not count. For the names of cache entries."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests(texts: Iterable[str]) -> UInt64[np.ndarray, "texts 2"]:
    """Hash each text to 16 bytes by BLAKE2b."""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def first_occurrences(keys: UInt64[np.ndarray, "keys 2"]) -> Int64[np.ndarray, " keys"]:
    """For each key, the index of the first key that equals it.

    Args:
        keys: evenly distributed, as hashes are; may be a mapped file. Among the hashes of 10 million
            different texts, two are equal with a probability of 1e-25.
    """
    first = np.empty(len(keys), np.int64)
    parts = max(1, -(-len(keys) // _SORTED_AT_ONCE))
    for part in range(parts):
        indices = _part(keys, part, parts)
        own = np.ascontiguousarray(keys[indices])
        order = np.lexsort((own[:, 1], own[:, 0]))  # Stable: equal keys keep the order of their indices.
        ordered = own[order]
        starts = np.ones(len(indices), bool)
        starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        leaders = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        first[indices[order]] = indices[order[leaders]]
    return first


def _part(keys: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Indices of the keys in one of `parts` about equal parts; equal keys are in the same part."""
    if parts == 1:
        return np.arange(len(keys))
    starts = range(0, len(keys), _SORTED_AT_ONCE)
    indices = [np.flatnonzero(keys[at : at + _SORTED_AT_ONCE, 0] % parts == part) + at for at in starts]
    return np.concatenate(indices)
