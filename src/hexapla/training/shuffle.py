"""The order in which ids come to their batches, worked out only where someone looks.

An order of ten million ids is never written down. Its positions go through a bijection (`permuted`) a
block of some batches at a time, so that any step of any epoch costs the same, and nothing that a step
does grows with the data.
"""

from functools import lru_cache

import numpy as np

_ROUNDS = 5
_PILES = 32
"""Batches that a block holds; so many ids may share a passage without meeting in a batch."""
_CYCLE = 1024
"""Batches after which the sources' places, all together, are exactly as their shares."""


def permuted(positions: np.ndarray, size: int, seed: list[int]) -> np.ndarray:
    """Where a pseudo-random permutation of `size` (< 2**32) things sends some positions; int64, like them.

    Multiplications by odd numbers, additions and shifts are bijections of the next power of two; what
    falls outside goes through them again until it falls inside (cycle walking, Black and Rogaway 2002;
    the construction is that of Mitchell et al. 2021, arXiv 2106.06161).
    """
    bits = max(1, (size - 1).bit_length())
    keys = np.random.SeedSequence(seed).generate_state(2 * _ROUNDS, np.uint32)
    rounds = list(zip(keys[:_ROUNDS] | np.uint32(1), keys[_ROUNDS:], strict=True))
    mask, shift = np.uint32((1 << bits) - 1), np.uint32((bits + 1) // 2)

    def scrambled(numbers: np.ndarray) -> np.ndarray:
        for factor, summand in rounds:
            # In place: new arrays would take longer than the arithmetic.
            numbers *= factor
            numbers += summand
            numbers &= mask
            numbers ^= numbers >> shift
        return numbers

    reached = scrambled(positions.astype(np.uint32))
    outside = np.flatnonzero(reached >= size)
    while len(outside):
        again = scrambled(reached[outside])
        reached[outside] = again
        outside = outside[again >= size]
    return reached.astype(np.int64)


class IdOrder:
    """Which ids each batch is offered, as a pure function of (epoch, step).

    Args:
        passages: int [ids], equal for ids that share their passage.
        sources: int [ids], the data set of each.
        size: ids a batch.
        seed: of everything drawn here.
        exponent: a source's share of the places of a batch is proportional to its number of ids to this
            power. 1: an epoch is one order of all ids. Otherwise each source goes through orders of
            its own ids, one after the other, and an epoch takes what its share is.
    """

    def __init__(
        self, passages: np.ndarray, sources: np.ndarray, *, size: int, seed: int, exponent: float
    ) -> None:
        self._passages, self._size, self._seed = passages, size, seed
        seen = np.zeros(int(passages.max(initial=-1)) + 1, bool)
        seen[passages] = True
        self._shared = np.count_nonzero(seen) < len(passages)
        counts = np.bincount(sources)
        counts = counts[counts > 0]
        self._members: list[np.ndarray] = []
        self._lengths = [len(passages)]
        shares = np.ones(1)
        if exponent != 1 and len(counts) > 1:
            by_source = np.argsort(sources, kind="stable").astype(np.int32 if len(sources) < 2**31 else int)
            self._members = np.split(by_source, np.cumsum(counts)[:-1])
            self._lengths = counts.tolist()
            # By the largest, since a power may overflow.
            shares = (counts / counts.max()) ** exponent
        self._piles = np.ceil(size * shares / shares.sum()).astype(int).tolist()
        self._places = _places(shares / shares.sum(), size)
        self._block = lru_cache(maxsize=2 * len(self._lengths) + 2)(self._made)

    def __len__(self) -> int:
        """Batches in an epoch; the ids left over at its end wait for another order."""
        return len(self._passages) // self._size

    def at(self, epoch: int, step: int) -> np.ndarray:
        """The ids that a batch is offered, int [size].

        An id twice, or two of one passage, come rarely: where a source starts over within the batch,
        or where more ids share a passage than a block has batches.
        """
        if not self._members:
            return self._taken(0, epoch * self._lengths[0] + step * self._size, self._size)
        cycle, within = divmod(epoch * len(self) + step, _CYCLE)
        starts = cycle * self._places[-1] + self._places[within]
        counts = self._places[within + 1] - self._places[within]
        parts = [self._taken(*each) for each in zip(range(len(counts)), starts, counts, strict=True)]
        # Mixed, since processes take slices of the batch.
        return np.random.default_rng([self._seed, epoch, step, 0]).permutation(np.concatenate(parts))

    def _taken(self, source: int, start: int, count: int) -> np.ndarray:
        """`count` ids of a source from a place on, counted over all its orders."""
        parts = [np.zeros(0, np.int64)]
        while count:
            cycle, place = divmod(int(start), self._lengths[source])
            block, offset = divmod(place, self._piles[source] * _PILES)
            parts.append(self._block(source, cycle, block)[offset : offset + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _made(self, source: int, cycle: int, block: int) -> np.ndarray:
        """A stretch of a source's order, in which ids that share a passage lie a batch apart."""
        pile, length = self._piles[source], self._lengths[source]
        start = block * pile * _PILES
        seed = [self._seed, source, cycle, 1]
        items = permuted(np.arange(start, min(start + pile * _PILES, length)), length, seed)
        if self._members:
            items = self._members[source][items].astype(np.int64)
        return self._dealt(items, pile, np.random.default_rng([*seed, block])) if self._shared else items

    def _dealt(self, items: np.ndarray, pile: int, rng: np.random.Generator) -> np.ndarray:
        """The ids, those of a passage in a row, dealt out in turn to piles of the size of a batch.

        What is left for the last pile, if it is not a whole one, stays at the end.
        """
        tag = np.uint64((1 << len(items).bit_length()) - 1)
        factor, again, summand = rng.integers(2**64, size=3, dtype=np.uint64) | np.uint64(1)
        # Passages in a random order, and each one's ids in a row: by hash, with the place in its last bits.
        turns = self._passages[items].astype(np.uint64)
        turns *= factor
        turns += summand
        turns ^= turns >> np.uint64(32)
        turns *= again
        turns &= ~tag
        turns |= np.arange(len(items), dtype=np.uint64)
        turns.sort()
        turns &= tag
        items = items[turns.view(np.int64)]
        whole, left = divmod(len(items), pile)
        long, short = np.split(items, [left * (whole + 1)])
        rows = long.reshape(left, whole + 1), short.reshape(pile - left, whole)
        piles = np.concatenate([rows[0][:, :whole], rows[1]]).T
        return np.concatenate([piles[rng.permutation(whole)].ravel(), rows[0][:, whole]])


def _places(shares: np.ndarray, size: int) -> np.ndarray:
    """How many places each source has had before each batch of a cycle, int [batches + 1, sources].

    Systematic sampling: a batch gives a source its share of `size` rounded down or up. The offsets of a
    cycle are all multiples of 1 / _CYCLE, far ones after each other (the golden section).
    """
    edges = np.concatenate([[0.0], np.cumsum(shares)[:-1], [1.0]]) * size
    offsets = np.arange(_CYCLE) * round(_CYCLE * 0.382) % _CYCLE / _CYCLE
    counts = np.diff(np.floor(edges + offsets[:, None]), axis=1).astype(np.int64)
    return np.concatenate([np.zeros((1, len(shares)), np.int64), np.cumsum(counts, axis=0)])
