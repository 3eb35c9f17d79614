"""The gate as `make gate` calls it: a table in the log, and an exit status."""

import json
import logging
import re

import pytest


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
