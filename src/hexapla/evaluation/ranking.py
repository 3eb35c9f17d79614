"""Embeddings to ranks, exactly and in bounded memory: in a parallel benchmark, and in a corpus of any size.

`rank` promises the ranks of a list sorted by score, then by position. Passages with equal embeddings have equal
scores, so they tie and the earlier one leads; BLAS alone does not grant that, since its last bit depends on where in
the matrix a column is. That last bit also depends on processor, BLAS, number of threads and block, so two *different*
passages whose scores are that close may change places between machines. Same machine, same embeddings: same ranks.

`TopKSearch` promises more: its hits are the first k of all passages sorted by (-score, position), where the score is
the inner product in double precision, always summed in one order, rounded to float32. Neither the cut of the corpus
into shards nor the company of other queries, the number of threads or BLAS changes them.

FAISS by itself promises neither: it may give the later of two equals and drop the earlier at the cut-off, and a
matrix product's last bit depends on the matrix's shape. So FAISS only proposes. Its float32 scores are wrong by at
most a known bound (Higham 2002, *Accuracy and Stability of Numerical Algorithms*, 3.5); all passages that could be
hits within that bound are scored again, and where FAISS's list ends before the bound does, it is asked for a longer
one. Where thousands of embeddings are as good as equal (a collapsed model) that costs time, not memory.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, Shaped

from hexapla.schema import ParallelBenchmark, UserError

_TOP = 10
_BYTES = 2**23
"""Scores held at a time, in bytes. Rows are then read again while they are still in the processor's cache."""

_SPARE = 16
"""How many more than k FAISS is asked for at first."""
_CELLS = 2**20
"""FAISS's hits held at a time; a single query may need a whole shard's."""
_PAIRS = 512
"""Embeddings scored again at a time, few enough to stay in the processor's cache."""
_UNIT = 2.0**-24
"""Half a unit in the last place of a float32, relative."""
_TINY = 2.0**-126
"""What a float32 product or sum may lose when numbers that small are flushed to zero."""
_LAST = np.iinfo(np.int64).max


class ParallelRanks(NamedTuple):
    """The ranks of every query's relevant passages in a parallel benchmark; all that the metrics need.

    Column l of `in_language` and `in_pool` is the relevant passage in language l, 0 where there is none.
    """

    languages: tuple[str, ...]
    ids: Shaped[np.ndarray, " queries"]
    """The source question of each query, the same in all of its languages."""
    query_languages: Int64[np.ndarray, " queries"]
    """The language of each query, as a position in `languages`."""
    in_language: Int64[np.ndarray, "queries languages"]
    """The rank among the passages of language l."""
    in_pool: Int64[np.ndarray, "queries languages"]
    """The rank among all passages."""
    top_languages: Int64[np.ndarray, "queries 10"]
    """The languages of the first ten passages; a smaller pool has fewer."""


class JudgedRanks(NamedTuple):
    """The ranks of every query's relevant passages in a benchmark with TREC judgements."""

    languages: tuple[str, ...]
    ids: Shaped[np.ndarray, " queries"]
    query_languages: Int[np.ndarray, " queries"]
    """The language of each query, as a position in `languages`."""
    ranks: Int64[np.ndarray, "queries relevant"]
    """From 1; 0 pads, `schema.UNFOUND` was not retrieved."""
    grades: Int[np.ndarray, "queries relevant"]
    """Above 0 where `ranks` is."""


# --- a parallel benchmark ------------------------------------------------------------------------


def rank(
    benchmark: ParallelBenchmark,
    queries: Float[np.ndarray, "queries dim"],
    passages: Float[np.ndarray, "passages dim"],
) -> ParallelRanks:
    """Rank the relevant passages by inner product.

    Args:
        benchmark: passages in blocks, a language each, in the order of its `languages`.
        queries: in the benchmark's order.
        passages: likewise. Types below float32 are ranked in float32.

    Raises:
        UserError: the embeddings do not fit the benchmark, or are not finite.
    """
    position = {lang: i for i, lang in enumerate(benchmark.languages)}
    query_languages = np.array([position[query.lang] for query in benchmark.queries], dtype=np.int64)
    pool = np.array([position[passage.lang] for passage in benchmark.passages], dtype=np.int64)
    if (np.diff(pool) < 0).any():
        raise UserError("the benchmark's passages are not in blocks, a language each; sort them so")
    queries, passages = _check_sides(benchmark, queries, passages)
    edges = np.searchsorted(pool, np.arange(len(position) + 1)).tolist()
    relevant = _find_relevant(benchmark, pool)
    in_language, in_pool = np.zeros_like(relevant), np.zeros_like(relevant)
    top = np.zeros((len(queries), min(_TOP, len(passages))), dtype=np.int64)
    later, earlier = _find_twins(passages)
    rows = max(1, _BYTES // max(1, len(passages) * passages.itemsize))
    buffer = np.empty((min(rows, len(queries)), len(passages)), dtype=passages.dtype)
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        scores = np.matmul(queries[part], passages.T, out=buffer[: len(queries[part])])
        scores[:, later] = scores[:, earlier]
        in_language[part], in_pool[part] = _count_ranks(scores, relevant[part], edges)
        top[part] = pool[_find_best(scores, top.shape[1])]
    ids = np.array([query.id for query in benchmark.queries], dtype=np.str_)
    return ParallelRanks(benchmark.languages, ids, query_languages, in_language, in_pool, top)


def _check_sides(
    benchmark: ParallelBenchmark, queries: np.ndarray, passages: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides in one floating type that BLAS knows."""
    for name, vectors, texts in (
        ("queries", queries, benchmark.queries),
        ("passages", passages, benchmark.passages),
    ):
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] != queries.shape[1]:
            raise UserError(
                f"the embeddings of the {name} have the shape {list(vectors.shape)}, but must have "
                f"[{len(texts)}, {queries.shape[-1]}]; encode this benchmark again"
            )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:
            raise UserError(
                f"{name}, row {broken[0]} (language {texts[broken[0]].lang}) and {broken.size - 1} others: "
                "the embedding is not finite; the model has diverged, train it with a lower learning rate"
            )
    kind = np.result_type(queries.dtype, passages.dtype, np.float32)
    sides = np.ascontiguousarray(queries, dtype=kind), np.ascontiguousarray(passages, dtype=kind)
    largest, other = (float(np.abs(side).max(initial=0)) for side in sides)
    if largest * other * queries.shape[1] > float(np.finfo(kind).max):
        raise UserError("inner products of these embeddings overflow; scale them to unit length")
    return sides


def _find_relevant(benchmark: ParallelBenchmark, pool: np.ndarray) -> np.ndarray:
    """Int64 [queries, languages]: the relevant passage in each language, -1 where there is none."""
    relevant = np.full((len(benchmark.queries), len(benchmark.languages)), -1, dtype=np.int64)
    by_id = benchmark.relevant
    for row, query in enumerate(benchmark.queries):
        passages = by_id[query.id]
        relevant[row, pool[passages]] = passages
    return relevant


def _find_twins(passages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int [twins] twice: passages whose embedding occurred before, and where it occurred first."""
    first: dict[bytes, int] = {}
    # Adding zero makes -0.0 and 0.0, which are equal, the same bytes.
    same = np.array([first.setdefault(line.tobytes(), i) for i, line in enumerate(passages + 0)], dtype=int)
    later = np.flatnonzero(same != np.arange(len(same)))
    return later, same[later]


def _count_ranks(scores: np.ndarray, relevant: np.ndarray, edges: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rank every relevant passage in its language and in the whole pool, by counting instead of sorting.

    Ties need no second look: an earlier passage is ahead when its score is at least the relevant one's, a later
    one when it is greater. One row of scores stays in the processor's cache for all languages, so a loop in Python
    over rows is faster here than whole matrices.
    """
    in_language, in_pool = np.zeros_like(relevant), np.zeros_like(relevant)
    ahead = np.empty(scores.shape[1], dtype=np.bool_)
    for row, (line, passages) in enumerate(zip(scores, relevant.tolist(), strict=True)):
        for language, at in enumerate(passages):
            if at >= 0:
                np.greater_equal(line[:at], line[at], out=ahead[:at])
                np.greater(line[at:], line[at], out=ahead[at:])
                alone = ahead[edges[language] : edges[language + 1]]
                in_language[row, language] = 1 + np.count_nonzero(alone)
                in_pool[row, language] = 1 + np.count_nonzero(ahead)
    return in_language, in_pool


def _find_best(scores: np.ndarray, k: int) -> np.ndarray:
    """Int64 [queries, k], the best passages; of equals, the earlier ones."""
    best = np.empty((len(scores), k), dtype=np.int64)
    least = np.partition(scores, -k, axis=1)[:, -k]
    for row, (line, bound) in enumerate(zip(scores, least, strict=True)):
        at_least = np.flatnonzero(line >= bound)
        best[row] = at_least[np.argsort(-line[at_least], kind="stable")[:k]]
    return best


# --- a corpus of any size --------------------------------------------------------------------------


class Hits(NamedTuple):
    """The best of the corpus for each query, best first."""

    scores: Float32[np.ndarray, "queries k"]
    positions: Int64[np.ndarray, "queries k"]
    """Counted over all shards in their order."""


def top_k(
    queries: Float32[np.ndarray, "queries dim"], shards: Iterable[Float32[np.ndarray, "passages dim"]], k: int
) -> Hits:
    """Search the shards one after another; each is freed before the next is asked for, if it is a generator's.

    Raises:
        UserError: as `TopKSearch` does.
    """
    search = TopKSearch(queries, k)
    for shard in shards:
        search.add(shard)
        del shard
    return search.hits()


class TopKSearch:
    """A search that is fed shard by shard, so that the corpus need not fit in memory.

    Memory: a shard, the hits, and a few times `_CELLS` numbers. Shards of 50,000 vectors are as fast as larger ones.

    Args:
        queries: embeddings.
        k: how many hits each query gets.

    Raises:
        UserError: an embedding is not finite, or not a float32.
    """

    def __init__(self, queries: Float32[np.ndarray, "queries dim"], k: int) -> None:
        if k < 1:
            raise UserError(f"k is {k}; a search needs at least 1 hit")
        self._queries, _ = _check_vectors("queries", queries)
        self._lengths = np.sqrt(np.einsum("qd,qd->q", self._queries, self._queries, dtype=np.float64))
        shape = (len(self._queries), k)
        self._best = Hits(np.full(shape, -np.inf, np.float32), np.full(shape, _LAST, np.int64))
        self._total = self._shards = 0

    def add(self, shard: Float32[np.ndarray, "passages dim"]) -> None:
        """Search the next shard of the corpus; it may be empty.

        Raises:
            UserError: an embedding is not finite, of another dimension or type, or so large that inner products
                overflow. The message names the shard.
        """
        self._shards += 1
        name = f"shard {self._shards}"
        vectors, longest = _check_vectors(name, shard, self._queries.shape[1], self._total)
        if not 1.01 * float(self._lengths.max(initial=0)) * longest < np.finfo(np.float32).max:
            raise UserError(
                f"{name}: inner products with the queries overflow; scale the vectors to unit length"
            )
        if len(vectors):
            self._search(vectors, self._lengths * longest)
        self._total += len(vectors)

    def hits(self) -> Hits:
        """Return the best of all shards so far.

        Raises:
            UserError: the corpus is empty or smaller than k.
        """
        k = self._best.scores.shape[1]
        if not self._total:
            raise UserError("the corpus is empty: no vector to search")
        if self._total < k:
            raise UserError(
                f"the corpus has {self._total:,} vectors, fewer than the {k:,} hits wanted; lower k"
            )
        return self._best

    def _search(self, shard: np.ndarray, products: np.ndarray) -> None:
        """Sort a shard's vectors into the best; `products` [queries] bounds the products of norms."""
        dim = shard.shape[1]
        # dim roundings of the sum and one of the score itself; a tenth more covers their higher orders.
        margin = 1.1 * (dim + 2) * _UNIT * products + 2 * dim * _TINY
        floor = self._best.scores[:, -1].copy()
        for owner, rows in _propose(self._queries, shard, self._best.scores.shape[1], floor, margin):
            scores = _score(self._queries, shard, owner, rows)
            # A tie with an earlier hit loses: the new passage comes later.
            better = scores > floor[owner]
            _merge(self._best, owner[better], scores[better], rows[better] + self._total)


def _propose(
    queries: np.ndarray, shard: np.ndarray, k: int, floor: np.ndarray, margin: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs (query, row of the shard) [pairs] that include every hit; each query comes once.

    A hit's true score is no less than the true k-th of this shard, nor than `floor`, the k-th so far; FAISS's score
    of either side may be off by `margin`.
    """
    import faiss

    waiting = np.arange(len(queries))
    reach = min(len(shard), k + _SPARE)
    while waiting.size:
        longer = []
        group = max(1, _CELLS // reach)
        for first in range(0, len(waiting), group):
            some = waiting[first : first + group]
            scores, rows = faiss.knn(queries[some], shard, reach, faiss.METRIC_INNER_PRODUCT)
            bound = floor[some] - margin[some]
            if reach >= k:
                bound = np.maximum(bound, scores[:, k - 1] - 2 * margin[some])
            cut = (scores[:, -1] >= bound) & (reach < len(shard))
            owner, column = np.nonzero((scores >= bound[:, None]) & ~cut[:, None])
            yield some[owner], rows[owner, column]
            longer.append(some[cut])
        waiting = np.concatenate(longer)
        reach = min(len(shard), 8 * reach)


def _score(queries: np.ndarray, shard: np.ndarray, owner: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute the scores [pairs] that count. Products of float32 are exact in float64.

    NumPy sums every contiguous row alike (pairwise), however many rows there are; einsum and BLAS would not promise
    that.
    """
    scores = np.empty(len(owner), dtype=np.float32)
    for first in range(0, len(owner), _PAIRS):
        part = slice(first, first + _PAIRS)
        products = queries[owner[part]].astype(np.float64)
        products *= shard[rows[part]]
        scores[part] = products.sum(axis=1)
    return scores


def _merge(best: Hits, owner: np.ndarray, scores: np.ndarray, positions: np.ndarray) -> None:
    """Sort the new [pairs] of some queries in with their hits so far, and keep the first k."""
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


def _check_vectors(
    name: str, vectors: np.ndarray, dim: int | None = None, start: int = 0
) -> tuple[np.ndarray, float]:
    """Return the vectors, contiguous, and a bound on their longest norm (inf beyond float32)."""
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise UserError(f"{name}: {vectors.dtype} {list(vectors.shape)}, wants float32 [vectors, dimensions]")
    if dim not in (None, vectors.shape[1]):
        raise UserError(
            f"{name}: vectors of {vectors.shape[1]} dimensions, the queries have {dim}; "
            "encode both with one model"
        )
    vectors = np.ascontiguousarray(vectors)
    largest = float(np.einsum("nd,nd->n", vectors, vectors).max(initial=0))
    # Squares beyond float32 are infinite too, so only now is each number checked.
    if not np.isfinite(largest) and (broken := np.flatnonzero(~np.isfinite(vectors).all(axis=1))).size:
        place = f"vector {broken[0]}" + (f" (position {start + broken[0]})" if start else "")
        raise UserError(
            f"{name}: {place} holds NaN or infinity, {broken.size} of its {len(vectors)} vectors do; "
            "the model has diverged, train it with a lower learning rate"
        )
    return vectors, float(np.sqrt(1.01 * largest + vectors.shape[1] * _TINY))
