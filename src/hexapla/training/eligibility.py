"""What an id must have to stand in a batch: which ids do, others in place of those that don't, languages."""

from typing import NamedTuple

import numpy as np

_RARE = 1 / 8
"""Ids are drawn until they fit; where fewer than this share do, they are drawn from a list."""
_SAMPLE = 1 << 16


class Need(NamedTuple):
    """At least `least` of some languages; made by `need`."""

    rows: np.ndarray
    """int [ids, languages], negative where the id lacks the language."""
    passages: np.ndarray
    """int [ids], equal for ids that share their passage."""
    languages: np.ndarray
    """int: columns of `rows`."""
    least: int
    fitting: np.ndarray
    """The ids that have them, where these are rare; empty otherwise."""

    def has(self, items: np.ndarray) -> np.ndarray:
        """Which of the languages they have, bool [items, languages]."""
        if len(self.languages) == 1:
            return np.asarray(self.rows[items, self.languages[0]] >= 0)[:, None]
        # Whole rows first: they lie together in memory.
        return np.asarray(self.rows.take(items, axis=0)[:, self.languages] >= 0)

    def fits(self, items: np.ndarray) -> np.ndarray:
        """Which of them have enough, bool [items]."""
        has = self.has(items)
        return has[:, 0] if has.shape[1] == self.least == 1 else has.sum(axis=1) >= self.least


def need(rows: np.ndarray, passages: np.ndarray, languages: np.ndarray, least: int) -> Need:
    """The need of `least` of some languages, and where to look for ids that meet it."""
    made = Need(rows, passages, languages, least, np.zeros(0, np.int32))
    sample = np.arange(0, len(rows), max(1, len(rows) // _SAMPLE))
    if np.count_nonzero(made.fits(sample)) >= _RARE * len(sample):
        return made
    chunks = [np.arange(start, min(start + _SAMPLE, len(rows))) for start in range(0, len(rows), _SAMPLE)]
    fitting = [chunk[made.fits(chunk)].astype(np.int32) for chunk in chunks]
    return made._replace(fitting=np.concatenate(fitting))


def different(need: Need, wanted: int) -> int:
    """How many different passages the fitting ids have; counting stops when `wanted` are reached."""
    step = max(1, len(need.rows) // (4 * wanted))
    while True:
        items = np.arange(0, len(need.rows), step)
        found = len(np.unique(need.passages[items[need.fits(items)]]))
        if found >= wanted or step == 1:
            return found
        step = max(1, step // 8)


def filled(need: Need, items: np.ndarray, fits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`items`, with others that meet the need in place of those that don't fit, or repeat a passage.

    Args:
        need: met by ids of at least len(items) different passages.
        items: int [batch].
        fits: bool [batch], which of them may stay.
        rng: draws the others.
    """
    kept = np.flatnonzero(fits)
    kept = kept[_firsts(need.passages[items[kept]])]
    if len(kept) == len(items):
        return items
    missing = np.ones(len(items), bool)
    missing[kept] = False
    found, size = items[kept], 2 * (len(items) - len(kept))
    while len(found) < len(items):
        drawn = _candidates(need, size, rng)
        found = np.concatenate([found, drawn[need.fits(drawn)]])
        found = found[_firsts(need.passages[found])]
        size *= 4
    items = items.copy()
    items[missing] = found[len(kept) : len(items)]
    return items


def _candidates(need: Need, size: int, rng: np.random.Generator) -> np.ndarray:
    """Some ids at random; all of them, when as many are asked for."""
    known = len(need.fitting)
    count = known or len(need.rows)
    places = rng.permutation(count) if size >= count else rng.integers(count, size=size)
    return need.fitting[places].astype(np.int64) if known else places


def _firsts(values: np.ndarray) -> np.ndarray:
    """Which of some int32 values are there for the first time, bool [values]."""
    ascending = np.sort(values)
    if (ascending[1:] != ascending[:-1]).all():
        return np.ones(len(values), bool)
    # Value and place in one number: a sort of numbers is many times as fast as numpy.unique.
    tagged = np.sort(values.astype(np.int64) << 32 | np.arange(len(values)))
    first = np.ones(len(values), bool)
    again = tagged[1:][tagged[1:] >> 32 == tagged[:-1] >> 32]
    first[again & 0xFFFFFFFF] = False
    return first


def languages(
    need: Need, items: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """For each id `count` different ones of its own languages, int [items, count], columns of `rows`.

    They are drawn one after the other, each in proportion to its weight among what is left: the order
    in which exponential clocks with these rates ring (Efraimidis and Spirakis 2006).
    """
    rings = rng.standard_exponential((len(items), len(weights)), np.float32) / weights.astype(np.float32)
    rings[~need.has(items)] = np.inf
    drawn = np.empty((len(items), count), np.int64)
    everyone = np.arange(len(items))
    for place in range(count):
        drawn[:, place] = rings.argmin(axis=1)
        rings[everyone, drawn[:, place]] = np.inf
    return need.languages[drawn]
