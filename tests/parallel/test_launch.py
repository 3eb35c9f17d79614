import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from conftest import ROOT
from hexapla.parallel import launch
from hexapla.parallel.launch import World
from hexapla.schema import UserError

_LAUNCHER = """
import sys
from hexapla.parallel.launch import launch
from hexapla.schema import UserError
try:
    status = launch(sys.argv[1], sys.argv[2], sys.argv[3:])
except UserError as error:
    sys.exit(f"{error}")
print("here") if status is None else sys.exit(status)
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
import sys
import numpy as np
from hexapla.parallel import distributed

distributed.barrier()
if distributed.rank() == 1:
    print("params.yaml: batch_size: can't be halved", file=sys.stderr)
    sys.exit(2)
distributed.gather(np.zeros((1, 2)))
"""

_RANKS = """
import os, signal, subprocess, sys, time
rank = os.environ["RANK"]
print(os.getpid(), file=open(f"pid-{rank}", "w"))
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **quiet)
print(helper.pid, file=open(f"helper-{rank}", "w"))
"""

_BOTH_MISTAKEN = """
import os, sys, time
time.sleep(0.3 * (os.environ["RANK"] == sys.argv[1]))
print("pairs.parquet: no rows", file=sys.stderr)
sys.exit(2)
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
        [sys.executable, "-c", _LAUNCHER, *arguments],
        cwd=place, env=kept | {"PYTHONPATH": path} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _run(place, *arguments, **more):
    started = _start(place, *arguments, **more)
    out, errors = started.communicate(timeout=60)
    return started.returncode, out, errors


def _pids(place):
    """Ids of the processes and their helpers, as soon as all have been written."""
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


def test_one_process_is_this_one(place):
    assert _run(place, "single", "task") == (0, "here\n", "")
    started = {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    assert _run(place, "cpu", "task", **started) == (0, "here\n", "")


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
    assert (status, errors) == (2, "params.yaml: batch_size: can't be halved\n")


@pytest.mark.parametrize("later", ["0", "1"])
def test_a_mistake_of_all_processes_is_said_once(place, later):
    status, _, errors = _run(place, "cpu", "task", later, code=_BOTH_MISTAKEN)
    assert (status, errors) == (2, "pairs.parquet: no rows\n")


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
    assert errors.startswith("hexapla: process 1 was ended by SIGKILL;")
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


# --- configurations --------------------------------------------------------------------------

SOME = Path("configs/accelerate/some.yaml")
SLURM = {"SLURM_NNODES": "3", "SLURM_NODEID": "2", "MASTER_ADDR": "first", "MASTER_PORT": "4321"}


def _configuration(processes=-1, machines=-1, machine=0, address=None, port=None):
    return SimpleNamespace(
        num_processes=processes, num_machines=machines, machine_rank=machine, main_process_ip=address,
        main_process_port=port,
    )  # fmt: skip


def _place(configuration, gpus, variables, on_cpu=False):
    return launch.place(SOME, configuration, gpus, on_cpu=on_cpu, variables=variables)


@pytest.mark.parametrize("name", ["cpu", "fsdp", "gpus", "nodes", "single"])
def test_the_configurations_that_are_shipped_can_be_read(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    found = launch.read(launch.FOLDER / f"{name}.yaml")
    assert (found.distributed_type == "FSDP") == (name == "fsdp")
    assert (found.num_machines == -1) == (name == "nodes")


@pytest.mark.filterwarnings("ignore:sharding_strategy is deprecated")
def test_fsdp_reaches_the_processes(monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin

    monkeypatch.chdir(ROOT)
    for name, value in launch.environment(launch.FOLDER / "fsdp.yaml", World(2, 1, 0, "a", 0)).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert (plugin.activation_checkpointing, plugin.cpu_ram_efficient_loading) == (False, False)


def test_the_environment_says_which_machine_this_is():
    assert _place(_configuration(), 4, SLURM) == World(4, 3, 2, "first", 4321)
    own = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "other"}
    assert _place(_configuration(), 4, SLURM | own) == World(4, 2, 1, "other", 4321)
    assert _place(_configuration(), 4, own).port == 29500
    named = _configuration(8, 2, 1, "a", 9)
    assert _place(named, 4, {}) == World(4, 2, 1, "a", 9)
    assert _place(named, 4, {"NODE_RANK": "0"}).machine == 0
    alone = _place(_configuration(machines=1), 4, SLURM)
    assert alone[:4] == (4, 1, 0, "127.0.0.1")
    assert alone.port != 4321


@pytest.mark.parametrize(
    ("configuration", "gpus", "variables", "line"),
    [
        (_configuration(machines=1), 0, {}, "needs GPUs, and this machine has none"),
        (_configuration(4, 1), 2, {}, "num_processes: 4 on this machine, which has 2 GPUs"),
        (_configuration(5, 2), 8, {}, "num_processes: 5 can't be divided among 2 machines"),
        (_configuration(), 2, {}, "NNODES is not set (Slurm's srun sets it)"),
        (_configuration(), 2, {"NNODES": "2"}, "NODE_RANK is not set (Slurm's srun sets it)"),
        (_configuration(), 2, {"NNODES": "2", "NODE_RANK": "1"}, "MASTER_ADDR is not set; see"),
        (_configuration(), 2, {**SLURM, "NODE_RANK": "3"}, "this is machine 3 of 3"),
        (_configuration(), 2, {"NNODES": "two"}, "NNODES or SLURM_NNODES is 'two', wants a number"),
    ],
)
def test_what_does_not_exist_is_named(configuration, gpus, variables, line):
    with pytest.raises(UserError, match="some.yaml") as caught:
        _place(configuration, gpus, variables)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("num_processes: all", "invalid literal for int"),
        ("num_processes: 0", "num_processes: must be at least 1, or -1 to leave it open"),
        ("num_processes: -1\nuse_cpu: true", "without GPUs it needs a number of processes"),
        ("num_processes: 2\nuse_cpu: true\ndistributed_type: FSDP", "without GPUs it needs"),
        ("num_processes: 2\nmixed_precision: bf16", "mixed_precision: must be 'no'"),
        ("num_processes: 2\nnum_process: 2", "had unknown keys (['num_process'])"),
        ("num_processes: 2\ndistributed_type: DEEPSPEED", "distributed_type: 'DEEPSPEED' is not one of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(tmp_path, text, line):
    common = {"compute_environment": "LOCAL_MACHINE", "debug": "false", "num_machines": "1"}
    common |= {"distributed_type": "MULTI_GPU", "mixed_precision": "'no'", "use_cpu": "false"}
    lines = [f"{key}: {value}" for key, value in common.items() if f"{key}:" not in text]
    (tmp_path / "mine.yaml").write_text("\n".join([*lines, text]))
    with pytest.raises(UserError) as caught:
        launch.read(tmp_path / "mine.yaml")
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_configuration_names_the_known_ones(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match=r"gpu\.yaml: not found; known are cpu, fsdp, gpus, nodes, single"):
        launch.launch("gpu", "task", [])
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=r"gpu\.yaml: not found; run from the repository root"):
        launch.launch("gpu", "task", [])


def test_a_stage_runs_in_as_many_processes_as_the_parameters_say(place):
    """Both ranks find the missing table; the command ends with its one line and status 2."""
    text = (ROOT / "params.yaml").read_text()
    (place / "params.yaml").write_text(re.sub(r"(?m)^launch: .*$", "launch: cpu", text))
    names = ("pairs", "model", "curve", "summary")
    options = [part for name in names for part in (f"--{name}", f"gone-{name}")]
    done = subprocess.run(
        [sys.executable, "-m", "hexapla", "stage", "train", *options],
        cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("gone-pairs: not found")) == (2, 1), done.stderr
    assert "Traceback" not in done.stderr
