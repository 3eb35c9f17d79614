"""Models and datasets are named with a commit: what may move is refused, unless the settings allow it and say so."""

import json

import pytest
import yaml

from conftest import ROOT, SAMPLE
from hexapla import config
from hexapla.benchmarks import registry
from hexapla.config import Collect, HubBenchmark, HubSource
from hexapla.data.translate import nmt
from hexapla.io import download
from hexapla.modeling import encoder
from hexapla.pipeline.collect import collect
from hexapla.schema import UserError
from hub.fixtures import LABSE, ONE, TWO

MODEL = "Helsinki-NLP/opus-mt-en-de"
PROMPTS = {"query": "", "passage": ""}


def message(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "revision", ["main", "refs/pr/45", "v1.0", "abc", "e73636D4f797dec63c3081bb6ed5c7b0bb3f2089"]
)
def test_an_encoder_that_may_move_is_refused_with_the_commit_where_the_hub_tells_it(online, revision):
    online.make("sentence-transformers/LaBSE")
    said = message(encoder.load, f"sentence-transformers/LaBSE@{revision}", prompts=PROMPTS, device="cpu")
    assert said.startswith(f"encoder 'sentence-transformers/LaBSE@{revision}': '{revision}' may move; take ")
    page = f"https://huggingface.co/sentence-transformers/LaBSE/commits/{revision.replace('/', '%2F')}"
    assert said.endswith(LABSE if revision == "main" else page)
    assert not [path for _, path, _ in online.requests if "resolve" in path]


def test_a_pull_request_is_refused_with_its_commit_and_the_commit_is_taken(online):
    online.make(MODEL)
    said = message(nmt.open_model, f"{MODEL}@refs/pr/45")
    assert said.startswith(f"translate.model '{MODEL}@refs/pr/45': 'refs/pr/45' may move; take the commit ")
    assert said.endswith(f" that it points to now, {TWO}")
    assert nmt.open_model(f"{MODEL}@{TWO}").fingerprint == f"{MODEL}@{TWO}"
    assert "in a pull request, whose commit" in message(nmt.open_model, f"{MODEL}@{ONE}")


def test_a_hub_that_is_out_of_reach_leaves_its_page_as_advice():
    said = message(encoder.load, "who/ever@main", prompts=PROMPTS, device="cpu")
    assert said.endswith(
        "take a commit (40 hexadecimal digits) from https://huggingface.co/who/ever/commits/main"
    )


# --- the settings --------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path, hexapla, monkeypatch):
    """Run a stage that needs nothing else, with some settings changed."""

    def run(change):
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        tree["benchmarks"][0]["path"] = str(SAMPLE / "benchmark")
        change(tree)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
        monkeypatch.chdir(tmp_path)
        outs = ("--out", "pairs", "--benchmarks-out", "benchmarks", "--summary", "summary.json")
        return hexapla("stage", "collect", "--params", "params.yaml", "--sample", SAMPLE, *outs)

    return run


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda t: t["encoders"][t["encoder"]].update(model="a/b@main"),
            ".model: 'main' may move",
        ),
        (lambda t: t["translate"].update(cosine="a/b@refs/pr/1"), "translate.cosine: 'refs/pr/1' may move"),
        (
            lambda t: t.update(translate={"engine": "transformers", "model": "a/b@x", "languages": ["de"]}),
            "translate.model: 'x' may move",
        ),
        (
            lambda t: t.update(
                translate={"engine": "ctranslate2", "models": {"de": "a/b@x"}, "languages": ["de"]}
            ),
            "translate.models.de: 'x' may move",
        ),
        (
            lambda t: t["collect"].update(sources=[{"kind": "hub", "dataset": "a/b", "revision": "main"}]),
            "https://huggingface.co/datasets/a/b/commits/main, or say `allow_unpinned: true`",
        ),
        (
            lambda t: t.update(benchmarks=[{"name": "x", "hub": "a/b", "revision": "main"}]),
            "benchmarks[0].revision: wants a commit (40 hexadecimal digits)",
        ),
    ],
)
def test_the_first_stage_refuses_whatever_may_move(stage, change, named):
    status, _, err = stage(change)
    assert (status, err.count("\n")) == (2, 1)
    assert "params.yaml: " in err
    assert named in err


def test_the_shipped_settings_are_pinned(stage):
    assert stage(lambda tree: None)[0] == 0


# --- what the settings allow ---------------------------------------------------------------------


@pytest.fixture
def collected(online, tmp_path):
    """Collect a source and a benchmark of the hub by the name of a branch; give the summary."""

    def run(**allowed):
        online.make("own/lines", "own/lareqa")
        source = HubSource(
            dataset="own/lines", columns={"question": "q", "passage": "body.text"}, revision="main", **allowed
        )
        benchmark = HubBenchmark(name="xq", hub="own/lareqa", revision="main", **allowed)
        folders = {
            "out": tmp_path / "pairs",
            "benchmarks_out": tmp_path / "b",
            "summary": tmp_path / "s.json",
        }
        collect(Collect(sources=(source,)), (benchmark,), sample=SAMPLE, **folders)
        return json.loads((tmp_path / "s.json").read_text())

    return run


def test_what_may_move_is_read_where_that_is_allowed_and_the_summary_tells_the_commit(collected):
    told = collected(allow_unpinned=True)
    assert told["pairs"] == 12
    assert told["unpinned"] == {"hub": {"dataset": "own/lines", "revision": "main", "commit": ONE}}
    assert told["benchmarks"]["xq"]["origin"] == f"own/lareqa@{ONE}"
    assert told["benchmarks"]["xq"]["unpinned"] == "main"


def test_a_branch_that_moved_is_read_anew(online, repositories, tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    online.make("own/lareqa")
    benchmark = HubBenchmark(name="xq", hub="own/lareqa", revision="main", allow_unpinned=True)
    first = registry.fetch(benchmark)
    assert registry.fetch(benchmark).folder == first.folder
    monkeypatch.setattr(download, "find_commit", lambda *_: "9" * 40)
    with pytest.raises(UserError, match=f"own/lareqa@{'9' * 40}"):
        registry.fetch(benchmark)


def test_without_leave_a_benchmark_is_refused_when_it_is_described():
    with pytest.raises(ValueError, match="or say `allow_unpinned: true`, which the summary then tells"):
        HubBenchmark(name="xq", hub="own/lareqa", revision="main")
    assert config.HubSource(dataset="own/lines", revision="main").allow_unpinned is False
