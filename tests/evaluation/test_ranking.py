"""Ranks are those of a list sorted by score, then by position, however the work is cut."""

import re
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexapla.evaluation import ranking
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, UserError


def benchmark(languages=3, ids=5, extra=2):
    """Passages in blocks of a language: one for each id, and some that answer nothing."""
    names = tuple("abcdefg"[:languages])
    passages, questions = [], []
    for lang in names:
        for i in range(ids):
            questions.append(BenchmarkQuery(f"q{i}", lang, "", len(passages) + i))
        passages += [BenchmarkPassage(lang, "", "")] * (ids + extra)
    return ParallelBenchmark(names, questions, passages)


def without(data, rng, share):
    """Like MLQA-R: a question exists in some of the languages only."""
    kept = [question for question in data.queries if rng.random() >= share]
    return data._replace(queries=kept or data.queries[:1])


def walk(scores, wanted, pool):
    """The rank of `wanted` among `pool`, by sorting: score first, then position."""
    order = sorted(pool, key=lambda c: (-scores[c], c))
    return order.index(wanted) + 1


def assert_sorted_list(data, ranks, scores):
    """Every rank and every first language is that of a sorted list of scores [questions, passages]."""
    everything = range(len(data.passages))
    held = {(question.id, question.lang): question.passage for question in data.queries}
    for row, question in enumerate(data.queries):
        best = sorted(everything, key=lambda c: (-scores[row][c], c))[:10]
        assert [data.languages[i] for i in ranks.top_languages[row]] == [data.passages[c].lang for c in best]
        for column, lang in enumerate(data.languages):
            wanted = held.get((question.id, lang))
            alone = [c for c in everything if data.passages[c].lang == lang]
            expected = (0, 0)
            if wanted is not None:
                expected = (walk(scores[row], wanted, alone), walk(scores[row], wanted, everything))
            assert (ranks.in_language[row, column], ranks.in_pool[row, column]) == expected


@given(
    st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.sampled_from([0, 0.6])
)
def test_ranks_are_those_of_a_sorted_list_ties_by_position(seed, languages, ids, extra, lacking):
    rng = np.random.default_rng(seed)
    data = without(benchmark(languages, ids, extra), rng, lacking)
    # Few distinct values: most scores are ties, many vectors are equal, and BLAS is exact.
    questions = rng.integers(-1, 2, (len(data.queries), 2)).astype(np.float32)
    passages = rng.integers(-1, 2, (len(data.passages), 2)).astype(np.float32)
    assert_sorted_list(data, ranking.rank(data, questions, passages), questions @ passages.T)


@pytest.mark.parametrize("dim", [7, 33, 100])
def test_equal_passages_tie_whatever_blas_makes_of_them(dim):
    """BLAS gives equal columns scores that differ in the last bit; the earlier must still lead."""
    data = benchmark(5, 40, 10)
    rng = np.random.default_rng(dim)
    questions = rng.normal(size=(len(data.queries), dim)).astype(np.float32)
    few = rng.normal(size=(6, dim)).astype(np.float32)
    kind = rng.integers(0, 6, len(data.passages))
    ranks = ranking.rank(data, questions, few[kind])
    # Six kinds of passages, far apart: float64 orders them, and equals are equal here.
    exact = (questions.astype(float) @ few.T.astype(float))[:, kind]
    held = np.array([[q.passage for q in data.queries if q.id == f"q{i}"] for i in range(40)])
    for row, question in enumerate(data.queries):
        for column, wanted in enumerate(held[int(question.id[1:])]):
            assert ranks.in_pool[row, column] == walk(exact[row], wanted, range(len(data.passages)))


def test_negative_zero_is_zero():
    data = benchmark(1, 2, 0)
    ranks = ranking.rank(data, np.ones((2, 1), np.float32), np.array([[0.0], [-0.0]], np.float32))
    assert ranks.in_pool.tolist() == [[1], [2]]


def test_a_question_that_a_language_lacks_has_no_rank_there():
    data = benchmark(2, 2, 0)
    data = data._replace(queries=[q for q in data.queries if (q.id, q.lang) != ("q1", "b")])
    ranks = ranking.rank(data, np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32))
    assert (ranks.in_language == 0).tolist() == [[False, False], [False, True], [False, False]]
    assert (ranks.in_pool == 0).tolist() == (ranks.in_language == 0).tolist()
    assert ranks.ids.tolist() == ["q0", "q1", "q0"]
    assert ranks.query_languages.tolist() == [0, 0, 1]


def test_a_language_without_passages_and_a_pool_below_ten():
    data = benchmark(1, 2, 1)._replace(languages=("a", "z"))
    ranks = ranking.rank(data, np.eye(2, dtype=np.float32), np.eye(3, 2, dtype=np.float32))
    assert ranks.in_language.tolist() == [[1, 0], [1, 0]]
    assert ranks.top_languages.tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("bytes_held", [1, 4 * 39 * 4])
def test_chunks_change_nothing(monkeypatch, bytes_held):
    data = benchmark(3, 9, 4)
    rng = np.random.default_rng(0)
    sides = [rng.integers(-9, 9, (len(s), 8)).astype(np.float32) for s in (data.queries, data.passages)]
    whole = ranking.rank(data, *sides)
    monkeypatch.setattr(ranking, "_BYTES", bytes_held)
    for one, other in zip(whole[1:], ranking.rank(data, *sides)[1:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.float64])
def test_other_types_of_number_rank_alike(kind):
    data = benchmark(3, 4, 1)
    rng = np.random.default_rng(1)
    sides = [rng.integers(-3, 4, (len(s), 5)) for s in (data.queries, data.passages)]
    ranks = ranking.rank(data, *[side.astype(kind) for side in sides])
    assert_sorted_list(data, ranks, sides[0] @ sides[1].T)


def break_row(row, value):
    vectors = np.eye(6, dtype=np.float32)
    vectors[row, 0] = value
    return vectors


SIX = np.eye(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("questions", "passages", "message"),
    [
        (SIX[:5], SIX, "embeddings of the queries have the shape [5, 6], but must have [6, 6]"),
        (SIX, SIX[:, :4], "embeddings of the passages have the shape [6, 4], but must have [6, 6]"),
        (SIX[0], SIX, "embeddings of the queries have the shape [6], but must have [6, 6]"),
        (break_row(4, np.nan), SIX, "queries, row 4 (language b) and 0 others: the embedding is not finite"),
        (SIX, break_row(1, np.inf), "passages, row 1 (language a) and 0 others: the embedding is not finite"),
        (break_row(0, 1e30), break_row(0, 1e30), "inner products of these embeddings overflow"),
    ],
)
def test_vectors_that_can_not_be_ranked_are_one_line(questions, passages, message):
    with pytest.raises(UserError, match=re.escape(message)):
        ranking.rank(benchmark(2, 3, 0), questions, passages)


def test_passages_out_of_their_blocks_are_refused():
    data = benchmark(2, 3, 0)
    with pytest.raises(UserError, match="are not in blocks"):
        ranking.rank(data._replace(passages=data.passages[::-1]), SIX, SIX)


# --- a corpus of any size ---


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
    same(ranking.top_k(queries, cut(corpus, edges), k), *brute_force(queries, corpus, k))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 3), cuts)
def test_ties_beyond_what_faiss_is_asked_for_first(seed, kinds, edges):
    rng = np.random.default_rng(seed)
    corpus = unit(rng, kinds, 24)[rng.integers(0, kinds, 300)]
    queries = unit(rng, 3, 24)
    same(ranking.top_k(queries, cut(corpus, edges), 7), *brute_force(queries, corpus, 7))


@pytest.mark.parametrize("few", [1, 64, 10**9])
def test_ties_beyond_what_is_held_at_a_time(monkeypatch, few):
    monkeypatch.setattr(ranking, "_CELLS", few)
    corpus = np.ones((500, 3), dtype=np.float32)
    hits = ranking.top_k(corpus[:4], cut(corpus, [100, 350]), 20)
    np.testing.assert_array_equal(hits.positions, [np.arange(20)] * 4)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([8, 96, 384]), cuts, st.integers(-30, 15))
def test_neither_shards_nor_company_change_a_bit(seed, dim, edges, power):
    """Vectors apart by some last bits, where FAISS's order depends on the matrix's shape."""
    rng = np.random.default_rng(seed)
    near = unit(rng, 3, dim)[rng.integers(0, 3, 400)] + rng.integers(-1, 2, (400, dim)) * np.float32(2e-8)
    corpus, queries = near.astype(np.float32) * np.float32(2.0**power), unit(rng, 30, dim)
    whole = ranking.top_k(queries, [corpus], 12)
    same(ranking.top_k(queries, cut(corpus, edges), 12), *whole)
    same(ranking.top_k(queries[4:5], cut(corpus, edges), 12), whole.scores[4:5], whole.positions[4:5])
    scores, _ = brute_force(queries, corpus, 12)
    np.testing.assert_allclose(whole.scores, scores, rtol=1e-6, atol=1e-7 * 2.0**power)
    # Sorted by the scores that are given, then by position.
    for line, at in zip(*whole, strict=True):
        np.testing.assert_array_equal(np.lexsort((at, -line)), np.arange(12))


def test_random_vectors_against_numpy():
    rng = np.random.default_rng(3)
    corpus, queries = unit(rng, 20_000, 48), unit(rng, 50, 48)
    hits = ranking.top_k(queries, np.split(corpus, [100, 101, 9000]), 100)
    scores, positions = brute_force(queries, corpus, 100)
    # NumPy's sums have an order of their own: where float64 differs, float32 may round to a neighbour.
    np.testing.assert_allclose(hits.scores, scores, rtol=2e-7)
    assert (hits.positions == positions).mean() > 0.999


def test_smallest_numbers_are_found_too():
    corpus = np.zeros((60, 4), dtype=np.float32)
    corpus[50] = 1e-44
    hits = ranking.top_k(np.ones((1, 4), dtype=np.float32), [corpus], 3)
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

    ranking.top_k(unit(np.random.default_rng(9), 2, 8), shards(), 5)
    assert len(alive) == 4


def test_shapes_at_the_edge():
    corpus = unit(np.random.default_rng(1), 10, 4)
    columns = np.asfortranarray(corpus)
    same(
        ranking.top_k(columns, [columns[:3], columns[:0], columns[3:]], 10), *brute_force(corpus, corpus, 10)
    )
    none = ranking.top_k(corpus[:0], [corpus], 3)
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
        ranking.top_k(queries, shards, k)
    assert "\n" not in str(caught.value)
