"""Which keys were there before: the one question that removing duplicates, at any size, comes down to.

Texts are compared by 16 bytes of a hash, so that they need not be held; keys may be more than the memory
holds and are looked at a share at a time.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

_AT_ONCE = 1 << 22
"""Keys that are sorted at a time, about 200 MB with what sorting needs."""


def digests(texts: Iterable[str]) -> np.ndarray:
    """16 bytes of BLAKE2b of each text, uint64 [texts, 2]."""
    whole = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(whole, "<u8").reshape(-1, 2)


def first(keys: np.ndarray) -> np.ndarray:
    """For each key the place of the first that equals it, int64 [keys].

    Args:
        keys: uint64 [keys, 2], evenly spread as hashes are; may be a mapped file. At 10 million different
            texts, two of them having one key has a probability of 1e-25.
    """
    found = np.empty(len(keys), np.int64)
    shares = max(1, -(-len(keys) // _AT_ONCE))
    for share in range(shares):
        places = _share(keys, share, shares)
        mine = np.ascontiguousarray(keys[places])
        order = np.lexsort((mine[:, 1], mine[:, 0]))  # stable: equal keys stay in the order of their places
        ordered = mine[order]
        starts = np.ones(len(places), bool)
        starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        leaders = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        found[places[order]] = places[order[leaders]]
    return found


def _share(keys: np.ndarray, share: int, shares: int) -> np.ndarray:
    """Places of the keys that belong to one of `shares` equal parts, found a stretch at a time."""
    if shares == 1:
        return np.arange(len(keys))
    stretches = range(0, len(keys), _AT_ONCE)
    found = [np.flatnonzero(keys[at : at + _AT_ONCE, 0] % shares == share) + at for at in stretches]
    return np.concatenate(found)
