import json

import numpy as np
import pytest

from hexapla.evaluation import results
from hexapla.evaluation.metrics import average_headlines, score_queries
from hexapla.evaluation.ranking import JudgedRanks
from hexapla.evaluation.results import RankedBenchmark
from hexapla.schema import UNFOUND, UserError
from worlds import LANGUAGES, ranks, written


def test_what_is_read_is_what_was_written(tmp_path):
    made = ranks(3)
    made.in_language[4, 2] = made.in_pool[4, 2] = 0
    found = JudgedRanks(
        ("sw", "yo"),
        np.array(["1", "2", "1"]),
        np.array([0, 0, 1]),
        np.array([[3, UNFOUND], [UNFOUND, 0], [1, 2]]),
        np.array([[1, 2], [1, 0], [1, 1]]),
    )
    results.write(
        tmp_path / "out",
        {"name": "m", "training": {"seed": 1}},
        {
            "sample": RankedBenchmark("lareqa", LANGUAGES, 36, 99, {"none": made, "language": ranks(4)}),
            "miracl": RankedBenchmark("miracl", ("sw", "yo"), 3, 500, {"none": found}),
        },
    )
    read = results.read(tmp_path / "out")
    assert (read.card["name"], read.training, read.evaluation) == ("m", {"seed": 1}, {})
    judged = (("sample", "none", made), ("sample", "language", ranks(4)), ("miracl", "none", found))
    for name, how, given in judged:
        again = read.query_scores[name][how]
        for setting, each in score_queries(given).items():
            for measure, outcome in each.items():
                np.testing.assert_array_equal(again[setting][measure].sums, outcome.sums)
                np.testing.assert_array_equal(again[setting][measure].counts, outcome.counts)
        assert average_headlines(again) == read.scores[name][how]
    assert set(read.scores["miracl"]["none"]) == {"ndcg10", "r100"}
    assert "ndcg10" not in read.scores["sample"]["none"]
    assert read.benchmarks["sample"]["centering"]["none"]["matrices"]["r1"][0][0] == pytest.approx(
        (made.in_language[:12, 0] == 1).mean(), abs=1e-6
    )


def test_the_same_ranks_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        written(tmp_path / name, "m")
    for file in (results.SCORES, results.DETAILS, results.QUESTIONS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    written(tmp_path, "m")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_flat_names():
    scores = {"sample": {"none": {"map_multi": 0.5, "map_mono": None}, "language": {"map_multi": 0.6}}}
    assert results.flatten(scores) == {"sample/map_multi": 0.5, "sample/language/map_multi": 0.6}


def test_a_folder_that_is_none_or_is_broken_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"scores\.json: not found"):
        results.read(tmp_path / "gone")
    folder = written(tmp_path / "m", "m")
    (folder / results.DETAILS).write_text(json.dumps({"model": {}}))
    with pytest.raises(UserError, match="not a results folder of this version"):
        results.read(folder)
    written(folder, "m")
    whole = (folder / results.QUESTIONS).read_bytes()
    (folder / results.QUESTIONS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"questions\.parquet: not a readable Parquet file"):
        results.read(folder)
