import pytest

from hexapla.evaluation import scoreboard
from hexapla.evaluation.per_query import outcomes
from hexapla.evaluation.results import headline
from hexapla.evaluation.scoreboard import MEASURES, best, check
from hexapla.schema import UserError
from worlds import ranks

GOOD = {"map_multi": 0.8, "rank_distance": 40.0, "own_language_top10": 0.1}
ACCEPTED = {
    "sample": {
        "none": {
            "map_multi": {"accepted": 0.8, "tolerance": 0.01},
            "rank_distance": {"accepted": 40.0, "tolerance": 4.0},
        }
    }
}


def short(**now):
    checks = check({"sample": {"none": GOOD | now}}, ACCEPTED, "a.json")
    return [each.measure.key for each in checks if each.short]


def test_every_headline_figure_is_an_outcome_of_its_setting():
    found = outcomes(ranks())
    for key, measure in MEASURES.items():
        if measure in scoreboard.JUDGED:
            continue
        assert found[measure.setting][measure.name].figure() == headline(found)[key]


def test_best_knows_the_direction_of_each_measure():
    boards = [
        {"map_multi": 0.5, "rank_distance": 9.0, "own_language_top10": 0.01},
        {"map_multi": 0.7, "rank_distance": 3.0, "own_language_top10": 0.30},
        {"map_multi": None, "rank_distance": None, "own_language_top10": 0.45},
    ]
    assert best(MEASURES["map_multi"], boards, 4) == {1}
    assert best(MEASURES["rank_distance"], boards, 4) == {1}
    assert best(MEASURES["own_language_top10"], boards, 4) == {1}, "1/4 is even; 0.01 shuns its own language"


def test_what_looks_equal_is_equally_good():
    boards = [{"map_multi": 0.70011}, {"map_multi": 0.70049}, {"map_multi": 0.6996}]
    assert best(MEASURES["map_multi"], boards, 4) == {0, 1, 2}
    assert best(MEASURES["map_multi"], [{"map_multi": None}], 4) == set()


def test_the_gate_lets_better_and_slightly_worse_pass():
    assert short() == []
    assert short(map_multi=0.95, rank_distance=12.0) == []
    assert short(map_multi=0.791, rank_distance=43.9) == []


def test_the_gate_names_what_falls_short():
    assert short(map_multi=0.78) == ["map_multi"]
    assert short(rank_distance=44.1) == ["rank_distance"]


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ({"nope": {"none": {"map_multi": {}}}}, "benchmark 'nope'"),
        ({"sample": {"language": {"map_multi": {}}}}, "centering 'language' was not judged; there are: none"),
        ({"sample": {"map_multi": 0.5}}, "wants a mapping of measures"),
        ({"sample": {"none": {"map": {"accepted": 1, "tolerance": 0}}}}, "'map' is not one of"),
        ({"sample": {"none": {"map_multi": 0.5}}}, "numbers `accepted`, `tolerance`"),
        ({"sample": {"none": {"r1_mono": {"accepted": 1, "tolerance": 0}}}}, "no such figure"),
        ({}, "no figure to check"),
    ],
)
def test_a_gate_that_checks_nothing_is_a_mistake(accepted, words):
    with pytest.raises(UserError, match=r"^a\.json: ") as caught:
        check({"sample": {"none": GOOD}}, accepted, "a.json")
    assert words in str(caught.value)


def test_ideals():
    assert scoreboard.MEASURES["rank_distance"].ideal(11) == 10
    assert scoreboard.MEASURES["worst_rank"].ideal(11) == 11
    assert scoreboard.MEASURES["own_language_top10"].ideal(4) == 0.25
    assert scoreboard.MEASURES["map_mono"].ideal(4) == 1
