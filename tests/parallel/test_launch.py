import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from conftest import ROOT

_ALONE = """
import json, os, sys
unasked = sorted({"torch", "accelerate", "numpy"} & set(sys.modules))
print(json.dumps([sys.argv[1:], os.getpid(), os.environ.get("ACCELERATE_USE_CPU"), unasked]))
sys.exit(7)
"""

_TOGETHER = """
import os, sys
import numpy as np, torch
from hexapla.parallel import distributed as processes

assert __name__ == "__main__"
parts = processes.gather(np.full((1, 2), processes.rank(), np.float32))
threads = torch.get_num_threads()
if processes.is_main():
    numbers = np.concatenate(parts).tolist()
    print(sys.argv[1:], numbers, processes.device()[:3], processes.agreed("said"), threads)
else:
    print("in chorus", file=sys.stderr)
    processes.agreed("unsaid")
"""

_ONE_MISTAKEN = """
import numpy as np
from hexapla.cli import app as cli
from hexapla.parallel import distributed as processes
from hexapla.schema import UserError

def halve():
    processes.barrier()
    if processes.rank() == 1:
        raise UserError("params.yaml: batch_size: can't be halved")
    processes.gather(np.zeros((1, 2)))

cli.run(halve, [])
"""

_RANKS = """
import os, signal, subprocess, sys, time
rank = os.environ["RANK"]
print(os.getpid(), file=open(f"pid-{rank}", "w"))
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print(helper.pid, file=open(f"helper-{rank}", "w"))
"""

_BOTH_MISTAKEN = """
import os, sys, time
from hexapla import cli
from hexapla.schema import UserError

def fail():
    time.sleep(0.3 * (os.environ["RANK"] == sys.argv[1]))
    raise UserError("pairs.parquet: no rows")

cli.run(fail, [])
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the project's configs, where a module can be written and launched."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def _start(place, *arguments, code="", **variables):
    (place / "task.py").write_text(code)
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS",)}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-m", "hexapla.parallel.launch", *arguments],
        cwd=place, env=kept | {"PYTHONPATH": path} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _run(place, *arguments, **more):
    started = _start(place, *arguments, **more)
    out, errors = started.communicate(timeout=60)
    return started.returncode, out, errors


def _pids(place):
    """Of the processes and their helpers, as soon as all have been written."""
    names = [f"{kind}-{rank}" for rank in range(2) for kind in ("pid", "helper")]
    until = time.monotonic() + 30
    while not all((place / name).exists() and (place / name).read_text() for name in names):
        assert time.monotonic() < until
        time.sleep(0.05)
    return [int((place / name).read_text()) for name in names]


def _gone(pids):
    until = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_one_process_is_the_module_itself(place):
    arguments = ["--name", "two words", "", "--", "-m"]
    started = _start(place, "single", "task", *arguments, code=_ALONE)
    out, errors = started.communicate(timeout=60)
    assert started.returncode == 7
    given, pid, cpu, unasked = json.loads(out)
    assert (given, pid, cpu, unasked, errors) == (arguments, started.pid, None, [], "")


def test_one_process_is_told_that_gpus_are_not_wanted(place):
    config = place / "configs" / "accelerate" / "single.yaml"
    config.write_text(config.read_text().replace("use_cpu: false", "use_cpu: true"))
    assert '"true"' in _run(place, "single", "task", code=_ALONE)[1]


def test_two_processes_without_a_gpu_meet(place):
    status, out, errors = _run(place, "cpu", "task", "--name", "two words", code=_TOGETHER)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert status == 0, errors
    assert out == f"['--name', 'two words'] [[0.0, 0.0], [1.0, 1.0]] cpu said {threads}\n"
    assert "chorus" not in errors


def test_the_users_threads_are_left_alone(place):
    code = r"import os; os.write(1, os.environ['OMP_NUM_THREADS'].encode() + b'\n')"
    assert _run(place, "cpu", "task", code=code, OMP_NUM_THREADS="3")[1] == "3\n3\n"


def test_a_mistake_of_one_process_is_one_line(place):
    # The first loses its connection, and has a traceback to tell of that.
    status, _, errors = _run(place, "cpu", "task", code=_ONE_MISTAKEN)
    assert (status, errors) == (2, "hexapla halve: params.yaml: batch_size: can't be halved\n")


@pytest.mark.parametrize("later", ["0", "1"])
def test_a_mistake_of_all_processes_is_said_once(place, later):
    status, _, errors = _run(place, "cpu", "task", later, code=_BOTH_MISTAKEN)
    assert (status, errors) == (2, "hexapla fail: pairs.parquet: no rows\n")


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_shows_its_traceback_once_and_ends_all(place, rank):
    code = _RANKS + f"if rank == '{rank}': time.sleep(0.5); raise LookupError(rank)\ntime.sleep(60)"
    status, _, errors = _run(place, "cpu", "task", code=code)
    assert status == 1
    assert errors.count("Traceback") == 1
    assert errors.endswith(f"LookupError: {rank}\n")
    assert _gone(_pids(place))


def test_a_killed_process_ends_all(place):
    started = _start(place, "cpu", "task", code=_RANKS + "time.sleep(60)")
    pids = _pids(place)
    os.kill(pids[2], signal.SIGKILL)
    errors = started.communicate(timeout=30)[1]
    assert started.returncode == 128 + signal.SIGKILL
    assert errors.startswith("hexapla launch: process 1 was ended by SIGKILL;")
    assert _gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_processes(place, number):
    heard = f"""
import os, signal, sys

def heard(number, _):
    os.write(1, b"heard %d\\n" % number)
    sys.exit(0)

signal.signal({int(number)}, heard)
"""
    started = _start(place, "cpu", "task", code=heard + _RANKS + "time.sleep(60)")
    pids = _pids(place)
    started.send_signal(number)
    out, errors = started.communicate(timeout=30)
    assert started.returncode == 128 + number
    assert out == f"heard {int(number)}\n" * 2
    assert errors == ""
    assert _gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent is gone")
def test_no_process_outlives_its_launcher(place):
    started = _start(place, "cpu", "task", code=_RANKS + "helper.kill(); time.sleep(60)")
    pids = _pids(place)
    started.kill()
    started.communicate(timeout=30)
    assert _gone(pids)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "wants NAME MODULE [argument ...]"),
        (("single",), "wants NAME MODULE [argument ...]"),
        (
            ("gpu", "task"),
            "configs/accelerate/gpu.yaml: not found; there are: cpu, fsdp, gpus, nodes, single",
        ),
        (("gpus", "task"), "configs/accelerate/gpus.yaml: wants GPUs, and this machine shows none"),
    ],
)
def test_what_cannot_be_launched_is_one_line(place, arguments, line):
    status, _, errors = _run(place, *arguments, CUDA_VISIBLE_DEVICES="")
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"hexapla launch: {line}")
