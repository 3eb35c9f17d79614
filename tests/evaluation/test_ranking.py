import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.evaluation import ranking
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, UserError


def benchmark(languages=3, ids=5, extra=2):
    """Candidates in blocks of a language: one for each id, and some that answer nothing."""
    names = tuple("abcdefg"[:languages])
    candidates, questions = [], []
    for lang in names:
        for i in range(ids):
            questions.append(BenchmarkQuery(f"q{i}", lang, "", len(candidates) + i))
        candidates += [BenchmarkPassage(lang, "", "")] * (ids + extra)
    return ParallelBenchmark(names, questions, candidates)


def without(data, rng, share):
    """Like MLQA-R: a question exists in some of the languages only."""
    kept = [question for question in data.queries if rng.random() >= share]
    return data._replace(queries=kept or data.queries[:1])


def walk(scores, wanted, pool):
    """The rank of `wanted` among `pool`, by sorting: score first, then position."""
    order = sorted(pool, key=lambda c: (-scores[c], c))
    return order.index(wanted) + 1


def assert_sorted_list(data, ranks, scores):
    """Every rank and every first language is that of a sorted list of scores [questions, candidates]."""
    everything = range(len(data.passages))
    held = {(question.id, question.lang): question.passage for question in data.queries}
    for row, question in enumerate(data.queries):
        best = sorted(everything, key=lambda c: (-scores[row][c], c))[:10]
        assert [data.languages[i] for i in ranks.top[row]] == [data.passages[c].lang for c in best]
        for column, lang in enumerate(data.languages):
            wanted = held.get((question.id, lang))
            alone = [c for c in everything if data.passages[c].lang == lang]
            expected = (0, 0)
            if wanted is not None:
                expected = (walk(scores[row], wanted, alone), walk(scores[row], wanted, everything))
            assert (ranks.single[row, column], ranks.multi[row, column]) == expected


@given(
    st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.sampled_from([0, 0.6])
)
def test_ranks_are_those_of_a_sorted_list_ties_by_position(seed, languages, ids, extra, lacking):
    rng = np.random.default_rng(seed)
    data = without(benchmark(languages, ids, extra), rng, lacking)
    # Few distinct values: most scores are ties, many vectors are equal, and BLAS is exact.
    questions = rng.integers(-1, 2, (len(data.queries), 2)).astype(np.float32)
    candidates = rng.integers(-1, 2, (len(data.passages), 2)).astype(np.float32)
    assert_sorted_list(data, ranking.rank(data, questions, candidates), questions @ candidates.T)


@pytest.mark.parametrize("dim", [7, 33, 100])
def test_equal_candidates_tie_whatever_blas_makes_of_them(dim):
    """BLAS gives equal columns scores that differ in the last bit; the earlier must still lead."""
    data = benchmark(5, 40, 10)
    rng = np.random.default_rng(dim)
    questions = rng.normal(size=(len(data.queries), dim)).astype(np.float32)
    few = rng.normal(size=(6, dim)).astype(np.float32)
    kind = rng.integers(0, 6, len(data.passages))
    ranks = ranking.rank(data, questions, few[kind])
    # Six kinds of candidates, far apart: float64 orders them, and equals are equal here.
    exact = (questions.astype(float) @ few.T.astype(float))[:, kind]
    held = np.array([[q.passage for q in data.queries if q.id == f"q{i}"] for i in range(40)])
    for row, question in enumerate(data.queries):
        for column, wanted in enumerate(held[int(question.id[1:])]):
            assert ranks.multi[row, column] == walk(exact[row], wanted, range(len(data.passages)))


def test_negative_zero_is_zero():
    data = benchmark(1, 2, 0)
    ranks = ranking.rank(data, np.ones((2, 1), np.float32), np.array([[0.0], [-0.0]], np.float32))
    assert ranks.multi.tolist() == [[1], [2]]


def test_a_question_that_a_language_lacks_has_no_rank_there():
    data = benchmark(2, 2, 0)
    data = data._replace(queries=[q for q in data.queries if (q.id, q.lang) != ("q1", "b")])
    ranks = ranking.rank(data, np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32))
    assert (ranks.single == 0).tolist() == [[False, False], [False, True], [False, False]]
    assert (ranks.multi == 0).tolist() == (ranks.single == 0).tolist()
    assert ranks.ids.tolist() == ["q0", "q1", "q0"]
    assert ranks.asked.tolist() == [0, 0, 1]


def test_a_language_without_candidates_and_a_pool_below_ten():
    data = benchmark(1, 2, 1)._replace(languages=("a", "z"))
    ranks = ranking.rank(data, np.eye(2, dtype=np.float32), np.eye(3, 2, dtype=np.float32))
    assert ranks.single.tolist() == [[1, 0], [1, 0]]
    assert ranks.top.tolist() == [[0, 0, 0]] * 2


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


def broken(row, value):
    vectors = np.eye(6, dtype=np.float32)
    vectors[row, 0] = value
    return vectors


GOOD = np.eye(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("questions", "candidates", "message"),
    [
        (GOOD[:5], GOOD, "vectors of the questions have the shape [5, 6], wanted [6, 6]"),
        (GOOD, GOOD[:, :4], "vectors of the candidates have the shape [6, 4], wanted [6, 6]"),
        (GOOD[0], GOOD, "vectors of the questions have the shape [6], wanted [6, 6]"),
        (broken(4, np.nan), GOOD, "questions, row 4 (language b) and 0 others: the vector is not finite"),
        (GOOD, broken(1, np.inf), "candidates, row 1 (language a) and 0 others: the vector is not finite"),
        (broken(0, 1e30), broken(0, 1e30), "inner products of these vectors overflow"),
    ],
)
def test_vectors_that_can_not_be_ranked_are_one_line(questions, candidates, message):
    with pytest.raises(UserError, match=re.escape(message)):
        ranking.rank(benchmark(2, 3, 0), questions, candidates)


def test_candidates_out_of_their_blocks_are_refused():
    data = benchmark(2, 3, 0)
    with pytest.raises(UserError, match="do not stand in blocks"):
        ranking.rank(data._replace(passages=data.passages[::-1]), GOOD, GOOD)
