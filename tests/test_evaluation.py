import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla import evaluation
from hexapla.benchmarks import Candidate, Question, Retrieval


def benchmark(languages=3, ids=5, extra=2):
    """Candidates in blocks of a language: one for each id, and some that answer nothing."""
    names = tuple("abcdefg"[:languages])
    candidates, questions = [], []
    for lang in names:
        for i in range(ids):
            questions.append(Question(f"q{i}", lang, "", len(candidates) + i))
        candidates += [Candidate(lang, "", "")] * (ids + extra)
    return Retrieval(names, questions, candidates)


def walk(scores, wanted, pool):
    """The rank of `wanted` among `pool`, by sorting: score first, then position."""
    order = sorted(pool, key=lambda c: (-scores[c], c))
    return order.index(wanted) + 1


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_ranks_are_those_of_a_sorted_list_ties_by_position(seed, languages, ids, extra):
    data = benchmark(languages, ids, extra)
    rng = np.random.default_rng(seed)
    # Few distinct values: most scores are ties.
    questions = rng.integers(-1, 2, (len(data.questions), 2)).astype(np.float32)
    candidates = rng.integers(-1, 2, (len(data.candidates), 2)).astype(np.float32)
    ranks = evaluation.rank(data, questions, candidates)
    everything = range(len(data.candidates))
    for row, question in enumerate(data.questions):
        scores = candidates @ questions[row]
        best = sorted(everything, key=lambda c: (-scores[c], c))[:10]
        assert [data.languages[i] for i in ranks.top_languages[row]] == [
            data.candidates[c].lang for c in best
        ]
        for column, lang in enumerate(data.languages):
            wanted = next(q.candidate for q in data.questions if (q.id, q.lang) == (question.id, lang))
            alone = [c for c in everything if data.candidates[c].lang == lang]
            assert ranks.single[row, column] == walk(scores, wanted, alone)
            assert ranks.multi[row, column] == walk(scores, wanted, everything)


def test_a_question_that_a_language_lacks_is_left_out_there():
    data = benchmark(2, 2, 0)
    data = data._replace(questions=[q for q in data.questions if (q.id, q.lang) != ("q1", "b")])
    ranks = evaluation.rank(data, np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32))
    assert (ranks.single == 0).tolist() == [[False, False], [False, True], [False, False]]
    parts = evaluation.figures(ranks)
    assert set(parts["cross"]["map"]) == {"a-b", "b-a"}
    assert all(value is not None for value in parts["cross"]["map"].values())


def test_headline_by_hand():
    """Two languages, one id; every question finds its own language first, the other one second."""
    data = benchmark(2, 1, 0)
    vectors = np.array([[1, 0], [0, 1]], dtype=np.float32)
    head = evaluation.headline(evaluation.figures(evaluation.rank(data, vectors, vectors)))
    assert head == {
        "map_mono": 1, "map_cross": 1, "map_multi": 1, "r1_mono": 1, "r1_cross": 1, "r10_multi": 1,
        "rank_distance": 1, "own_language_top10": 0.5,
    }  # fmt: skip


def test_chunks_change_nothing(monkeypatch):
    data = benchmark(3, 9, 4)
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(len(s), 8)).astype(np.float32) for s in (data.questions, data.candidates)]
    whole = evaluation.rank(data, *sides)
    monkeypatch.setattr(evaluation, "_QUERIES_AT_ONCE", 4)
    for one, other in zip(whole[1:], evaluation.rank(data, *sides)[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_language_has_no_cross_lingual_figure():
    data = benchmark(1, 3, 0)
    vectors = np.eye(3, dtype=np.float32)
    head = evaluation.headline(evaluation.figures(evaluation.rank(data, vectors, vectors)))
    assert head["map_cross"] is None
    assert head["map_mono"] == pytest.approx(1)
