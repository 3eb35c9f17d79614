import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.measures import MEASURES, average_precision, recall_at

rankings = st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True)


def by_definition(ranks):
    """Precision at every relevant rank of the list, walked from its top."""
    found, total = 0, 0.0
    for place in range(1, max(ranks) + 1):
        if place in ranks:
            found += 1
            total += found / place
    return total / len(ranks)


@given(rankings, st.integers(0, 3), st.randoms())
def test_average_precision_is_its_definition_in_any_order_with_any_padding(ranks, padding, random):
    columns = [*ranks, *[0] * padding]
    random.shuffle(columns)
    assert average_precision(np.array([columns]))[0] == pytest.approx(by_definition(ranks))


@given(rankings, st.integers(1, 12))
def test_recall_counts_the_relevant_among_the_first(ranks, k):
    expected = len([rank for rank in ranks if rank <= k]) / len(ranks)
    assert recall_at(np.array([[*ranks, 0]]), k)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", MEASURES)
def test_best_ranks_are_one_and_no_relevant_is_no_number(name):
    values = MEASURES[name](np.array([[1], [0]]))
    assert values[0] == 1
    assert np.isnan(values[1])
