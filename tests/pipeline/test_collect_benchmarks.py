"""What `collect` does with benchmarks: all of them in one folder, or one line that says why not."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, SAMPLE
from hexapla.cli import app
from hexapla.io import download, hashing
from stand_ins import lareqa, mteb, paragraph, serving

BODY = lareqa(paragraph(("q1", 1), ("q2", 0))).encode()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*benchmarks, sources=({"kind": "sample"},)):
    """The stage as its command line runs it, in the current folder; gives its summary's benchmarks."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["benchmarks"], tree["collect"]["sources"] = list(benchmarks), list(sources)
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    flags = {
        "out": "pairs",
        "summary": "summary.json",
        "sample": str(SAMPLE),
        "benchmarks-out": "judged",
    }
    app.main(["stage", "collect", *(part for flag, value in flags.items() for part in (f"--{flag}", value))])
    return json.loads(Path("summary.json").read_text(encoding="utf-8"))["benchmarks"]


def refused(capsys, *benchmarks, **flags):
    with pytest.raises(SystemExit) as caught:
        run(*benchmarks, **flags)
    assert caught.value.code == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("hexapla stage collect: ")
    ]
    return line


def test_folders_and_addresses_end_in_one_folder_with_what_they_are(here):
    (here / "own").mkdir()
    for name in ("de.json", "en.json"):
        (here / "own" / name).write_bytes(BODY)
    (here / "own" / "LICENSE").write_text("yours")
    mteb(here / "wiki", "sw")
    mteb(here / "wiki", "yo")
    digest = hashlib.sha256(BODY).hexdigest()
    with serving({"/fr.json": [BODY]}) as (address, _):
        url = f"{address}/{{lang}}.json"
        cards = run(
            {"name": "own", "path": "own", "languages": ["de"], "passage_unit": "sentence_in_context"},
            {"name": "wiki", "path": "wiki", "languages": ["yo"]},
            {"name": "far", "url": url, "sha256": {"fr": digest}},
        )
    file = {"sha256": digest, "bytes": len(BODY)}
    assert cards["own"] == {
        "origin": "own", "license": "", "format": "lareqa", "languages": ["de"],
        "queries": 2, "passages": 2, "files": {"de.json": file, "en.json": file},
    }  # fmt: skip
    assert (cards["far"]["origin"], cards["far"]["files"]) == (url, {"fr.json": file})
    assert (cards["wiki"]["format"], cards["wiki"]["languages"], cards["wiki"]["queries"]) == (
        "miracl",
        ["yo"],
        2,
    )
    held = {
        path.relative_to(here / "judged").as_posix()
        for path in (here / "judged").rglob("*")
        if path.is_file() and path.name != ".hexapla"
    }
    assert held == {f"{name}/{file}" for name, card in cards.items() for file in card["files"]}
    assert "own/LICENSE" not in held
    for name, card in cards.items():
        assert all(
            hashing.sha256(here / "judged" / name / file) == of["sha256"]
            for file, of in card["files"].items()
        )


def test_a_broken_one_is_one_line_names_the_users_file_and_leaves_nothing(here, capsys):
    (here / "own").mkdir()
    (here / "own" / "de.json").write_bytes(BODY)
    (here / "own" / "en.json").write_text('{"data": []}')
    line = refused(capsys, {"name": "own", "path": "own", "languages": ["de"]})
    assert line == (
        "hexapla stage collect: own/en.json: holds no questions; leave the language out, or fetch the file again"
    )
    assert sorted(path.name for path in here.iterdir()) == ["own", "params.yaml"]
    (here / "own" / "en.json").rename(here / "own" / "notes.json")
    assert "own/notes.json: 'notes' is no language code" in refused(capsys, {"name": "own", "path": "own"})


def test_what_was_fetched_outlives_another_ones_failure_and_dvc(here, capsys):
    digest = hashlib.sha256(BODY).hexdigest()
    with serving({"/fr.json": [BODY]}) as (address, asked):
        far = {"name": "far", "url": f"{address}/{{lang}}.json", "sha256": {"fr": digest}}
        gone = {**far, "name": "gone", "url": f"{address}/gone/{{lang}}.json"}
        assert "/gone/fr.json: can't be fetched (HTTP 404); " in refused(capsys, far, gone)
        assert not (here / "judged").exists()
        run(far)
    assert asked.count("/fr.json") == 1
    run(far)  # nobody serves it any more


def test_a_folder_inside_the_output_is_not_wiped(here, capsys):
    (here / "judged" / "own").mkdir(parents=True)
    (here / "judged" / "own" / "de.json").write_bytes(BODY)
    line = refused(capsys, {"name": "own", "path": "judged/own"})
    assert "benchmarks: 'own' is in judged, which `collect` replaces" in line
    assert (here / "judged" / "own" / "de.json").read_bytes() == BODY


def test_a_bad_source_writes_no_benchmark_either(here, capsys):
    (here / "own.jsonl").write_text("{")
    benchmark = {"name": "own", "path": str(SAMPLE / "benchmark")}
    line = refused(capsys, benchmark, sources=[{"kind": "files", "path": "own.jsonl"}])
    assert "own.jsonl:1: broken JSON" in line
    assert sorted(path.name for path in here.iterdir()) == ["cache", "own.jsonl", "params.yaml"]
    assert {path.name for path in (here / "cache").rglob("*") if path.is_file()} <= {"CACHEDIR.TAG"}


def test_a_preset_without_a_network_says_what_to_do(here, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    line = refused(capsys, {"preset": "miracl-yo"})
    assert "mteb/MIRACLRetrieval@9c09abc1" in line
    assert "put the files into data/benchmarks/miracl-yo and give that as `path:`" in line


def test_xquad_r_from_a_folder_counts_what_was_published(xquad_r):
    card = run({"name": "xquad-r", "path": str(xquad_r)})["xquad-r"]
    assert (card["queries"], card["passages"], len(card["files"])) == (13090, 13014, 11)
