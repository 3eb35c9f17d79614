import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hexapla.evaluation.statistics import holm, interval, macro, over_seeds, paired
from hexapla.schema import UserError

GROUPS = 6


def parallel(rng, clusters=50, *, effect=0.0, lacking=0.0):
    """Scores of questions in all languages: hard ones are hard in every language."""
    counts = (rng.random((clusters, GROUPS)) >= lacking).astype(np.int64)
    scores = 0.5 + effect + rng.normal(0, 0.3, (clusters, 1)) + rng.normal(0, 0.1, (clusters, GROUPS))
    return np.where(counts > 0, scores, 0.0), counts


def as_if_independent(sums):
    """Every (question, language) a cluster of its own: the mistake that the clusters are there against."""
    eye = np.eye(GROUPS)
    return (sums[:, :, None] * eye).reshape(-1, GROUPS)


def test_macro_by_hand():
    sums = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 1.0]])
    counts = np.array([[2, 0, 0], [2, 0, 1]])
    assert macro(sums, counts) == pytest.approx((3 / 4 + 1) / 2)
    assert np.isnan(macro(sums, np.zeros_like(counts)))


def test_the_interval_covers_and_taking_translations_as_independent_does_not():
    rng = np.random.default_rng(3)
    held, naive = [], []
    for _ in range(300):
        sums, counts = parallel(rng, lacking=0.3)
        low, high = interval(sums, counts, resamples=300)
        held.append(low <= 0.5 <= high)
        low, high = interval(as_if_independent(sums), as_if_independent(counts), resamples=300)
        naive.append(low <= 0.5 <= high)
    assert 0.90 < np.mean(held) < 0.98
    assert np.mean(naive) < 0.75


def test_the_interval_is_scipys_for_one_group():
    values = np.random.default_rng(0).gamma(2, size=80)
    ours = interval(values[:, None], np.ones((80, 1), dtype=np.int64), level=0.9, resamples=20000)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=1
    )
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.02)


def test_the_interval_is_determined_by_the_seed_whatever_the_chunks(monkeypatch):
    sums, counts = parallel(np.random.default_rng(1))
    ours = interval(sums, counts, seed=5)
    assert ours == interval(sums, counts, seed=5)
    assert ours != interval(sums, counts, seed=6)
    monkeypatch.setattr("hexapla.evaluation.statistics._CELLS", 1)
    assert interval(sums, counts, seed=5) == pytest.approx(ours, abs=1e-12)


def test_a_group_that_a_resample_misses_is_left_out_of_it():
    """One cluster alone holds group 1: resamples without it are of group 0, where all is 0.25."""
    counts = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    sums = np.array([[0.25, 0], [0.25, 0], [0.25, 0.75], [0, 0]])
    assert interval(sums, counts) == pytest.approx((0.25, 0.5))


def test_nothing_to_resample_is_no_number():
    one = np.ones((1, 2))
    assert np.isnan(interval(one, np.ones((1, 2), dtype=np.int64))).all()
    assert np.isnan(interval(np.full((5, 1), np.inf), np.ones((5, 1), dtype=np.int64))).all()


def test_the_paired_test_errs_as_often_as_it_says_and_not_when_languages_are_clusters():
    rng = np.random.default_rng(4)
    wrong, naive = [], []
    for _ in range(400):
        (a, counts), (b, _) = parallel(rng, 30), parallel(rng, 30)
        wrong.append(paired(a, b, counts, rounds=199) < 0.05)
        split = [as_if_independent(each) for each in (a, b, counts)]
        naive.append(paired(*split, rounds=199) < 0.05)
    assert 0.02 < np.mean(wrong) < 0.08
    assert np.mean(naive) > 0.2


def test_the_paired_test_finds_a_difference_that_is_there():
    rng = np.random.default_rng(5)
    a, counts = parallel(rng)
    b = a + rng.normal(0.05, 0.05, a.shape) * counts
    assert paired(a, b, counts, rounds=999) == 1 / 1000


@pytest.mark.parametrize("clusters", [5, 10, 13])
def test_few_clusters_are_enumerated_as_scipy_does(clusters):
    rng = np.random.default_rng(clusters)
    a, b = rng.normal(size=(2, clusters, 1))
    theirs = stats.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert paired(a, b, np.ones_like(a, dtype=np.int64)) == pytest.approx(theirs.pvalue)


def test_random_rounds_come_near_scipys():
    rng = np.random.default_rng(8)
    a, b = rng.normal([[[0.25]], [[0]]], 1, size=(2, 60, 1))
    theirs = stats.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=9999, rng=1,
    )  # fmt: skip
    assert paired(a, b, np.ones_like(a, dtype=np.int64)) == pytest.approx(theirs.pvalue, abs=0.02)


def test_the_statistic_is_the_difference_of_the_macro_averages():
    """Two clusters, unequal groups: by hand, only the swap of neither and of both reach T."""
    a, b = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.zeros((3, 2))
    counts = np.array([[3, 0], [0, 1], [1, 0]])
    # Shares 1/4/2 and 1/1/2: |T| = 0.625, and swapping one gives 0.375.
    assert paired(a, b, counts) == 0.5


@given(st.integers(0, 999), st.integers(1, 40))
def test_equal_models_differ_by_chance_only_and_the_order_of_two_does_not_matter(seed, clusters):
    rng = np.random.default_rng(seed)
    a, counts = parallel(rng, clusters, lacking=0.2)
    b = parallel(rng, clusters)[0] * counts
    if counts.any():
        assert paired(a, a, counts) == 1
        assert 0 < paired(a, b, counts, rounds=99) <= 1
    assert paired(a, b, counts, rounds=99) == pytest.approx(paired(b, a, counts, rounds=99), nan_ok=True)


def test_ties_of_the_statistic_count_whatever_the_last_digit():
    """Thirds: many swaps give the same |T| up to rounding, and p is their exact share."""
    a = np.full((12, 1), 1 / 3)
    a[:4] *= -1
    p = paired(a, np.zeros_like(a), np.ones_like(a, dtype=np.int64))
    assert p == pytest.approx(stats.binomtest(4, 12, 0.5).pvalue)


def test_what_can_not_be_tested_is_no_number_or_one_line():
    ones = np.ones((20, 1))
    assert np.isnan(paired(np.full((20, 1), np.inf), ones, ones))
    assert np.isnan(paired(ones, ones, np.zeros((20, 1), dtype=np.int64)))
    with pytest.raises(UserError, match=re.escape("shapes [20, 1] and [19, 1] can't be paired")):
        paired(ones, ones[1:], ones)


def test_holm_by_hand():
    """Ordered: 0.005*4, 0.01*3, 0.03*2, 0.04*1, each at least the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, np.nan, 0.6]), [1, np.nan, 1])
    assert holm([]).shape == (0,)


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(0.001, 1)), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p, level):
    left = sorted(value for value in p if not np.isnan(value))
    rejected = set()
    while left and left[0] * len(left) <= level:
        rejected.add(left.pop(0))
    adjusted = holm(p)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(p))
    assert {value for value, new in zip(p, adjusted, strict=True) if new <= level} == rejected


def test_several_seeds_by_hand():
    counts = np.array([[1, 1], [1, 0]])
    sums = [np.array([[0.2, 0.4], [0.4, 0]]), np.array([[0.4, 0.8], [0.6, 0]])]
    seeds = over_seeds(sums, counts)
    assert seeds.mean == pytest.approx((0.35 + 0.65) / 2)
    assert seeds.mean == pytest.approx(macro(seeds.sums, counts))
    assert seeds.deviation == pytest.approx(0.3 / np.sqrt(2))
    assert np.isnan(over_seeds(sums[:1], counts).deviation)


def test_seeds_that_do_not_belong_together_are_one_line():
    with pytest.raises(UserError, match=re.escape("seed 2 of 2 have the shape [3, 1], wanted [2, 1]")):
        over_seeds([np.ones((2, 1)), np.ones((3, 1))], np.ones((2, 1)))
    with pytest.raises(UserError, match="no seed's results"):
        over_seeds([], np.ones((2, 1)))
