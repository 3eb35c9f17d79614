import pytest

from hexapla.training.schedules import Schedule


def rates(shape):
    return [Schedule(1.0, 3, 8, shape).at(step) for step in range(8)]


def test_every_shape_rises_linearly_and_falls_its_own_way():
    rise = [0.25, 0.5, 0.75]
    assert rates("linear") == pytest.approx([*rise, 1, 0.8, 0.6, 0.4, 0.2])
    assert rates("constant") == pytest.approx([*rise, 1, 1, 1, 1, 1])
    assert rates("cosine") == pytest.approx([*rise, 1, 0.904508, 0.654508, 0.345492, 0.095492], abs=1e-6)


def test_without_a_warm_up_it_begins_at_the_peak():
    assert Schedule(2.0, 0, 4).at(0) == 2
