import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.training import eligibility


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def tables(draw):
    """Rows and passages of ids that lack languages and share passages."""
    ids, languages = draw(st.integers(5, 80)), draw(st.integers(1, 5))
    there = rng(draw(st.integers(0, 999))).random((ids, languages)) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    rows = np.where(there, np.arange(ids * languages).reshape(ids, languages), -1).astype(np.int32)
    passages = rng(ids).integers(draw(st.integers(2, 80)), size=ids).astype(np.int32)
    least = draw(st.integers(1, 2))
    chosen = np.flatnonzero(rng(least).random(languages) < 0.8)
    return rows, passages, chosen if len(chosen) else np.array([0]), least


def those_that_fit(rows, chosen, least):
    return [item for item, row in enumerate(rows) if sum(row[c] >= 0 for c in chosen) >= least]


@given(tables())
def test_what_fits_and_how_many_passages_that_is(table):
    rows, passages, chosen, least = table
    need = eligibility.need(rows, passages, chosen, least)
    fit = those_that_fit(rows, chosen, least)
    assert np.flatnonzero(need.fits(np.arange(len(rows)))).tolist() == fit
    assert len(need.fitting) == 0 or need.fitting.tolist() == fit
    found = len({passages[item] for item in fit})
    for wanted in (1, 3, 100):
        told = eligibility.different(need, wanted)
        assert told == found or wanted <= told <= found


@given(tables(), st.integers(0, 99))
def test_others_take_the_places_of_those_that_do_not_fit(table, seed):
    rows, passages, chosen, least = table
    need = eligibility.need(rows, passages, chosen, least)
    fit = those_that_fit(rows, chosen, least)
    size = len({passages[item] for item in fit})
    items = rng(seed).integers(len(rows), size=size)
    filled = eligibility.filled(need, items, need.fits(items), rng(seed))
    assert set(filled) <= set(fit)
    assert len(set(passages[filled])) == len(filled) == size
    seen = set()
    for before, after in zip(items, filled, strict=True):
        stays = before in fit and passages[before] not in seen
        assert not stays or after == before
        seen |= {passages[before]} if stays else set()


@pytest.mark.parametrize("fitting", [40, 400])
def test_every_id_that_fits_is_as_likely_to_be_taken(fitting):
    """Drawn from a list where they are rare (40 of 1000), by rejection otherwise."""
    rows = np.full((1000, 1), -1, np.int32)
    rows[:fitting] = 0
    need = eligibility.need(rows, np.arange(1000, dtype=np.int32), np.array([0]), 1)
    assert (len(need.fitting) > 0) == (fitting == 40)
    bad = np.arange(990, 1000)
    taken = Counter()
    for seed in range(2000):
        taken.update(eligibility.filled(need, bad, np.zeros(10, bool), rng(seed)).tolist())
    mean = 20000 / fitting
    assert all(abs(taken[item] - mean) < 6 * math.sqrt(mean) for item in range(fitting))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 5.0)])
def test_languages_are_drawn_one_after_the_other_by_weight(weights):
    rows = np.tile(np.array([0, -1, 1, 2], np.int32), (60_000, 1))
    need = eligibility.need(rows, np.arange(60_000, dtype=np.int32), np.arange(4), 2)
    held, weight = (0, 2, 3), dict(zip((0, 2, 3), weights, strict=True))
    drawn = eligibility.languages(
        need, np.arange(60_000), np.array([weight.get(c, 9.0) for c in range(4)]), 2, rng()
    )
    pairs = Counter(map(tuple, drawn.tolist()))
    assert set(pairs) == set(permutations(held, 2))
    total = sum(weights)
    for (first, second), count in pairs.items():
        expected = weight[first] / total * weight[second] / (total - weight[first])
        assert count / 60_000 == pytest.approx(expected, abs=0.01)
