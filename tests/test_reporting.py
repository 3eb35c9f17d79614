import json
import re

import pytest

from hexapla import comparison, reporting
from hexapla.stages.gate import gate
from worlds import model, summaries

MODELS = [
    model("candidate", map_multi=0.75, rank_distance=20.0),
    model("untuned", map_multi=0.40, rank_distance=90.0),
    model("crosslingual", map_multi=0.80, rank_distance=20.0),
]


def report(models=MODELS, **validation):
    benchmarks = models[0].results[0].benchmarks
    compared = {b: comparison.compared(b, [each.judged() for each in models]) for b in benchmarks}
    return reporting.markdown(reporting.Data(*summaries(**validation).values()), models, compared, "figures")


def test_every_model_stands_in_the_training_table():
    section = report().split("## How the models were made")[1].split("\n#")[0]
    assert re.findall(r"^\| (candidate|untuned|crosslingual)\b", section, re.MULTILINE) == [
        "candidate",
        "untuned",
        "crosslingual",
    ]


def test_limits_speak_of_seeds_only_while_there_is_one():
    assert "trained once, with seed 7" in report()
    assert "trained once" not in report([model("candidate", seeds=(7, 8)), *MODELS[1:]])


def test_what_was_rejected_is_told_by_language():
    text = report()
    assert "27 met every expectation (90.0%; the stage fails below 80%)" in text
    assert re.search(r"\| passage language +\| de 1, en 1, zh 1 +\| +3 \|", text)
    assert "Met by every row: language code." in text
    assert "sample: 120 texts, 0 found" in text


def test_names_from_data_are_no_markup():
    hostile = model("candidate", benchmark="sample")
    hostile.training["encoder"] = "x`|<script>"
    text = report([hostile], benchmarks={"<b>|*": {"texts": 1, "matches": 0}})
    assert "\\<b\\>\\|\\*" in text
    assert "`x'/<script>`" in text


def test_models_without_training_have_no_loss_figure():
    text = report([model("candidate", sampler="untuned")])
    assert "loss.png" not in text
    assert "candidate (untuned)" in text


def test_every_benchmark_has_its_own_chapter():
    one, other = MODELS[0].results[0], model("candidate", benchmark="xquad-r").results[0]
    both = one._replace(
        scores=one.scores | other.scores,
        benchmarks=one.benchmarks | other.benchmarks,
        outcomes=one.outcomes | other.outcomes,
    )
    text = report([MODELS[0]._replace(results=[both])])
    assert re.findall(r"^## Results on (.*)$", text, re.MULTILINE) == ["sample", "xquad-r"]
    assert "figures/xquad-r-rank-distance.png" in text


def test_the_gate_is_a_command(tmp_path, caplog):
    for name, tree in {
        "scores": {"sample": {"none": {"map_multi": 0.7}}},
        "accepted": {"sample": {"none": {"map_multi": {"accepted": 0.8, "tolerance": 0.01}}}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    caplog.set_level("INFO")
    with pytest.raises(SystemExit, match="1"):
        gate(scores=tmp_path / "scores.json", accepted=tmp_path / "accepted.json")
    assert "falls short" in caplog.text
    gate(scores=tmp_path / "scores.json", accepted=_lowered(tmp_path))


def _lowered(folder):
    path = folder / "lower.json"
    path.write_text('{"sample": {"none": {"map_multi": {"accepted": 0.7, "tolerance": 0.0}}}}')
    return path
