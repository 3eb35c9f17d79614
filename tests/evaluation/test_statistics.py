import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hexapla.evaluation import results, statistics
from hexapla.evaluation.metrics import METRICS
from hexapla.evaluation.statistics import (
    adjust_holm,
    average_seeds,
    bootstrap_interval,
    macro_average,
    paired_test,
)
from hexapla.reporting.result_tables import Model
from hexapla.schema import UserError
from worlds import written

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
    assert macro_average(sums, counts) == pytest.approx((3 / 4 + 1) / 2)
    assert np.isnan(macro_average(sums, np.zeros_like(counts)))


def test_the_interval_covers_and_taking_translations_as_independent_does_not():
    rng = np.random.default_rng(3)
    held, naive = [], []
    for _ in range(300):
        sums, counts = parallel(rng, lacking=0.3)
        low, high = bootstrap_interval(sums, counts, resamples=300)
        held.append(low <= 0.5 <= high)
        low, high = bootstrap_interval(as_if_independent(sums), as_if_independent(counts), resamples=300)
        naive.append(low <= 0.5 <= high)
    assert 0.90 < np.mean(held) < 0.98
    assert np.mean(naive) < 0.75


def test_the_interval_is_scipys_for_one_group():
    values = np.random.default_rng(0).gamma(2, size=80)
    ours = bootstrap_interval(values[:, None], np.ones((80, 1), dtype=np.int64), level=0.9, resamples=20000)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=1
    )
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.02)


def test_the_interval_is_determined_by_the_seed_whatever_the_chunks(monkeypatch):
    sums, counts = parallel(np.random.default_rng(1))
    ours = bootstrap_interval(sums, counts, seed=5)
    assert ours == bootstrap_interval(sums, counts, seed=5)
    assert ours != bootstrap_interval(sums, counts, seed=6)
    monkeypatch.setattr("hexapla.evaluation.statistics._CELLS", 1)
    assert bootstrap_interval(sums, counts, seed=5) == pytest.approx(ours, abs=1e-12)


def test_a_group_that_a_resample_misses_is_left_out_of_it():
    """One cluster alone holds group 1: resamples without it are of group 0, where all is 0.25."""
    counts = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    sums = np.array([[0.25, 0], [0.25, 0], [0.25, 0.75], [0, 0]])
    assert bootstrap_interval(sums, counts) == pytest.approx((0.25, 0.5))


def test_nothing_to_resample_is_no_number():
    one = np.ones((1, 2))
    assert np.isnan(bootstrap_interval(one, np.ones((1, 2), dtype=np.int64))).all()
    assert np.isnan(bootstrap_interval(np.full((5, 1), np.inf), np.ones((5, 1), dtype=np.int64))).all()


def test_the_paired_test_errs_as_often_as_it_says_and_not_when_languages_are_clusters():
    rng = np.random.default_rng(4)
    wrong, naive = [], []
    for _ in range(400):
        (a, counts), (b, _) = parallel(rng, 30), parallel(rng, 30)
        wrong.append(paired_test(a, b, counts, rounds=199) < 0.05)
        split = [as_if_independent(each) for each in (a, b, counts)]
        naive.append(paired_test(*split, rounds=199) < 0.05)
    assert 0.02 < np.mean(wrong) < 0.08
    assert np.mean(naive) > 0.2


def test_the_paired_test_finds_a_difference_that_is_there():
    rng = np.random.default_rng(5)
    a, counts = parallel(rng)
    b = a + rng.normal(0.05, 0.05, a.shape) * counts
    assert paired_test(a, b, counts, rounds=999) == 1 / 1000


@pytest.mark.parametrize("clusters", [5, 10, 13])
def test_few_clusters_are_enumerated_as_scipy_does(clusters):
    rng = np.random.default_rng(clusters)
    a, b = rng.normal(size=(2, clusters, 1))
    theirs = stats.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert paired_test(a, b, np.ones_like(a, dtype=np.int64)) == pytest.approx(theirs.pvalue)


def test_random_rounds_come_near_scipys():
    rng = np.random.default_rng(8)
    a, b = rng.normal([[[0.25]], [[0]]], 1, size=(2, 60, 1))
    theirs = stats.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=9999, rng=1,
    )  # fmt: skip
    assert paired_test(a, b, np.ones_like(a, dtype=np.int64)) == pytest.approx(theirs.pvalue, abs=0.02)


def test_the_statistic_is_the_difference_of_the_macro_averages():
    """Two clusters, unequal groups: by hand, only the swap of neither and of both reach T."""
    a, b = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.zeros((3, 2))
    counts = np.array([[3, 0], [0, 1], [1, 0]])
    # Shares 1/4/2 and 1/1/2: |T| = 0.625, and swapping one gives 0.375.
    assert paired_test(a, b, counts) == 0.5


@given(st.integers(0, 999), st.integers(1, 40))
def test_equal_models_differ_by_chance_only_and_the_order_of_two_does_not_matter(seed, clusters):
    rng = np.random.default_rng(seed)
    a, counts = parallel(rng, clusters, lacking=0.2)
    b = parallel(rng, clusters)[0] * counts
    if counts.any():
        assert paired_test(a, a, counts) == 1
        assert 0 < paired_test(a, b, counts, rounds=99) <= 1
    assert paired_test(a, b, counts, rounds=99) == pytest.approx(
        paired_test(b, a, counts, rounds=99), nan_ok=True
    )


def test_ties_of_the_statistic_count_whatever_the_last_digit():
    """Thirds: many swaps give the same |T| up to rounding, and p is their exact share."""
    a = np.full((12, 1), 1 / 3)
    a[:4] *= -1
    p = paired_test(a, np.zeros_like(a), np.ones_like(a, dtype=np.int64))
    assert p == pytest.approx(stats.binomtest(4, 12, 0.5).pvalue)


def test_what_can_not_be_tested_is_no_number_or_one_line():
    ones = np.ones((20, 1))
    assert np.isnan(paired_test(np.full((20, 1), np.inf), ones, ones))
    assert np.isnan(paired_test(ones, ones, np.zeros((20, 1), dtype=np.int64)))
    with pytest.raises(UserError, match=re.escape("shapes [20, 1] and [19, 1] can't be paired")):
        paired_test(ones, ones[1:], ones)


def test_holm_by_hand():
    """Ordered: 0.005*4, 0.01*3, 0.03*2, 0.04*1, each at least the one before."""
    np.testing.assert_allclose(adjust_holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_holm([0.9, np.nan, 0.6]), [1, np.nan, 1])
    assert adjust_holm([]).shape == (0,)


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(0.001, 1)), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p, level):
    left = sorted(value for value in p if not np.isnan(value))
    rejected = set()
    while left and left[0] * len(left) <= level:
        rejected.add(left.pop(0))
    adjusted = adjust_holm(p)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(p))
    assert {value for value, new in zip(p, adjusted, strict=True) if new <= level} == rejected


def test_several_seeds_by_hand():
    counts = np.array([[1, 1], [1, 0]])
    sums = [np.array([[0.2, 0.4], [0.4, 0]]), np.array([[0.4, 0.8], [0.6, 0]])]
    seeds = average_seeds(sums, counts)
    assert seeds.mean == pytest.approx((0.35 + 0.65) / 2)
    assert seeds.mean == pytest.approx(macro_average(seeds.sums, counts))
    assert seeds.deviation == pytest.approx(0.3 / np.sqrt(2))
    assert np.isnan(average_seeds(sums[:1], counts).deviation)


def test_seeds_that_do_not_belong_together_are_one_line():
    with pytest.raises(UserError, match=re.escape("seed 2 of 2 have the shape [3, 1], wanted [2, 1]")):
        average_seeds([np.ones((2, 1)), np.ones((3, 1))], np.ones((2, 1)))
    with pytest.raises(UserError, match="no seed's results"):
        average_seeds([], np.ones((2, 1)))


MULTI = METRICS["map_multi"]


def read(folder, *, names=("candidate", "untuned"), seeds=(0, 1), near=(3.0, 1.0)):
    for name, seed, how in zip(names, seeds, near, strict=True):
        written(folder / name, name, seed, how)
    return [Model(name, [results.read(folder / name)]).judged() for name in names]


def test_figures_are_the_scores_with_the_bootstraps_interval(tmp_path):
    (mine, _) = read(tmp_path)
    figures = statistics.estimate_metrics("sample", mine)
    for key, figure in figures.items():
        assert figure.value == mine.results[0].scores["sample"]["none"][key]
        assert figure.low <= figure.value <= figure.high
        assert figure.deviation is None
    outcome = mine.query_scores("sample", MULTI)
    assert (figures["map_multi"].low, figures["map_multi"].high) == statistics.bootstrap_interval(
        outcome.sums, outcome.counts
    )


def test_p_values_are_corrected_over_the_whole_table(tmp_path):
    mine, other = read(tmp_path)
    measures = statistics.find_metrics("sample", mine)
    raw = []
    for each in measures:
        a, b = (model.query_scores("sample", each) for model in (mine, other))
        raw.append(statistics.paired_test(a.sums, b.sums, a.counts))
    (test,) = statistics.compute_contrasts("sample", mine, [other], measures)
    np.testing.assert_allclose([test[m.key].p for m in measures], statistics.adjust_holm(raw))
    two = statistics.compute_contrasts("sample", mine, [other, other], measures)
    assert two[0][MULTI.key].p >= test[MULTI.key].p
    assert test[MULTI.key].significant
    assert test[MULTI.key].difference == pytest.approx(
        mine.results[0].scores["sample"]["none"]["map_multi"]
        - other.results[0].scores["sample"]["none"]["map_multi"]
    )


def test_a_model_against_itself_is_no_difference(tmp_path):
    mine, _ = read(tmp_path)
    (test,) = statistics.compute_contrasts("sample", mine, [mine], [MULTI])
    assert test["map_multi"] == (0.0, 1.0)
    assert not test["map_multi"].significant


def test_seeds_are_averaged_question_by_question(tmp_path):
    one, two = (results.read(written(tmp_path / str(i), "m", i)) for i in (1, 2))
    both = Model("m", [one, two]).judged()
    figure = statistics.estimate_metrics("sample", both)["map_multi"]
    each = [r.scores["sample"]["none"]["map_multi"] for r in (one, two)]
    assert figure.value == pytest.approx(np.mean(each), abs=1e-6)
    assert figure.deviation == pytest.approx(np.std(each, ddof=1))
    single = statistics.estimate_metrics("sample", Model("m", [one]).judged())["map_multi"]
    assert figure.high - figure.low < single.high - single.low


def test_seeds_are_those_whose_cards_differ_in_the_seed_alone(tmp_path):
    cards = {
        "candidate": {"sampler": "hybrid", "alpha": 0.5, "seed": 13},
        "hybrid-14": {"sampler": "hybrid", "alpha": 0.5, "seed": 14},
        "hybrid-15": {"sampler": "hybrid", "alpha": 0.3, "seed": 15},
        "copy": {"sampler": "hybrid", "alpha": 0.5, "seed": 13},
    }
    read = {name: results.read(written(tmp_path / name, name, **card)) for name, card in cards.items()}
    found = statistics.find_seeds(read, "candidate")
    assert [each.card["name"] for each in found] == ["candidate", "hybrid-14"]


def test_models_that_were_trained_with_other_lengths_are_no_seeds_of_one(tmp_path):
    """Evaluation has settings of the same names, which must not hide those of training."""
    alike = {"query_tokens": 64, "precision": "fp32"}
    cards = {
        "short": {"query_tokens": 32, "precision": "bf16", "seed": 1},
        "long": {"query_tokens": 48, "precision": "fp32", "seed": 2},
        "short-3": {"query_tokens": 32, "precision": "bf16", "seed": 3},
    }
    read = {
        name: results.read(written(tmp_path / name, name, evaluation=alike, **card))
        for name, card in cards.items()
    }
    assert [each.card["name"] for each in statistics.find_seeds(read, "short")] == ["short", "short-3"]


def test_models_evaluated_on_other_questions_are_refused(tmp_path):
    mine, other = read(tmp_path)
    outcomes = other.results[0].query_scores["sample"]["none"]
    fewer = outcomes["multi"]["map"]
    outcomes["multi"]["map"] = fewer._replace(
        clusters=fewer.clusters[1:], sums=fewer.sums[1:], counts=fewer.counts[1:]
    )
    with pytest.raises(UserError, match="'candidate' and 'untuned' were not evaluated on the same questions"):
        statistics.compute_contrasts("sample", mine, [other], [MULTI])
