import re
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from hexapla import params
from hexapla.records import Mistake

TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def written(tmp_path, change):
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(tree)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


def test_shipped_file_loads_with_every_key_that_the_dataclasses_have():
    loaded = params.load(ROOT / "params.yaml")
    assert loaded.sampler == TREE["sampler"]
    assert loaded.train.learning_rate == TREE["train"]["learning_rate"]
    assert set(TREE["train"]) == set(params.Train.__dataclass_fields__)
    assert set(TREE["validate"]) == set(params.Validate.__dataclass_fields__)
    assert set(TREE) == set(params.Params.__dataclass_fields__)


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
        (lambda t: t["collect"].update(sources=[{}]), "collect.sources[0].kind: missing"),
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
    with pytest.raises(Mistake, match=re.escape(message)) as caught:
        params.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\n", "\x00"])
def test_broken_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(Mistake) as caught:
        params.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file_names_itself():
    with pytest.raises(Mistake, match="nowhere.yaml: not found"):
        params.load(Path("nowhere.yaml"))


def test_norwegian_is_a_language_and_exponents_are_numbers(tmp_path):
    path = written(tmp_path, lambda t: t["train"].update(learning_rate="RATE"))
    path.write_text(path.read_text().replace("- zh", "- no").replace("RATE", "1e-5"))
    loaded = params.load(path)
    assert "no" in loaded.translate.languages
    assert loaded.train.learning_rate == pytest.approx(1e-5)
