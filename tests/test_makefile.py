"""What `make` would do in a folder with an odd name: no path is taken for two."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="wants make")


@pytest.fixture(params=["a b", "it's", "$HOME & more"])
def folder(request, tmp_path):
    place = tmp_path / request.param
    place.mkdir()
    shutil.copy(ROOT / "Makefile", place)
    return place


def dry_run(folder, target, *more):
    """The commands that make would run for a target, where the environment is set up already."""
    (folder / ".venv").mkdir(exist_ok=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.done"):
        (folder / name).touch()
    # Run by make itself, make would say which folder it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "-n", target, *more]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("target", ["quick", "clean", "repro", "test", "lint", "gate", "ui"])
def test_no_command_names_the_folder(folder, target):
    commands = dry_run(folder, target)
    assert str(folder) not in commands
    assert folder.name not in commands


def test_quick_removes_its_own_folder_and_nothing_else(folder):
    precious = folder.parent / folder.name.split()[0]
    precious.mkdir(exist_ok=True)
    (folder / "build" / "quick").mkdir(parents=True)
    first = next(line for line in dry_run(folder, "quick").splitlines() if line.startswith("rm "))
    subprocess.run(["sh", "-c", first], cwd=folder, check=True)
    assert precious.is_dir()
    assert not (folder / "build" / "quick").exists()


def test_paths_that_are_given_are_quoted(folder):
    for line in dry_run(folder, "paper", "PAPER=../my paper").splitlines():
        assert re.sub(r'"\.\./my paper"', "", line).count("my paper") == 0
    assert '--params "my params.yaml"' in dry_run(folder, "plan", "PLAN=my params.yaml")
