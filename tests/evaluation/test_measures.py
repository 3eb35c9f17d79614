import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, R, ScoredDoc, nDCG

from hexapla.evaluation.measures import (
    JUDGED,
    MEASURES,
    average_precision,
    average_precision_at,
    ndcg_at,
    recall_at,
)
from hexapla.schema import UNFOUND

rankings = st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True)
ORACLES = {"map": AP, "mrr": RR, "r1": R @ 1, "r10": R @ 10, "r100": R @ 100, "ndcg10": nDCG @ 10}


def by_definition(ranks):
    """Precision at every relevant rank of the list, walked from its top."""
    found, total = 0, 0.0
    for place in range(1, max(ranks) + 1):
        if place in ranks:
            found += 1
            total += found / place
    return total / len(ranks)


def as_xtreme_scores_it(targets, ranked, k):
    """The published scorer restated: hits are summed down to k, over min(targets, k)."""
    hits, score = 0, 0.0
    for place, candidate in enumerate(ranked[:k], start=1):
        if candidate in targets:
            hits += 1
            score += hits / place
    return score / min(len(targets), k)


@given(rankings, st.integers(0, 3), st.randoms())
def test_average_precision_is_its_definition_in_any_order_with_any_padding(ranks, padding, random):
    columns = [*ranks, *[0] * padding]
    random.shuffle(columns)
    assert average_precision(np.array([columns]))[0] == pytest.approx(by_definition(ranks))


@given(rankings, st.integers(1, 40), st.integers(0, 3), st.randoms())
def test_average_precision_at_k_is_xtremes(ranks, k, unfound, random):
    ranked = [place if place in ranks else -place for place in range(1, 31)]
    targets = {*ranks, *range(100, 100 + unfound)}
    columns = [*ranks, *[UNFOUND] * unfound, 0]
    random.shuffle(columns)
    expected = as_xtreme_scores_it(targets, ranked, k)
    assert average_precision_at(np.array([columns]), k)[0] == pytest.approx(expected)


def test_average_precision_at_k_by_hand():
    """More relevant than k: all of the first k relevant is 1, where TREC's map_cut would say 2/3."""
    ranks = np.array([[1, 2, 3], [2, 5, UNFOUND], [7, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(average_precision_at(ranks, 2), [1, 1 / 2 / 2, 0, np.nan])


@given(rankings, st.integers(1, 12))
def test_recall_counts_the_relevant_among_the_first(ranks, k):
    expected = len([rank for rank in ranks if rank <= k]) / len(ranks)
    assert recall_at(np.array([[*ranks, 0]]), k)[0] == pytest.approx(expected)


def test_ndcg_by_hand():
    ranks = np.array([[1, 3], [2, UNFOUND], [0, 4], [11, 0]])
    best = 1 + 1 / np.log2(3)
    expected = [(1 + 1 / 2) / best, 1 / np.log2(3) / best, 1 / np.log2(5), 0]
    np.testing.assert_allclose(ndcg_at(ranks, k=10), expected)
    graded = ndcg_at(ranks[:1], np.array([[1, 3]]), k=10)
    np.testing.assert_allclose(graded, (1 + 3 / 2) / (3 + 1 / np.log2(3)))
    np.testing.assert_allclose(ndcg_at(ranks[:1], np.array([[0, -2]]), k=10), [np.nan])


def judged(rng, *, questions=12, candidates=130, depth):
    """Random rankings full of ties, broken by position, as ranks and in TREC's form, cut at `depth`.

    trec_eval breaks ties by document name, the greater first: earlier candidates get greater names.
    """
    names = [f"d{9999 - position}" for position in range(candidates)]
    ranks = np.zeros((questions, 16), dtype=np.int64)
    grades = np.zeros_like(ranks)
    qrels, run = {}, []
    for row in range(questions):
        scores = rng.integers(0, 20, candidates)
        order = sorted(range(candidates), key=lambda c: (-scores[c], c))
        held = rng.choice(candidates, size=rng.integers(1, 15), replace=False)
        for column, candidate in enumerate(held):
            place = order.index(candidate) + 1
            ranks[row, column] = place if place <= depth else UNFOUND
            grades[row, column] = rng.integers(1, 4)
        qrels[str(row)] = {names[c]: int(g) for c, g in zip(held, grades[row], strict=False)}
        run += [ScoredDoc(str(row), names[c], float(scores[c])) for c in order[:depth]]
    return ranks, grades, qrels, run


def oracle(measure, qrels, run):
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return [values[str(row)] for row in range(len(values))]


@pytest.mark.parametrize("depth", [130, 20])
@pytest.mark.parametrize("name", ORACLES)
def test_measures_are_trec_evals_with_ties_and_cut_rankings(name, depth):
    ranks, grades, qrels, run = judged(np.random.default_rng(7), depth=depth)
    if name == "ndcg10":
        np.testing.assert_allclose(JUDGED[name](ranks, grades), oracle(ORACLES[name], qrels, run))
    binary = {question: dict.fromkeys(found, 1) for question, found in qrels.items()}
    np.testing.assert_allclose(MEASURES[name](ranks), oracle(ORACLES[name], binary, run))
    if name in JUDGED:
        same = JUDGED[name](ranks, np.where(ranks > 0, 1, 0))
        np.testing.assert_array_equal(same, MEASURES[name](ranks))


@pytest.mark.parametrize("name", MEASURES)
def test_best_ranks_are_one_and_no_relevant_is_no_number(name):
    values = MEASURES[name](np.array([[1], [0], [UNFOUND]]))
    assert values[0] == 1
    assert np.isnan(values[1])
    assert values[2] == 0
