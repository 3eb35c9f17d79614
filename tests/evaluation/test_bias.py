import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hexapla.evaluation.bias import (
    found_first,
    own_language_share,
    rank_distance,
    recall_of_others,
    shown,
    worst_rank,
)
from hexapla.schema import UNFOUND

RANKS = np.array([[3, 1, 10], [2, 0, 5], [7, 0, 0], [0, 0, 0], [4, UNFOUND, 2], [UNFOUND, 0, UNFOUND]])


def test_rank_distance_by_hand():
    np.testing.assert_array_equal(rank_distance(RANKS), [9, 3, np.nan, np.nan, np.inf, np.inf])


def test_rank_distance_of_translations_that_lead_is_their_number_less_one():
    assert rank_distance(np.array([[4, 2, 3, 1]]))[0] == 3


def test_worst_rank_by_hand():
    np.testing.assert_array_equal(worst_rank(RANKS), [10, 5, 7, np.nan, np.inf, np.inf])


def test_worst_rank_sees_translations_that_are_all_lost_and_rank_distance_does_not():
    together = np.array([[1, 2, 3], [1001, 1002, 1003]])
    np.testing.assert_array_equal(rank_distance(together), [2, 2])
    np.testing.assert_array_equal(worst_rank(together), [3, 1003])


def test_own_language_share_by_hand():
    top = np.array([[0, 0, 1, 2], [1, 1, 1, 1], [2, 0, 0, 2]])
    np.testing.assert_array_equal(own_language_share(top, np.array([0, 1, 1])), [0.5, 1.0, 0.0])


def test_recall_of_others_by_hand():
    """The own language's rank is never looked at, however good; what was not found counts."""
    asked = np.array([1, 0, 0, 0, 2, 1])
    recall = recall_of_others(RANKS, asked, k=4)
    np.testing.assert_array_equal(recall, [1 / 2, 0, np.nan, np.nan, 1 / 2, 0])


def test_found_first_by_hand():
    single = np.array([[1, 2, 0], [1, 1, 0], [5, 1, 0], [0, 0, 1]])
    matrix = found_first(single, np.array([0, 0, 1, 1]))
    expected = [[1, 1 / 2, np.nan], [0, 1, 1], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(matrix, expected)


def test_shown_by_hand():
    top = np.array([[0, 0, 1, 2], [0, 0, 0, 0], [2, 1, 1, 1]])
    matrix = shown(top, np.array([0, 0, 2]), languages=3)
    np.testing.assert_array_equal(matrix, [[6 / 8, 1 / 8, 1 / 8], [np.nan] * 3, [0, 3 / 4, 1 / 4]])


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 30), st.integers(1, 6))
def test_matrices_agree_with_the_figures_by_question(seed, languages, questions, k):
    rng = np.random.default_rng(seed)
    asked = rng.integers(0, languages, questions)
    top = rng.integers(0, languages, (questions, k))
    single = rng.integers(0, 3, (questions, languages))
    share, first = shown(top, asked, languages=languages), found_first(single, asked)
    own = own_language_share(top, asked)
    for lang in range(languages):
        rows = asked == lang
        assert np.isnan(share[lang]).all() != rows.any()
        if rows.any():
            np.testing.assert_allclose(share[lang].sum(), 1)
            np.testing.assert_allclose(share[lang, lang], own[rows].mean())
        for other in range(languages):
            held = single[rows, other]
            held = held[held > 0]
            expected = (held == 1).mean() if held.size else np.nan
            np.testing.assert_allclose(first[lang, other], expected)
