"""`hexapla compare`, called as a person calls it."""

import re

import pytest

from worlds import written


def test_figures_intervals_differences_and_the_method(hexapla, tmp_path):
    good, bad = written(tmp_path / "a", "good", 0, near=5.0), written(tmp_path / "b", "bad", 1, near=0.5)
    status, out, _ = hexapla("compare", good, bad)
    assert status == 0
    (line,) = re.findall(r"^bad .*$", out, re.MULTILINE)
    assert "▼" in line
    assert re.search(r"^mAP multi +0\.\d+ \[0\.\d+, 0\.\d+\]", out, re.MULTILINE)
    assert re.search(r"^mAP multi +\+0\.\d+ \(p [=<] 0\.\d+\) †$", out, re.MULTILINE)
    assert "Holm-corrected" in out
    assert "sample, centered: language" in hexapla("compare", good, bad, "--centering", "language")[1]


def test_a_control_stands_beside_the_model_that_was_trained(hexapla, tmp_path):
    good, bad = written(tmp_path / "a", "good", 0, near=5.0), written(tmp_path / "b", "bad", 1, near=0.5)
    plain = hexapla("compare", good, bad)[1]
    status, out, _ = hexapla("compare", good, bad, "--control", "language")
    assert status == 0
    assert len(re.findall(r"^bad, centered: language ", out, re.MULTILINE)) == 1
    assert len(re.findall(r"^bad ", out, re.MULTILINE)) == len(re.findall(r"^bad ", plain, re.MULTILINE))
    assert "with centering 'none' and 'trained'" in hexapla("compare", good, bad, "--control", "trained")[2]


def test_seeds_of_one_configuration_are_one_model(hexapla, tmp_path):
    one, two = (written(tmp_path / str(i), "m", i, seed=i, alpha=0.5, sampler="hybrid") for i in (1, 2))
    other = written(tmp_path / "other", "other", 3)
    status, out, _ = hexapla("compare", one, other, two)
    assert status == 0
    assert " ± " in out
    assert out.count("minus") == 1


def test_what_was_not_judged_alike_is_said_first(hexapla, tmp_path):
    one, two = (written(tmp_path / str(n), str(n), n, evaluation={"query_tokens": n}) for n in (32, 96))
    assert hexapla("compare", one, two)[1].startswith("Evaluated with different query_tokens: 32 32; 96 96\n")


def test_models_of_one_name_are_told_apart_by_their_folders(hexapla, tmp_path):
    one, two = (written(tmp_path / name, "m", i) for i, name in enumerate("ab"))
    out = hexapla("compare", one, two)[1]
    assert str(one) in out
    assert str(two) in out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["compare", "gone", "gone2"], "hexapla compare: gone/scores.json: not found"),
        (["compare"], "hexapla compare: Missing argument 'DIR'"),
        (["compare", "{a}"], "hexapla compare: wants the folders of at least two different models"),
        (
            ["compare", "{a}", "{b}", "--centering", "trained"],
            "hexapla compare: no benchmark that all have with centering 'trained' (a: sample (none, language)",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(hexapla, tmp_path, argv, line):
    folders = {name: written(tmp_path / name, name) for name in "ab"}
    status, _, err = hexapla(*(each.format(**folders) for each in argv))
    assert status == 2
    assert err.startswith(line)
    assert err.count("\n") == 1
