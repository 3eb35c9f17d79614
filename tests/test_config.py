import re
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from hexapla import config, config_data
from hexapla.schema import UserError

TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def written(tmp_path, change):
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(tree)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


def test_shipped_file_loads_with_every_key_that_the_dataclasses_have():
    loaded = config.load(ROOT / "params.yaml")
    assert loaded.sampler == TREE["sampler"]
    assert loaded.train.learning_rate == TREE["train"]["learning_rate"]
    assert set(TREE["train"]) == set(config.Train.__dataclass_fields__)
    assert set(TREE["validate"]) == set(config.Validate.__dataclass_fields__)
    assert set(TREE) == set(config.Params.__dataclass_fields__)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(sampler="nope"), "sampler: 'nope' is not one of hybrid, monolingual"),
        (lambda t: t.update(sampller="hybrid"), "sampller: unknown key; did you mean 'sampler'?"),
        (lambda t: t["train"].update(step=3), "train.step: unknown key; did you mean 'steps'?"),
        (lambda t: t["train"].update(steps="many"), "train.steps: wants a whole number, got 'many'"),
        (lambda t: t["train"].update(steps=True), "train.steps: wants a whole number, got True"),
        (lambda t: t["train"].update(steps=0), "train.steps: must be at least 1, got 0"),
        (lambda t: t["train"].update(learning_rate=0), "train.learning_rate: must be above 0"),
        (lambda t: t["train"].update(learning_rate=float("nan")), "train.learning_rate: must be above 0"),
        (lambda t: t["hybrid"].update(alpha=1.5), "hybrid.alpha: must be between 0.0 and 1.0"),
        (lambda t: t["translate"].update(languages=[]), "translate.languages: the list is empty"),
        (lambda t: t["translate"].update(languages="de"), "translate.languages: wants a list, got 'de'"),
        (lambda t: t["translate"].update(languages=["de", "de"]), "translate.languages: 'de' stands twice"),
        (lambda t: t["translate"].update(languages=["en"]), "translate.languages: 'en' is the source"),
        (lambda t: t["translate"].update(engine="transformers"), "translate.model: the engine"),
        (lambda t: t["collect"].update(sources=[{"kind": "hub"}]), "collect.sources[0].dataset: a source"),
        (
            lambda t: t["collect"].update(sources=[{}]),
            "collect.sources[0].kind: wants one of kind and preset",
        ),
        (lambda t: t["collect"].update(sources=[{"kind": "sample", "sample": 0}]), "sample: must be above 0"),
        (lambda t: t["collect"].update(sources=[{"preset": "squad", "path": "x"}]), "preset: brings path"),
        (
            lambda t: t["collect"].update(sources=[{"preset": "duorc", "revision": "x", "config": "y"}]),
            "preset: brings path, dataset, revision and url",
        ),
        (lambda t: t["validate"].update(languages={"th": {"min_kept": 0.1}}), "min_kept: is no bound"),
        (
            lambda t: t["validate"].update(max_length_ratio=float("inf")),
            "max_length_ratio: must be between 0",
        ),
        (lambda t: t["validate"].update(max_overlap=0.0), "max_overlap: must be above 0"),
        (
            lambda t: t["validate"].update(languages={"de": {"min_cosine": float("nan")}}),
            "validate.languages.de.min_cosine: must be between -1 and 1",
        ),
        (
            lambda t: t["validate"].update(languages={"th": {"min_script_share": 80}}),
            "validate.languages.th.min_script_share: must be between 0 and 1",
        ),
        (
            lambda t: t["validate"].update(sources={"a": {"min_length_ratio": 4}}),
            "validate.sources.a.min_length_ratio: above max_length_ratio",
        ),
        (lambda t: t["collect"].update(sources=[TREE["collect"]["sources"][0]] * 2), "called 'sample'"),
        (lambda t: t["validate"].update(min_kept=2), "validate.min_kept: must be between"),
        (lambda t: t["validate"].update(max_length_ratio=0), "validate.min_length_ratio: above"),
        (lambda t: t.update(baselines=["tuned"]), "baselines[0]: 'tuned' is not one of hybrid"),
        (lambda t: t.update(benchmarks=[{"name": "a b", "path": "x"}]), "benchmarks[0].name: 'a b' may"),
        (lambda t: t.pop("encoder"), "encoder: missing"),
        (lambda t: t.update(train=[1]), "train: wants a mapping, got [1]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_with_its_key(tmp_path, change, message):
    path = written(tmp_path, change)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        config.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\n", "\x00"])
def test_broken_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        config.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file_names_itself():
    with pytest.raises(UserError, match="nowhere.yaml: not found"):
        config.load(Path("nowhere.yaml"))


def test_norwegian_is_a_language_and_exponents_are_numbers(tmp_path):
    path = written(tmp_path, lambda t: t["train"].update(learning_rate="RATE"))
    path.write_text(path.read_text().replace("- zh", "- no").replace("RATE", "1e-5"))
    loaded = config.load(path)
    assert "no" in loaded.translate.languages
    assert loaded.train.learning_rate == pytest.approx(1e-5)


def test_a_sources_bounds_come_before_a_languages():
    known = config_data.Validate(
        languages={"th": {"min_cosine": 0.1, "min_length_ratio": 0.3}}, sources={"faq": {"min_cosine": 0.2}}
    )
    assert known.bounds()["min_cosine"] == known.min_cosine
    assert known.bounds("th")["min_cosine"] == 0.1
    own = known.bounds("th", "faq")
    assert (own["min_cosine"], own["min_length_ratio"], own["max_length_ratio"]) == (0.2, 0.3, 3.0)


def test_each_language_may_have_its_own_model():
    two = {"de": "opus-de", "es": "opus-es"}
    config_data.Translate(engine="ctranslate2", models=two, languages=("de", "es"))
    with pytest.raises(ValueError, match="models: {fr"):
        config_data.Translate(engine="ctranslate2", models=two, languages=("de", "fr"))
