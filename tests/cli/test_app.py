"""The program `hexapla` as a whole: its listing, its stages, and how errors end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from hexapla.cli import app, compare
from hexapla.config import Hybrid
from hexapla.parallel import launch
from hexapla.pipeline import gate, report
from hexapla.schema import UserError

PLACE = os.environ | {"PYTHONPATH": str(ROOT / "src")}

PARAMS = ["--params", str(ROOT / "params.yaml")]
PROGRAM = [sys.executable, "-m", "hexapla"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def calls(monkeypatch):
    """What reaches a stage; it takes the place of `report`."""
    reached = []

    def stage(seed: int, hybrid: Hybrid, *, out: Path, online: bool = False) -> None:
        """Do it."""
        reached.append((seed, hybrid, out, online))

    monkeypatch.setattr(report, "report", stage)
    return reached


def test_sections_come_from_the_file_and_the_rest_are_options(hexapla, calls):
    assert hexapla("stage", "report", *PARAMS, "--out", "x")[0] == 0
    assert hexapla("stage", "report", *PARAMS, "--out", "x", "--online")[0] == 0
    assert calls == [(13, Hybrid(alpha=0.5), Path("x"), online) for online in (False, True)]
    assert app.sections(report.report) == ["seed", "hybrid"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["stage", "report"], "hexapla stage report: Missing option '--out'"),
        (["stage", "report", "--out", "x", "--seed", "3"], "hexapla stage report: No such option: --seed"),
        (["stage", "report", "--params", "gone.yaml", "--out", "x"],
         "hexapla stage report: gone.yaml: not found; run from"),
        (
            ["compare", "a", "--centering", "x"],
            "hexapla compare: Invalid value for '--centering': 'x' is not one of 'none'",
        ),
        (["stage", "trian"], "hexapla stage: No such command 'trian'. Did you mean 'train'?"),
        (["compar"], "hexapla: No such command 'compar'. Did you mean 'compare'?"),
        (["--verbose"], "hexapla: No such option: --verbose"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_status_2(hexapla, calls, argv, line):
    status, _, error = hexapla(*argv)
    assert status == 2
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not calls


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (UserError("row 3: no"), "row 3: no", 2),
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied", 2),
        (
            OSError(18, "Invalid cross-device link", "scratch", None, "aim"),
            "aim: Invalid cross-device link",
            2,
        ),
        (OSError(28, "No space left on device"), "No space left on device", 2),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_expected_errors_are_one_line_and_with_debug_a_traceback(hexapla, monkeypatch, error, line, status):
    def fail(*, scores: Path, accepted: Path) -> None:
        raise error

    monkeypatch.setattr(gate, "gate", fail)
    argv = ("gate", "--scores", "a", "--accepted", "b")
    assert hexapla(*argv) == (status, "", f"hexapla gate: {line}\n")
    monkeypatch.setenv("HEXAPLA_DEBUG", "1")
    again, _, shown = hexapla(*argv)
    assert again == status
    assert shown.startswith("Traceback ")
    assert "in fail\n    raise error\n" in shown
    assert shown.endswith(f"hexapla gate: {line}\n")


def test_debug_shows_where_an_option_was_refused(hexapla, monkeypatch):
    monkeypatch.setenv("HEXAPLA_DEBUG", "1")
    status, _, shown = hexapla("compare", "--centering", "wrong", "a")
    assert status == 2
    assert shown.startswith("Traceback ")


def test_errors_that_nobody_expects_keep_their_traceback(hexapla, monkeypatch):
    def fail(*, scores: Path, accepted: Path) -> None:
        raise OSError("no place and no reason")

    monkeypatch.setattr(gate, "gate", fail)
    with pytest.raises(OSError, match="no reason"):
        hexapla("gate", "--scores", "a", "--accepted", "b")


def test_a_broken_pipe_to_another_process_is_no_quiet_end(hexapla, monkeypatch):
    def fail(*, scores: Path, accepted: Path) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(gate, "gate", fail)
    with pytest.raises(RuntimeError, match="the pipe to another process is broken"):
        hexapla("gate", "--scores", "a", "--accepted", "b")


def test_the_whole_help_needs_no_files_and_no_heavy_package(tmp_path):
    code = "import sys; from hexapla.cli.app import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown, _, modules = done.stdout.rstrip().rpartition("\n")
    for name in (*app.COMMANDS, "stage"):
        assert f"\n  {name} " in shown
    assert "..." not in shown.partition("Commands:")[2]
    assert not {"numpy", "torch", "pyarrow", "hexapla.cli.evaluate"} & set(modules.split())


@pytest.mark.parametrize("words", [*(["stage", name] for name in app.STAGES), ["evaluate"], ["compare"]])
def test_a_commands_help_waits_for_no_torch_and_describes_every_option(words):
    code = f"import sys; from hexapla.cli.app import main; main([*{words}, '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    modules = done.stdout.rstrip().rpartition("\n")[2].split()
    assert not {"torch", "transformers", "datasets", "faiss", "mlflow"} & set(modules), done.stderr
    options = app.load(words[-1], stage=words[0] == "stage").params
    assert all(option.help for option in options)


def test_a_description_may_take_several_lines_and_what_follows_is_no_part_of_it():
    def stage(one, other):
        """Do it.

        And more.

        Args:
            one: the first
                of two.
            other: `b: c`.

        Raises:
            UserError: it can't.
        """

    assert app._read_docstring(stage) == (
        "Do it.\n\nAnd more.",
        {"one": "The first of two.", "other": "`b: c`."},
    )
    assert app._read_docstring(lambda: None) == ("", {})


def test_a_launch_in_several_processes_repeats_the_arguments_of_main(monkeypatch):
    given = []
    monkeypatch.setattr("sys.argv", ["pytest", "-k", "something else"])
    monkeypatch.setattr(launch, "launch", lambda *launched: given.append(launched) or 3)
    files = [part for name in ("pairs", "model", "curve", "summary") for part in (f"--{name}", "x")]
    words = ["stage", "train", *PARAMS, *files]
    with pytest.raises(SystemExit) as ended:
        app.main(words)
    assert ended.value.code == 3
    assert given == [("single", "hexapla", words)]


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_variables_that_a_shell_kept_of_a_launcher_are_one_line(hexapla, monkeypatch, stage):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    names = {"train": ("pairs", "model", "curve", "summary"), "evaluate": ("model", "data", "out")}[stage]
    files = [part for name in names for part in (f"--{name}", "x")]
    status, _, errors = hexapla("stage", stage, *PARAMS, *files)
    assert status == 2
    assert errors.splitlines()[-1].startswith(
        f"hexapla stage {stage}: WORLD_SIZE and LOCAL_RANK are set as for one of"
    )
    assert "RANK and MASTER_ADDR and MASTER_PORT are not" in errors


@pytest.mark.parametrize("argv", [[], ["stage"]])
def test_without_a_command_it_lists_them(hexapla, argv):
    status, out, _ = hexapla(*argv)
    assert status == 0
    assert all(f"\n  {name} " in out for name in (app.STAGES if argv else app.COMMANDS))


def test_every_listed_command_exists_and_explains_itself(hexapla):
    listed = [[name] for name in app.COMMANDS] + [["stage", name] for name in app.STAGES]
    for argv in listed:
        status, out, _ = (
            hexapla(*argv, "--params", "gone.yaml", "--help")
            if argv[0] == "stage"
            else hexapla(*argv, "--help")
        )
        assert status == 0
        assert out.startswith(f"Usage: hexapla {' '.join(argv)} ")


def test_the_version(hexapla):
    status, out, _ = hexapla("--version")
    assert status == 0
    assert out.startswith("hexapla ")
    assert out.split()[1][0].isdigit()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hexapla ev", {"evaluate"}),
        ("hexapla stage tr", {"train", "translate"}),
        ("hexapla compare a --centering lang", {"language"}),
    ],
)
def test_a_shell_completes_commands_and_values(words, found):
    asked = {
        "_HEXAPLA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from hexapla.cli.app import main; main()"],
        env=ENVIRONMENT | asked, capture_output=True, text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == found, done.stderr


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "--help"], env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""


_LONG = """
from hexapla.cli import app
from hexapla.pipeline import gate
def gate_(*, scores, accepted):
    for _ in range(4):
        print("x" * {length})
gate.gate = gate_
app.main(["gate", "--scores", "a", "--accepted", "b"])
"""


@pytest.mark.parametrize("length", [10, 5_000, 9_000, 200_000])
def test_a_pipe_that_closes_while_we_write_ends_quietly(length):
    """A long text is not kept in the buffer when it can't be written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", _LONG.format(length=length)]
    done = subprocess.run(command, env=PLACE, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_lists_are_written_in_one_go_or_one_by_one(hexapla, monkeypatch):
    seen = []

    def take(dirs: list[Path], *, centering: str = "none") -> None:
        seen.append((dirs, centering))

    monkeypatch.setattr(compare, "compare", take)
    assert hexapla("compare", "a", "b", "--centering", "language")[0] == 0
    assert hexapla("compare", "--centering", "language", "a", "b")[0] == 0
    assert seen == [([Path("a"), Path("b")], "language")] * 2
    (command,) = [app.load("evaluate")]
    for argv in (["--benchmark", "a", "b"], ["--benchmark", "a", "--benchmark", "b"]):
        context = command.make_context("evaluate", ["m", *argv, "--precision", "fp32"])
        assert context.params["benchmark"] == ["a", "b"]


_LOUD = """
import logging
from hexapla.cli import app
app.main(["--version"])
for name in ("httpx", "httpx2", "httpcore.http11", "huggingface_hub.file_download", "a.new.client", "urllib3"):
    logging.getLogger(name).info("GET https://host/file?Signature=hush")
    logging.getLogger(name).debug("GET https://host/file?Signature=hush")
logging.getLogger("a.new.client").warning("something is wrong")
logging.getLogger("hexapla.io.download").info("our own line")
"""


def test_libraries_speak_only_when_something_is_wrong():
    """The hub's client logs every address, signed ones too, under a name that changes with its version."""
    done = subprocess.run(
        [sys.executable, "-c", _LOUD], capture_output=True, text=True, check=True, env=PLACE
    )
    assert done.stderr == "something is wrong\nour own line\n"


def test_a_terminal_that_lacks_a_letter_shows_a_question_mark():
    code = "from hexapla.cli import app; import sys; app.main(['--version']); print('▲ 中')"
    environment = PLACE | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.endswith("\n? ?\n")
