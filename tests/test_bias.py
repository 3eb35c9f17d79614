import numpy as np

from hexapla.bias import own_language_share, rank_distance


def test_rank_distance_by_hand():
    ranks = np.array([[3, 1, 10], [2, 0, 5], [7, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(rank_distance(ranks), [9, 3, 0, np.nan])


def test_rank_distance_of_translations_that_lead_is_their_number_less_one():
    assert rank_distance(np.array([[4, 2, 3, 1]]))[0] == 3


def test_own_language_share_by_hand():
    top = np.array([[0, 0, 1, 2], [1, 1, 1, 1], [2, 0, 0, 2]])
    np.testing.assert_array_equal(own_language_share(top, np.array([0, 1, 1])), [0.5, 1.0, 0.0])
