"""The gate as `make gate` calls it: a table in the log, and an exit status."""

import json
import logging
import re

import pytest

from hexapla.pipeline.gate import check_scores
from hexapla.schema import UserError


@pytest.fixture
def files(tmp_path):
    accepted = {"sample": {"none": {"map_multi": {"accepted": 0.8, "tolerance": 0.01}}}}
    (tmp_path / "accepted.json").write_text(json.dumps(accepted))

    def write(value):
        (tmp_path / "scores.json").write_text(json.dumps({"sample": {"none": {"map_multi": value}}}))
        return "gate", "--scores", tmp_path / "scores.json", "--accepted", tmp_path / "accepted.json"

    return write


@pytest.mark.parametrize(
    ("value", "status", "verdict"), [(0.9, 0, "holds"), (0.796, 0, "holds"), (0.7, 1, "falls short")]
)
def test_a_table_says_what_holds_and_the_status_is_1_if_something_falls_short(
    hexapla, files, caplog, value, status, verdict
):
    with caplog.at_level(logging.INFO):
        assert hexapla(*files(value))[0] == status
    table, *advice = caplog.messages
    cells = re.split(r" {2,}", table.splitlines()[-1])
    assert cells == ["sample", "mAP multi", "0.800", "0.01", f"{value:.3f}", verdict]
    assert ["accepted.json in the same commit" in line for line in advice] == [True] * status


def test_missing_scores_are_one_line(hexapla, files, tmp_path):
    words = files(0.8)
    (tmp_path / "scores.json").unlink()
    status, _, error = hexapla(*words)
    assert status == 2
    assert error.startswith("hexapla gate: ")
    assert "scores.json" in error
    assert error.count("\n") == 1


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
    checks = check_scores({"sample": {"none": GOOD | now}}, ACCEPTED, "a.json")
    return [each.metric.key for each in checks if each.falls_short]


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
        (
            {"sample": {"language": {"map_multi": {}}}},
            "centering 'language' was not evaluated; there are: none",
        ),
        ({"sample": {"map_multi": 0.5}}, "must be a mapping of metrics"),
        ({"sample": {"none": {"map": {"accepted": 1, "tolerance": 0}}}}, "'map' is not one of"),
        ({"sample": {"none": {"map_multi": 0.5}}}, "numbers `accepted` and `tolerance`"),
        ({"sample": {"none": {"r1_mono": {"accepted": 1, "tolerance": 0}}}}, "no such score"),
        ({}, "no score to check"),
    ],
)
def test_a_gate_that_checks_nothing_is_a_mistake(accepted, words):
    with pytest.raises(UserError, match=r"^a\.json: ") as caught:
        check_scores({"sample": {"none": GOOD}}, accepted, "a.json")
    assert words in str(caught.value)
