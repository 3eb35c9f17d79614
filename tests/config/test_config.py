import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest
import yaml

from conftest import ROOT
from hexapla import config
from hexapla.config import reading, reference
from hexapla.schema import UserError

TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def written(tmp_path, change):
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(tree)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


def sections(section: type[reading.Section], tree: dict) -> Iterator[tuple[type[reading.Section], dict]]:
    """Each section of a file with the keys that the file has for it."""
    yield section, tree
    for key, info in reading.fields(section).items():
        for kind in reference.sections(info.annotation):
            given = tree.get(key)
            if get_origin(info.annotation) is dict:
                given = [*given.values()]
            for one in given if isinstance(given, list) else [given]:
                if isinstance(one, dict) and (
                    not kind.tag or kind.tag in (f"{k}: {v}" for k, v in one.items())
                ):
                    yield from sections(kind, one)


@pytest.mark.parametrize("name", ["params.yaml", "params.paper.yaml"])
def test_shipped_files_load(name):
    assert config.load(ROOT / name).sampler == "hybrid"


def test_the_shipped_values_are_the_defaults():
    found = 0
    for section, tree in sections(config.Config, TREE):
        for key, value in tree.items():
            info = reading.fields(section)[key]
            if info.is_required() or list(reference.sections(info.annotation)):
                continue
            default = info.get_default(call_default_factory=True)
            given = tuple(value) if isinstance(value, list) else value
            assert given == default, f"{section.__name__}.{key}"
            found += 1
    assert found > 60


def test_the_shipped_file_has_every_key_of_the_sections_in_which_people_experiment():
    for section in (config.Train, config.Evaluate, config.Validate, config.Config):
        tree = TREE if section is config.Config else TREE[section.__name__.lower()]
        assert set(tree) == set(reading.fields(section)), section.__name__


def test_the_reference_is_current_and_describes_every_key():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.reference(), "python -m hexapla.config.reference > docs/configuration.md"
    for section, _ in sections(config.Config, TREE):
        assert set(reference.descriptions(section)) >= set(reading.fields(section)), section.__name__


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
        (
            lambda t: t["train"].update(learning_rate=float("nan")),
            "train.learning_rate: wants a finite number",
        ),
        (lambda t: t["hybrid"].update(alpha=1.5), "hybrid.alpha: must be at most 1, got 1.5"),
        (lambda t: t["translate"].update(languages=[]), "translate.languages: the list is empty"),
        (lambda t: t["translate"].update(languages="de"), "translate.languages: wants a list, got 'de'"),
        (
            lambda t: t["translate"].update(languages=["de", "de"]),
            "translate.languages: 'de' is listed twice",
        ),
        (lambda t: t["translate"].update(languages=["en"]), "translate.languages: 'en' is the source"),
        (
            lambda t: t.update(translate={"engine": "transformers", "languages": ["de"]}),
            "translate.model: the engine",
        ),
        (lambda t: t["collect"].update(sources=[{"kind": "hub"}]), "collect.sources[0].dataset: missing"),
        (
            lambda t: t["collect"].update(sources=[{}]),
            "collect.sources[0]: wants one of `preset`, `kind: sample`, `kind: files`, `kind: hub`, `kind: sql`, "
            "`kind: tmx`",
        ),
        (lambda t: t["collect"].update(sources=[{"kind": "sample", "sample": 0}]), "sample: must be above 0"),
        (
            lambda t: t["collect"].update(sources=[{"preset": "squad", "path": "x"}]),
            "sources[0].path: goes with `kind: files` or `kind: hub` or `kind: tmx`, not with `preset`",
        ),
        (
            lambda t: t["collect"].update(sources=[{"preset": "duorc", "revision": "x", "config": "y"}]),
            "sources[0].revision: goes with `kind: hub`, not with `preset`",
        ),
        (
            lambda t: t["translate"].update(engine="apertium", beams=2),
            "translate.beams: goes with `engine: trans",
        ),
        (
            lambda t: t["collect"].update(sources=[{"kind": "files", "path": "x", "query": "y"}]),
            "collect.sources[0].query: goes with `kind: sql`, not with `kind: files`; leave it out",
        ),
        (lambda t: t["translate"].update(engine="moses"), "translate: wants one of `engine: memory`, "),
        (
            lambda t: t["collect"].update(sources=["sample"]),
            "collect.sources[0]: wants a mapping, got 'sample'",
        ),
        (lambda t: t["train"].update(languages={"de": 0}), "train.languages.de: must be above 0, got 0"),
        (lambda t: t["validate"].update(min_cosine=None), "validate.min_cosine: wants a number, got None"),
        (lambda t: t["validate"].update(languages={"th": {"min_kept": 0.1}}), "min_kept: is no bound"),
        (
            lambda t: t["validate"].update(max_length_ratio=float("inf")),
            "max_length_ratio: wants a finite number",
        ),
        (lambda t: t["validate"].update(max_overlap=0.0), "max_overlap: must be above 0"),
        (
            lambda t: t["validate"].update(languages={"de": {"min_cosine": float("nan")}}),
            "validate.languages.de.min_cosine: wants a finite number",
        ),
        (
            lambda t: t["validate"].update(languages={"th": {"min_script_share": 80}}),
            "validate.languages.th.min_script_share: must be at most 1, got 80",
        ),
        (
            lambda t: t["validate"].update(sources={"a": {"min_length_ratio": 4}}),
            "validate.sources.a.min_length_ratio: above max_length_ratio",
        ),
        (lambda t: t["collect"].update(sources=[TREE["collect"]["sources"][0]] * 2), "called 'sample'"),
        (lambda t: t["validate"].update(min_kept=2), "validate.min_kept: must be at most 1, got 2"),
        (lambda t: t["validate"].update(max_length_ratio=0), "validate.min_length_ratio: above"),
        (
            lambda t: t["recipes"].update(x={"sampler": "untuned"}),
            "recipes.x.sampler: 'untuned' is not one of",
        ),
        (
            lambda t: t.update(encoder="e5-smal"),
            "encoder: 'e5-smal' is not in `encoders`; did you mean 'e5-small'?",
        ),
        (
            lambda t: t["comparison"].update(recipes=["x"]),
            "comparison.recipes: 'x' is not in `recipes`; known",
        ),
        (lambda t: t["comparison"].update(seeds=[1, 1]), "comparison.seeds: '1' is listed twice"),
        (
            lambda t: t["encoders"].update({"a/b": {"model": "x", "prompts": {"query": "", "passage": ""}}}),
            "encoders.a/b: a name has letters, digits, - and _ only",
        ),
        (
            lambda t: t["encoders"]["e5-small"].update(train={"step": 1}),
            "encoders.e5-small.train.step: unknown key; did you mean 'steps'?",
        ),
        (
            lambda t: t["recipes"]["hybrid"].update(train={"steps": 0}),
            "recipes.hybrid.train.steps: must be at least 1, got 0",
        ),
        (
            lambda t: t.update(benchmarks=[{"name": "a b", "path": "x"}]),
            "benchmarks[0].name: wants letters, digits, - and _ only, got 'a b'",
        ),
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


def test_what_differs_for_a_recipe_comes_before_what_differs_for_an_encoder(tmp_path):
    def change(tree):
        tree["encoders"]["e5-small"]["train"] = {"learning_rate": 1e-5, "holdout": 5}
        tree["recipes"]["hybrid"]["train"] = {"learning_rate": 2e-5}

    loaded = config.load(written(tmp_path, change))
    candidate, compared = loaded.candidate(), loaded.compared_model("e5-small", "hybrid", 7)
    assert (candidate.train.learning_rate, candidate.train.holdout, candidate.seed) == (1e-5, 5, 13)
    assert (compared.train.learning_rate, compared.train.holdout, compared.seed) == (2e-5, 5, 7)
    assert loaded.untuned_model("e5-small").train == config.Train()


def test_a_sources_bounds_come_before_a_languages():
    known = config.Validate(
        languages={"th": {"min_cosine": 0.1, "min_length_ratio": 0.3}}, sources={"faq": {"min_cosine": 0.2}}
    )
    assert known.bounds()["min_cosine"] == known.min_cosine
    assert known.bounds("th")["min_cosine"] == 0.1
    own = known.bounds("th", "faq")
    assert (own["min_cosine"], own["min_length_ratio"], own["max_length_ratio"]) == (0.2, 0.3, 3.0)


def test_each_language_may_have_its_own_model():
    two = {"de": "opus-de", "es": "opus-es"}
    config.TranslateWithCTranslate2(models=two, languages=("de", "es"))
    with pytest.raises(ValueError, match="models: {fr"):
        config.TranslateWithCTranslate2(models=two, languages=("de", "fr"))
