"""`hexapla evaluate`, called as a person calls it, and the stage of the same name."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, SAMPLE
from hexapla.config import Evaluate, FolderBenchmark
from hexapla.evaluation import results
from hexapla.pipeline.evaluate import evaluate as stage
from stand_ins import miracl


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Two languages of the sample's benchmark."""
    folder = tmp_path_factory.mktemp("data") / "held-out"
    folder.mkdir()
    for lang in ("de", "en"):
        shutil.copy(SAMPLE / "benchmark" / f"{lang}.json", folder)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No params.yaml lies here."""
    monkeypatch.chdir(tmp_path)


def test_tables_are_printed_and_the_folder_is_the_stages(
    hexapla, tiny_folder, held_out, tmp_path, tracking_store
):
    status, out, err = hexapla(
        "evaluate", tiny_folder, "--benchmark", held_out, "--centering", "none", "language",
        "--precision", "fp32", "--out", "made",
    )  # fmt: skip
    assert status == 0, err
    assert re.search(r"^mAP multi +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] +0\.\d{3} \[", out, re.MULTILINE)
    assert re.search(r"^de +0\.\d{3}", out, re.MULTILINE)
    stage(
        (FolderBenchmark(name="held-out", path="unused"),),
        Evaluate(centering=("none", "language")),
        model=tiny_folder, data=held_out.parent, out=tmp_path / "staged",
    )  # fmt: skip
    made, staged = (tmp_path / name for name in ("made", "staged"))
    for file in (results.SCORES, results.QUESTIONS):
        assert (made / file).read_bytes() == (staged / file).read_bytes()
    card = json.loads((made / results.DETAILS).read_text())["model"]
    assert card["evaluation"]["precision"] == "fp32"
    assert card["model_sha256"] == json.loads((staged / results.DETAILS).read_text())["model"]["model_sha256"]
    assert hexapla("compare", "made", "staged")[0] == 0


def test_several_benchmarks_of_both_formats(hexapla, tiny_folder, held_out, tmp_path):
    judged = miracl(tmp_path / "judged")
    status, out, err = hexapla(
        "evaluate", tiny_folder, "--benchmark", held_out, judged, "--passage-unit", "sentence"
    )
    assert status == 0, err
    assert "nDCG@10" in out
    assert "Rank distance" in out


def test_context_and_prompts_change_the_figures(hexapla, tiny_folder, held_out):
    def figures(*more):
        assert hexapla(
            "evaluate", tiny_folder, "--benchmark", held_out, "--precision", "fp32", "--out", "x", *more
        )[0] == 0  # fmt: skip
        return json.loads(Path("x/scores.json").read_text())["held-out"]["none"]

    plain = figures()
    assert figures("--passage-unit", "sentence_in_context") != plain
    assert figures("--query-prompt", "query: ") != plain
    assert figures() == plain


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["./nowhere", "--benchmark", "{b}"], "encoder './nowhere': no such folder"),
        (["{m}", "--benchmark", "xquad"], "did you mean 'xquad-r'"),
        (["{m}", "--benchmark", "{b}", "{b}"], "two are called 'held-out'"),
        (["{m}"], "Missing option '--benchmark'"),
        (
            ["{m}", "--benchmark", "{b}", "--query-tokens", "2"],
            "'--query-tokens': Input should be greater than or equal to 4",
        ),
        (["{m}", "--benchmark", "{b}", "--centering", "trained"], "centering.safetensors: not found"),
        (["{m}", "--benchmark", "{b}", "--device", "abacus"], "device 'abacus': not on this machine"),
        (["{m}", "--benchmark", "{b}", "--out", "{b}/de.json"], "de.json is no folder"),
        (["{b}", "--benchmark", "{b}"], "holds no safetensors"),
        (["{m}", "--benchmark", "{m}"], "no benchmark; looked for <lang>.json"),
    ],
)
def test_mistakes_are_one_line_and_status_2(hexapla, tiny_folder, held_out, argv, words):
    status, _, err = hexapla("evaluate", *(each.format(m=tiny_folder, b=held_out) for each in argv))
    assert status == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("hexapla evaluate: ")
    assert words in line


def test_names_in_params_are_known(hexapla, tiny_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out, _ = hexapla("evaluate", tiny_folder, "--benchmark", "sample", "--precision", "fp32")
    assert status == 0
    assert "on sample" in out


def test_the_file_of_settings_names_the_benchmarks(hexapla, tiny_folder, held_out, tmp_path):
    other = yaml.safe_load((ROOT / "params.yaml").read_text())
    other["benchmarks"] = [{"name": "mine", "path": str(held_out)}]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    argv = ("evaluate", tiny_folder, "--benchmark", "mine", "--precision", "fp32", "--params")
    status, out, err = hexapla(*argv, "other.yaml")
    assert status == 0, err
    assert "on mine" in out
    status, _, err = hexapla(*argv, "gone.yaml")
    assert (status, err) == (2, "hexapla evaluate: gone.yaml: not found; run from the repository's root\n")
