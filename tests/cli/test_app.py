from pathlib import Path

import pytest

from conftest import ROOT
from hexapla.cli import app
from hexapla.config import Hybrid
from hexapla.schema import UserError

PARAMS = ["--params", str(ROOT / "params.yaml")]


def stage(seed: int, hybrid: Hybrid, *, out: Path, names: tuple[str, ...] = ("a",)) -> None:
    """Do it."""
    calls.append((seed, hybrid, out, tuple(names)))


calls: list = []


def test_parameters_come_from_the_file_and_the_rest_are_flags():
    calls.clear()
    app.run(stage, [*PARAMS, "--out", "x", "--names", "b", "c"])
    assert calls == [(13, Hybrid(0.5), Path("x"), ("b", "c"))]
    assert app.from_params(stage) == ["seed", "hybrid"]


def failing(*, reason: str = "row 3: no") -> None:
    raise UserError(reason)


@pytest.mark.parametrize(
    ("function", "argv", "line"),
    [
        (failing, [], "hexapla failing: row 3: no\n"),
        (stage, PARAMS, "hexapla stage: the following arguments are required: --out\n"),
        (stage, [*PARAMS, "--out", "x", "--seed", "3"], "hexapla stage: unrecognized arguments: --seed 3\n"),
        (stage, ["--params", "gone.yaml", "--out", "x"], "hexapla stage: gone.yaml: not found; run from"),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, function, argv, line):
    with pytest.raises(SystemExit) as caught:
        app.run(function, argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


def asking(*, online: bool = False) -> None:
    """Ask."""
    calls.append(online)


def test_a_bool_is_a_flag_without_a_value():
    calls.clear()
    for argv in ([], ["--online"]):
        app.run(asking, argv)
    assert calls == [False, True]


def test_help_needs_no_parameters(capsys):
    with pytest.raises(SystemExit) as caught:
        app.run(stage, ["--params", "gone.yaml", "--help"])
    assert caught.value.code == 0
    assert "Do it." in capsys.readouterr().out
