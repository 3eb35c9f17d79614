"""Exact search by inner product over a corpus that does not fit in memory; all that knows FAISS.

What is promised: the hits are the first k of all vectors sorted by (-score, position), where the
score is the inner product in double precision, always summed in one order, rounded to float32.
Nothing else has a say: not how the corpus is cut into shards, which queries are asked together,
the number of threads, BLAS. Vectors whose scores round to the same float32 tie, and the earlier leads.

FAISS by itself promises neither: it may give the later of two equals and drop the earlier at the
cut-off, and a matrix product's last bit depends on the matrix's shape and the column's place in it.
So FAISS only proposes. Its float32 scores are wrong by at most a known bound (Higham 2002, *Accuracy
and Stability of Numerical Algorithms*, 3.5); all vectors that could be hits within that bound are
scored again, and where FAISS's list ends before the bound does, it is asked for a longer one. Where
thousands of vectors are as good as equal (a collapsed model) that costs time, not memory.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import faiss
import numpy as np

from hexapla.schema import UserError

_SPARE = 16
"""How many more than k FAISS is asked for at first."""
_CELLS = 2**20
"""FAISS's hits held at a time; a single query may need a whole shard's."""
_PAIRS = 512
"""Vectors scored again at a time, few enough to stay in the cache."""
_UNIT = 2.0**-24
"""Half a unit in the last place of a float32, relative."""
_TINY = 2.0**-126
"""What a float32 product or sum may lose when numbers that small are flushed to zero."""
_LAST = np.iinfo(np.int64).max


class Hits(NamedTuple):
    """The best of the corpus for each query, best first."""

    scores: np.ndarray
    """float32 [queries, k]."""
    positions: np.ndarray
    """int64 [queries, k], counted over all shards in their order."""


def top_k(queries: np.ndarray, shards: Iterable[np.ndarray], k: int) -> Hits:
    """Search the shards one after another; each is let go before the next is asked for.

    Memory: a shard, the hits, and a few times `_CELLS` numbers. Shards of 50,000 vectors are as fast
    as larger ones.

    Args:
        queries: float32 [queries, dim].
        shards: the corpus as float32 [n, dim] each, n as it comes, 0 too. A generator that keeps no
            shard itself makes memory flat.
        k: how many hits a query gets.

    Raises:
        UserError: the corpus is empty or smaller than k; a vector is not finite, of another dimension
            or type, or so large that inner products overflow. The message names query or shard.
    """
    if k < 1:
        raise UserError(f"k is {k}; a search wants at least 1 hit")
    queries, _ = _checked("queries", queries)
    lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries, dtype=np.float64))
    shape = (len(queries), k)
    best = Hits(np.full(shape, -np.inf, dtype=np.float32), np.full(shape, _LAST, dtype=np.int64))
    total = number = 0
    for shard in shards:
        number += 1  # noqa: SIM113 - enumerate() keeps a shard alive while the next one is made
        vectors, longest = _checked(f"shard {number}", shard, queries.shape[1], total)
        _refuse_overflow(number, float(lengths.max(initial=0)) * longest)
        if len(vectors):
            _search(best, queries, vectors, total, lengths * longest)
        total += len(vectors)
        del shard, vectors
    if total < k:
        raise UserError(_too_few(total, k))
    return best


def _search(best: Hits, queries: np.ndarray, shard: np.ndarray, start: int, products: np.ndarray) -> None:
    """Put a shard's vectors into `best` where they belong; `products`: norms' product [queries]."""
    dim = shard.shape[1]
    # dim roundings of the sum and one of the score itself; a tenth more covers their higher orders.
    margin = 1.1 * (dim + 2) * _UNIT * products + 2 * dim * _TINY
    floor = best.scores[:, -1].copy()
    for owner, rows in _candidates(queries, shard, best.scores.shape[1], floor, margin):
        scores = _exact(queries, shard, owner, rows)
        # A tie with what is held loses: it stands later.
        better = scores > floor[owner]
        _merge(best, owner[better], scores[better], rows[better] + start)


def _candidates(
    queries: np.ndarray, shard: np.ndarray, k: int, floor: np.ndarray, margin: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (query, row of the shard) [pairs] that hold at least every hit; each query comes once.

    A hit's true score is no less than the true k-th of this shard, nor than `floor`, the k-th so far;
    FAISS's score of either side may be off by `margin`.
    """
    waiting = np.arange(len(queries))
    reach = min(len(shard), k + _SPARE)
    while waiting.size:
        longer = []
        group = max(1, _CELLS // reach)
        for first in range(0, len(waiting), group):
            asked = waiting[first : first + group]
            scores, rows = faiss.knn(queries[asked], shard, reach, faiss.METRIC_INNER_PRODUCT)
            bound = floor[asked] - margin[asked]
            if reach >= k:
                bound = np.maximum(bound, scores[:, k - 1] - 2 * margin[asked])
            cut = (scores[:, -1] >= bound) & (reach < len(shard))
            owner, column = np.nonzero((scores >= bound[:, None]) & ~cut[:, None])
            yield asked[owner], rows[owner, column]
            longer.append(asked[cut])
        waiting = np.concatenate(longer)
        reach = min(len(shard), 8 * reach)


def _exact(queries: np.ndarray, shard: np.ndarray, owner: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The scores [pairs] that count. Products of float32 are exact in float64.

    NumPy sums every contiguous row alike (pairwise), however many rows there are; einsum and BLAS
    would not promise that.
    """
    scores = np.empty(len(owner), dtype=np.float32)
    for first in range(0, len(owner), _PAIRS):
        part = slice(first, first + _PAIRS)
        products = queries[owner[part]].astype(np.float64)
        products *= shard[rows[part]]
        scores[part] = products.sum(axis=1)
    return scores


def _merge(best: Hits, owner: np.ndarray, scores: np.ndarray, positions: np.ndarray) -> None:
    """Sort the new [pairs] of some queries in with what these hold, and keep the first k."""
    touched, group = np.unique(owner, return_inverse=True)
    k = best.scores.shape[1]
    group = np.concatenate([np.repeat(np.arange(len(touched)), k), group])
    scores = np.concatenate([best.scores[touched].ravel(), scores])
    positions = np.concatenate([best.positions[touched].ravel(), positions])
    order = np.lexsort((positions, -scores, group))
    starts = np.searchsorted(group[order], np.arange(len(touched)))
    kept = order[starts[:, None] + np.arange(k)]
    best.scores[touched] = scores[kept]
    best.positions[touched] = positions[kept]


# --- what is refused -----------------------------------------------------------------------------


def _checked(
    name: str, vectors: np.ndarray, dim: int | None = None, start: int = 0
) -> tuple[np.ndarray, float]:
    """The vectors, contiguous, and a bound on their longest norm (inf beyond float32)."""
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise UserError(f"{name}: {vectors.dtype} {list(vectors.shape)}, wants float32 [vectors, dimensions]")
    if dim not in (None, vectors.shape[1]):
        raise UserError(
            f"{name}: vectors of {vectors.shape[1]} dimensions, the queries have {dim}; "
            "encode both with one model"
        )
    vectors = np.ascontiguousarray(vectors)
    largest = float(np.einsum("nd,nd->n", vectors, vectors).max(initial=0))
    # Squares beyond float32 are infinite too: only now look at each number.
    if not np.isfinite(largest) and (broken := np.flatnonzero(~np.isfinite(vectors).all(axis=1))).size:
        place = f"vector {broken[0]}" + (f" (position {start + broken[0]})" if start else "")
        raise UserError(
            f"{name}: {place} holds NaN or infinity, {broken.size} of its {len(vectors)} vectors do; "
            "the model has diverged, train it with a lower learning rate"
        )
    return vectors, float(np.sqrt(1.01 * largest + vectors.shape[1] * _TINY))


def _refuse_overflow(number: int, largest: float) -> None:
    if not 1.01 * largest < np.finfo(np.float32).max:
        raise UserError(
            f"shard {number}: inner products with the queries overflow; scale the vectors to unit length"
        )


def _too_few(total: int, k: int) -> str:
    if not total:
        return "the corpus is empty: no vector to search"
    return f"the corpus has {total:,} vectors, fewer than the {k:,} hits wanted; lower k"
