"""The hits are those of a list sorted by score, then by position, however the corpus is cut."""

import re
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexapla.evaluation import search
from hexapla.schema import UserError


def brute_force(queries, corpus, k):
    """NumPy's own product in double precision, all of it, and a stable sort."""
    scores = (queries.astype(np.float64) @ corpus.T.astype(np.float64)).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def cut(corpus, edges):
    return np.split(corpus, sorted(edge % (len(corpus) + 1) for edge in edges))


def unit(rng, *shape):
    vectors = rng.standard_normal(shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def same(hits, scores, positions):
    assert hits.scores.dtype == np.float32
    assert hits.positions.dtype == np.int64
    np.testing.assert_array_equal(hits.positions, positions)
    np.testing.assert_array_equal(hits.scores, scores)


cuts = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 4), cuts, st.data())
def test_many_ties_in_any_sharding(seed, size, dim, edges, data):
    """Whole numbers of a few values: every inner product is exact, nearly all of them tie."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (5, dim)).astype(np.float32)
    corpus = rng.integers(-1, 2, (size, dim)).astype(np.float32)
    k = data.draw(st.integers(1, size))
    same(search.top_k(queries, cut(corpus, edges), k), *brute_force(queries, corpus, k))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 3), cuts)
def test_ties_beyond_what_faiss_is_asked_for_first(seed, kinds, edges):
    rng = np.random.default_rng(seed)
    corpus = unit(rng, kinds, 24)[rng.integers(0, kinds, 300)]
    queries = unit(rng, 3, 24)
    same(search.top_k(queries, cut(corpus, edges), 7), *brute_force(queries, corpus, 7))


@pytest.mark.parametrize("few", [1, 64, 10**9])
def test_ties_beyond_what_is_held_at_a_time(monkeypatch, few):
    monkeypatch.setattr(search, "_CELLS", few)
    corpus = np.ones((500, 3), dtype=np.float32)
    hits = search.top_k(corpus[:4], cut(corpus, [100, 350]), 20)
    np.testing.assert_array_equal(hits.positions, [np.arange(20)] * 4)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([8, 96, 384]), cuts, st.integers(-30, 15))
def test_neither_shards_nor_company_change_a_bit(seed, dim, edges, power):
    """Vectors apart by some last bits, where FAISS's order depends on the matrix's shape."""
    rng = np.random.default_rng(seed)
    near = unit(rng, 3, dim)[rng.integers(0, 3, 400)] + rng.integers(-1, 2, (400, dim)) * np.float32(2e-8)
    corpus, queries = near.astype(np.float32) * np.float32(2.0**power), unit(rng, 30, dim)
    whole = search.top_k(queries, [corpus], 12)
    same(search.top_k(queries, cut(corpus, edges), 12), *whole)
    same(search.top_k(queries[4:5], cut(corpus, edges), 12), whole.scores[4:5], whole.positions[4:5])
    scores, _ = brute_force(queries, corpus, 12)
    np.testing.assert_allclose(whole.scores, scores, rtol=1e-6, atol=1e-7 * 2.0**power)
    # Sorted by the scores that are given, then by position.
    for line, at in zip(*whole, strict=True):
        np.testing.assert_array_equal(np.lexsort((at, -line)), np.arange(12))


def test_random_vectors_against_numpy():
    rng = np.random.default_rng(3)
    corpus, queries = unit(rng, 20_000, 48), unit(rng, 50, 48)
    hits = search.top_k(queries, np.split(corpus, [100, 101, 9000]), 100)
    scores, positions = brute_force(queries, corpus, 100)
    # NumPy's sums have an order of their own: where float64 differs, float32 may round to a neighbour.
    np.testing.assert_allclose(hits.scores, scores, rtol=2e-7)
    assert (hits.positions == positions).mean() > 0.999


def test_smallest_numbers_are_found_too():
    corpus = np.zeros((60, 4), dtype=np.float32)
    corpus[50] = 1e-44
    hits = search.top_k(np.ones((1, 4), dtype=np.float32), [corpus], 3)
    np.testing.assert_array_equal(hits.positions, [[50, 0, 1]])


def test_one_shard_lives_at_a_time():
    alive = []

    def shards():
        for seed in range(4):
            assert not any(reference() is not None for reference in alive)
            shard = unit(np.random.default_rng(seed), 30, 8)
            alive.append(weakref.ref(shard))
            yield shard
            del shard

    search.top_k(unit(np.random.default_rng(9), 2, 8), shards(), 5)
    assert len(alive) == 4


def test_shapes_at_the_edge():
    corpus = unit(np.random.default_rng(1), 10, 4)
    columns = np.asfortranarray(corpus)
    same(search.top_k(columns, [columns[:3], columns[:0], columns[3:]], 10), *brute_force(corpus, corpus, 10))
    none = search.top_k(corpus[:0], [corpus], 3)
    assert none.scores.shape == none.positions.shape == (0, 3)


def broken(value, row=1):
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[row, 2] = value
    return vectors


GOOD = np.ones((3, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("queries", "shards", "k", "message"),
    [
        (GOOD, [GOOD, GOOD], 7, "the corpus has 6 vectors, fewer than the 7 hits wanted; lower k"),
        (GOOD, [GOOD], 0, "k is 0"),
        (GOOD, [], 1, "the corpus is empty"),
        (GOOD, [GOOD[:0]], 1, "the corpus is empty"),
        (broken(np.nan), [GOOD], 1, "queries: vector 1 holds NaN or infinity, 1 of its 3 vectors do"),
        (GOOD, [GOOD, broken(np.inf)], 1, "shard 2: vector 1 (position 4) holds NaN or infinity"),
        (GOOD, [broken(-np.inf, 0)], 1, "shard 1: vector 0 holds NaN"),
        (GOOD, [GOOD, GOOD[:, :2]], 1, "shard 2: vectors of 2 dimensions, the queries have 4"),
        (GOOD, [GOOD.astype(float)], 1, "shard 1: float64 [3, 4], wants float32"),
        (GOOD[0], [GOOD], 1, "queries: float32 [4], wants"),
        (GOOD * 1e30, [GOOD, GOOD * 1e30], 1, "shard 2: inner products with the queries overflow"),
        (GOOD * 1e18, [GOOD * 3e20], 1, "shard 1: inner products with the queries overflow"),
    ],
)
def test_what_does_not_fit_is_one_line(queries, shards, k, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        search.top_k(queries, shards, k)
    assert "\n" not in str(caught.value)
