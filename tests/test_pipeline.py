"""dvc.yaml says what the code does: deps are imports, params are arguments, paths are flags."""

import dataclasses
import importlib
import shlex
import subprocess
import sys
import typing
from pathlib import Path

import grimp
import pytest
import yaml
from dvc.repo import Repo

from conftest import ROOT
from hexapla import config
from hexapla.cli import app
from hexapla.config import reading

UNTRACKED = {".checkpoints"}


def stages():
    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: (
                stage.cmd,
                {str(dep) for dep in stage.deps if not hasattr(dep, "params")},
                {name for dep in stage.deps if hasattr(dep, "params") for name in dep.params},
                {str(out) for out in stage.outs},
            )
            for stage in repo.index.stages
        }


STAGES = stages()
GRAPH = grimp.build_graph("hexapla")


def function_of(command):
    """The stage's module, function and arguments."""
    words = shlex.split(command)
    words = words[words.index("-m") + 1 :]
    program, group, name, *arguments = words
    assert (program, group) == ("hexapla", "stage")
    module = f"hexapla.pipeline.{name}"
    return module, getattr(importlib.import_module(module), name), arguments


NO_RESULT_DEPENDS_ON = ("hexapla.config", "hexapla.tracking", "hexapla.cli")
"""A stage depends on the values of its parameters, not on their descriptions, and on no line of its log."""


def place(module):
    """The module's file, or the folder of a package."""
    path = ROOT / "src" / module.replace(".", "/")
    return path if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_a_stage_imports_lies_below_its_dependencies(name):
    command, deps, _, _ = STAGES[name]
    module, _, _ = function_of(command)
    folders = [(ROOT / dep).resolve() for dep in deps if dep.startswith("src/")]
    unused = set(folders)
    for each in {module, *GRAPH.find_upstream_modules(module)}:
        if each.startswith(NO_RESULT_DEPENDS_ON) or place(each).is_dir():
            continue
        above = [folder for folder in folders if place(each).is_relative_to(folder)]
        assert above, f"{each} is imported, but is no dependency"
        unused -= set(above)
    assert not unused, "dependencies that the stage does not import"


def test_what_python_leaves_in_folders_is_no_dependency():
    with Repo(str(ROOT)) as repo:
        for junk in ("__pycache__/x.cpython-311.pyc", "x.pyc"):
            assert repo.dvcignore.is_ignored_file(str(ROOT / "src" / "hexapla" / "training" / junk))


@pytest.mark.parametrize(
    "changed",
    [
        "benchmarks/registry.py",
        "config/__init__.py",
        "tracking.py",
        "cli/app.py",
        "reporting/report.py",
        "parallel/launch.py",
    ],
)
def test_neither_a_preset_nor_a_description_nor_a_help_text_nor_a_tag_retrains_a_model(changed):
    file = ROOT / "src" / "hexapla" / changed
    assert file.is_file()
    for name, (_, deps, _, _) in STAGES.items():
        if name.startswith("train"):
            assert not [dep for dep in deps if file.is_relative_to(ROOT / dep)], name


NO_RESULT_DEPENDS_ON_KEYS = {"executor", "launch"}


@pytest.mark.parametrize("name", [name for name in STAGES if not name.startswith("train")])
def test_params_are_the_sections_that_the_stage_reads(name):
    command, _, params, _ = STAGES[name]
    assert params == set(app.sections(function_of(command)[1])) - NO_RESULT_DEPENDS_ON_KEYS


SETTINGS = config.load(ROOT / "params.yaml")


def others(settings):
    """The same settings but for each value that a model may depend on, one at a time, with its key."""
    train = dataclasses.replace(settings.train, steps=settings.train.steps + 1)
    yield "train", dataclasses.replace(settings, train=train)
    yield "seed", dataclasses.replace(settings, seed=settings.seed + 1)
    yield "hybrid", dataclasses.replace(settings, hybrid=config.Hybrid(alpha=0.25))
    yield "parallel", dataclasses.replace(settings, parallel=config.Parallel(languages=3))
    for name, encoder in settings.encoders.items():
        for key, value in (("model", "elsewhere"), ("prompts", config.Prompts(query="?", passage=""))):
            changed = {**settings.encoders, name: dataclasses.replace(encoder, **{key: value})}
            yield f"encoders.{name}.{key}", dataclasses.replace(settings, encoders=changed)
        changed = {**settings.encoders, name: dataclasses.replace(encoder, train={"holdout": 7})}
        yield f"encoders.{name}.train", dataclasses.replace(settings, encoders=changed)
    for name, recipe in settings.recipes.items():
        changed = {**settings.recipes, name: dataclasses.replace(recipe, train={"patience": 9})}
        yield f"recipes.{name}", dataclasses.replace(settings, recipes=changed)


@pytest.mark.parametrize("name", [name for name in STAGES if name.startswith("train")])
def test_the_params_of_a_training_are_the_values_that_its_model_depends_on(name):
    """For every value: it is among the params exactly if another one gives another model."""
    command, _, params, _ = STAGES[name]
    flags = dict(
        zip(*[iter(word for word in function_of(command)[2] if word != "--untuned")] * 2, strict=True)
    )
    encoder, recipe, seed = (flags.get(f"--{key}") for key in ("encoder", "recipe", "seed"))
    chosen = {
        (False, False): lambda settings: settings.candidate(),
        (True, False): lambda settings: settings.untuned_model(encoder),
        (True, True): lambda settings: settings.compared_model(encoder, recipe, int(seed)),
    }[bool(encoder), bool(recipe)]
    for key, changed in others(SETTINGS):
        depends = any(key == param or key.startswith(f"{param}.") for param in params)
        assert depends == (chosen(changed) != chosen(SETTINGS)), key


@pytest.mark.parametrize("sampler", typing.get_args(config.SamplerName))
def test_every_sampler_has_a_section_for_the_candidate_to_depend_on(sampler):
    assert sampler in yaml.safe_load((ROOT / "params.yaml").read_text())
    assert sampler in reading.fields(config.Config)


@pytest.mark.parametrize("name", STAGES)
def test_flags_are_the_functions_and_every_path_is_a_dep_or_an_out(name):
    command, deps, _, outs = STAGES[name]
    assert command.startswith("PYTHONPATH=src python -m hexapla")
    _, function, argv = function_of(command)
    flags = app.load(function.__name__, stage=True).make_context(function.__name__, argv).params
    known = deps | outs
    for value in flags.values():
        if isinstance(value, Path) and value.name != "params.yaml" and value.parts[0] not in UNTRACKED:
            inside = any(Path(path).is_relative_to(value) for path in known)
            assert str(value) in known or inside, value


def test_every_stage_says_what_it_is_for():
    tree = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert all(stage.get("desc") for stage in tree.values())
    order = "collect translate validate train train-untuned train-comparison "
    order += "evaluate evaluate-untuned evaluate-comparison report"
    assert list(tree) == order.split()


def test_a_section_of_params_is_named_after_its_stage():
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert {"collect", "translate", "validate", "train", "evaluate"} <= set(tree)


def test_importing_the_pure_modules_loads_nothing_heavy():
    names = ("schema", "config", "io.cache", "training.samplers", "evaluation.metrics")
    imports = ", ".join(f"hexapla.{name}" for name in names)
    heavy = "{'torch', 'transformers', 'faiss', 'mlflow'}"
    # What a function imports is not loaded with its module, so this looks at a fresh interpreter.
    code = f"import sys, {imports}; sys.exit(' '.join({heavy} & {{*sys.modules}}) or None)"
    subprocess.run([sys.executable, "-c", code], check=True)
