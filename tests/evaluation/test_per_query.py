import numpy as np
import pytest

from hexapla.evaluation import measures
from hexapla.evaluation.per_query import Found, Outcome, outcomes
from hexapla.evaluation.ranking import Ranks
from hexapla.schema import UNFOUND
from worlds import ranks


def by_hand(values, asked, where):
    return float(np.nanmean(values[(asked == where)]))


def test_figures_are_means_over_questions_then_over_groups():
    made = ranks()
    found = outcomes(made)
    precision = measures.MEASURES["map"](made.multi)
    each = [by_hand(precision, made.asked, lang) for lang in range(3)]
    assert list(found["multi"]["map"].by_group().values()) == pytest.approx(each, abs=1e-6)
    assert found["multi"]["map"].figure() == pytest.approx(np.mean(each), abs=1e-6)
    first = {
        f"{a}-{b}": (made.single[made.asked == i, j] == 1).mean()
        for i, a in enumerate(made.languages)
        for j, b in enumerate(made.languages)
        if a != b
    }
    assert found["cross"]["r1"].by_group() == pytest.approx(first, abs=1e-6)
    own = [(made.single[made.asked == i, i] == 1).mean() for i in range(3)]
    assert list(found["mono"]["r1"].by_group().values()) == pytest.approx(own, abs=1e-6)


def test_micro_averages_weigh_questions_and_macro_averages_weigh_languages():
    """Two languages, one with three questions; a question that exists in one language only."""
    ids = np.array(["q1", "q2", "q3", "q1"])
    single = np.array([[1, 1], [9, 0], [9, 0], [1, 1]])
    multi = np.array([[1, 2], [9, 0], [9, 0], [1, 2]])
    made = Ranks(("de", "en"), ids, np.array([0, 0, 0, 1]), single, multi, np.zeros((4, 10), dtype=int))
    found = outcomes(made)["multi"]
    assert found["map20"].figure() == pytest.approx((1 + 1 / 9 + 1 / 9 + 1) / 4, abs=1e-6)
    assert found["map"].figure() == pytest.approx(((1 + 2 / 9) / 3 + 1) / 2, abs=1e-6)
    assert found["map"].clusters.tolist() == ["q1", "q2", "q3"]
    assert found["map"].counts.tolist() == [[1, 1], [1, 0], [1, 0]]
    cross = outcomes(made)["cross"]["map"]
    assert cross.counts.sum(axis=0).tolist() == [1, 1], "only ids that both languages have"
    others = found["r10_other"]
    assert others.counts.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_no_observation_is_no_figure():
    empty = Outcome(("de",), np.array(["q1"]), np.zeros((1, 1)), np.zeros((1, 1), dtype=int))
    assert empty.figure() is None
    assert empty.by_group() == {"de": None}


def test_a_topics_number_counts_within_its_language():
    ranked = np.array([[1, 0], [UNFOUND, 2]])
    grades = np.array([[1, 0], [1, 1]])
    found = Found(("sw", "yo"), np.array(["7", "7"]), np.array([0, 1]), ranked, grades)
    judged = outcomes(found)["judged"]
    assert judged["r100"].by_group() == {"sw": 1.0, "yo": 0.5}
    assert judged["r100"].clusters.tolist() == ["sw 7", "yo 7"]
    gain = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert judged["ndcg10"].figure() == pytest.approx((1 + gain) / 2, abs=1e-6)
