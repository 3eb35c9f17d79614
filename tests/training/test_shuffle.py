import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.training.shuffle import IdOrder, permuted


def order(passages, sources=None, *, size=4, seed=0, exponent=1.0):
    sources = np.zeros(len(passages), np.int16) if sources is None else np.asarray(sources, np.int16)
    return IdOrder(np.asarray(passages, np.int32), sources, size=size, seed=seed, exponent=exponent)


def epoch(order, number=0):
    return [order.at(number, step) for step in range(len(order))]


@given(st.integers(1, 3000), st.integers(0, 99))
def test_a_permutation_reaches_everything_once_wherever_one_looks(size, seed):
    whole = permuted(np.arange(size), size, [seed])
    assert sorted(whole) == list(range(size))
    some = np.random.default_rng(seed).integers(size, size=5)
    assert np.array_equal(permuted(some, size, [seed]), whole[some])


@pytest.mark.parametrize("size", [7, 64, 100])
def test_seeds_send_a_position_everywhere_equally(size):
    """Chi-square of first places and of distances between neighbours, far in the tail (seeds are fixed)."""
    drawn = np.array([permuted(np.arange(2), size, [seed]) for seed in range(4000)])
    for values, kinds in ((drawn[:, 0], size), ((drawn[:, 1] - drawn[:, 0]) % size - 1, size - 1)):
        expected = 4000 / kinds
        chi = ((np.bincount(values, minlength=kinds) - expected) ** 2 / expected).sum()
        assert chi < kinds - 1 + 4 * math.sqrt(2 * (kinds - 1))


def test_a_large_order_looks_random():
    """Neighbours, and what is congruent, are as far apart as in an order by NumPy."""
    size = 10_000_000
    places = permuted(np.arange(100_000), size, [3])
    for values in (places, np.diff(places), np.diff(places, n=2), places[::2] - 3 * places[1::2]):
        counts = np.bincount(values % size * 50 // size, minlength=50)
        expected = len(values) / 50
        assert ((counts - expected) ** 2 / expected).sum() < 49 + 4 * math.sqrt(98)


@given(st.integers(4, 400), st.integers(1, 7), st.integers(1, 3), st.integers(0, 99))
def test_an_epoch_is_one_order_of_all_ids(ids, size, sources, seed):
    walked = order(range(ids), np.arange(ids) % sources, size=min(size, ids), seed=seed)
    assert len(walked) == ids // min(size, ids)
    for number in range(3):
        seen = np.concatenate(epoch(walked, number))
        assert len(seen) == len(set(seen)) == len(walked) * min(size, ids)
    assert not np.array_equal(seen[:1000], np.concatenate(epoch(walked, 0))[:1000]) or ids < 20


@given(st.integers(2, 6), st.integers(2, 30), st.integers(0, 99))
def test_ids_that_share_a_passage_never_meet(group, batches, seed):
    """As many ids a passage as there are batches is the most that can be kept apart."""
    group = min(group, batches)
    ids = batches * 4
    passages = np.arange(ids) // group
    walked = order(passages, seed=seed)
    for number in range(2):
        drawn = epoch(walked, number)
        assert sorted(np.concatenate(drawn)) == list(range(ids))
        assert all(len(set(passages[items])) == 4 for items in drawn)


def test_keeping_passages_apart_leaves_chance_its_place():
    """Any two ids of different passages meet about as often as any two others."""
    passages = np.arange(24) // 2
    meetings = Counter()
    for seed in range(1500):
        for items in epoch(order(passages, seed=seed)):
            meetings.update((a, b) for a in items.tolist() for b in items.tolist() if a < b)
    apart = [(a, b) for a in range(24) for b in range(a + 1, 24) if passages[a] != passages[b]]
    assert set(meetings) == set(apart)
    mean = 1500 * 6 * 6 / len(apart)
    assert all(abs(meetings[pair] - mean) < 6 * math.sqrt(mean) for pair in apart)


def test_what_shares_a_passage_is_not_seen_in_a_row():
    """The two ids of a passage lie any number of batches apart."""
    passages = np.arange(80) // 2
    apart = Counter()
    for seed in range(40):
        steps = np.empty(80, int)
        for step, items in enumerate(epoch(order(passages, seed=seed))):
            steps[items] = step
        apart.update(abs(steps[::2] - steps[1::2]).tolist())
    # Of 20 batches 19 pairs are neighbours, out of 190.
    assert apart[1] / apart.total() == pytest.approx(0.1, abs=0.04)


def test_each_slice_of_a_batch_has_of_all_sources():
    sources = np.repeat([0, 1], 200)
    walked = order(range(400), sources, size=20, exponent=0.5)
    first = np.concatenate([items[:5] for items in epoch(walked)])
    assert sources[first].mean() == pytest.approx(0.5, abs=0.15)


@given(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 99))
def test_sources_have_their_share_of_every_batch(exponent, seed):
    sizes = np.array([300, 60, 140])
    sources = np.repeat([2, 0, 5], sizes)
    walked = order(range(500), sources, size=20, seed=seed, exponent=exponent)
    share = sizes**exponent / (sizes**exponent).sum() * 20
    counts = np.array(
        [
            [(sources[items] == name).sum() for name in (2, 0, 5)]
            for n in range(8)
            for items in epoch(walked, n)
        ]
    )
    assert (abs(counts - share) < 1).all()
    assert np.allclose(counts.mean(axis=0), share, atol=0.1)


@given(st.integers(0, 99))
def test_nothing_of_a_source_comes_again_before_all_of_it_came(seed):
    sources = np.repeat([0, 1], [17, 90])
    walked = order(range(107), sources, size=8, seed=seed, exponent=0.0)
    times = np.zeros(107, int)
    for number in range(5):
        for items in epoch(walked, number):
            np.add.at(times, items, 1)
            assert all(np.ptp(times[sources == name]) <= 1 for name in (0, 1))
    assert times[:17].min() > 1


def test_any_step_is_reached_directly():
    sources = np.repeat([0, 1], [40, 100])
    for exponent in (1.0, 0.5):
        walked = order(np.arange(140) // 2, sources, exponent=exponent)
        batches = [epoch(walked, number) for number in range(3)]
        for number in (2, 0, 1):
            for step in reversed(range(len(walked))):
                fresh = order(np.arange(140) // 2, sources, exponent=exponent)
                assert np.array_equal(fresh.at(number, step), batches[number][step])
                assert len(batches[number][step]) == 4
