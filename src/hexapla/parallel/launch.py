"""Run a module in this process or in several, as a file of `configs/accelerate` says.

Several processes are started by torchrun's agent. `accelerate launch` starts several without a GPU only
through MPI, and both launchers turn a user error's exit status 2 into a traceback and status 1; here it
becomes the launcher's own. Only the first process writes to stderr, as all would write mostly the same. What
the others write is kept, and its last line or traceback shown if one of them is the reason why all end.
"""

import atexit
import contextlib
import ctypes
import logging
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from hexapla.parallel import distributed
from hexapla.parallel.tasks import cores
from hexapla.schema import UserError, first_line

FOLDER = Path("configs/accelerate")
_OPEN = -1
"""A number that the file leaves open; accelerate's own mark."""
_PORT = "29500"
"""The default port of torch's and accelerate's launchers."""
_SHOWN = 2**16
"""At most this many bytes of a failed process's stderr are shown, the last ones."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl(2)."""
_ENDED_BY_US = (-signal.SIGTERM, 128 + signal.SIGTERM)


class World(NamedTuple):
    """How many processes run, and where."""

    processes: int
    """The number on this machine, as on each."""
    machines: int
    machine: int
    address: str
    """The address of the first machine."""
    port: int


def launch(name: str, module: str, arguments: Sequence[str]) -> int | None:
    """Run `python -m module arguments` in as many processes as the configuration says.

    Args:
        name: a file of `configs/accelerate`, without `.yaml`.
        module: what each process runs.
        arguments: its command line.

    Returns:
        The exit status; None if this process is to do the work, either alone or because it is one of
        several processes that are already started.

    Raises:
        UserError: the configuration does not exist or does not fit this machine.
    """
    if distributed.launched():
        return None
    path = FOLDER / f"{name}.yaml"
    configuration = read(path)
    on_cpu = bool(configuration.use_cpu) or configuration.distributed_type == "MULTI_CPU"
    if on_cpu:
        # The second is for what asks torch and not accelerate: no value of the first hides every GPU.
        os.environ |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    if configuration.num_processes == configuration.num_machines == 1:
        return None
    world = place(path, configuration, 0 if on_cpu else _gpus(), on_cpu=on_cpu, variables=os.environ)
    if world.processes * world.machines == 1:
        return None
    # Without it each process would use all cores, and under torchrun only one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // world.processes)))
    os.environ |= environment(path, world)
    return _run(world, module, arguments)


def read(path: Path) -> Any:
    """Read a configuration by accelerate's own reader, as a `ClusterConfig`.

    Raises:
        UserError: it does not exist, or holds what accelerate or Hexapla does not support.
    """
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise UserError(
            f"{path}: not found; {f'known are {known}' if known else 'run from the repository root'}"
        )
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        configuration = load_config_from_file(str(path))
        kind = str(getattr(configuration.distributed_type, "value", configuration.distributed_type))
        processes, machines = int(configuration.num_processes), int(configuration.num_machines)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
        raise UserError(f"{path}: distributed_type: '{kind}' is not one of NO, MULTI_CPU, MULTI_GPU, FSDP")
    if configuration.mixed_precision not in (None, "no"):
        raise UserError(f"{path}: mixed_precision: must be 'no', as train.precision sets it")
    for key, value in (("num_processes", processes), ("num_machines", machines)):
        if value < 1 and value != _OPEN:
            raise UserError(f"{path}: {key}: must be at least 1, or {_OPEN} to leave it open")
    if (configuration.use_cpu or kind == "MULTI_CPU") and (processes == _OPEN or kind == "FSDP"):
        raise UserError(f"{path}: without GPUs it needs a number of processes, and no FSDP")
    configuration.distributed_type = kind
    return configuration


def place(path: Path, configuration: Any, gpus: int, *, on_cpu: bool, variables: Mapping[str, str]) -> World:
    """Decide where the processes run.

    Args:
        path: the configuration's, for messages.
        configuration: what it says.
        gpus: how many this machine has; each of several machines must have as many.
        on_cpu: whether the configuration uses no GPUs.
        variables: the environment, which knows better than the configuration which machine this is.

    Raises:
        UserError: the configuration needs GPUs or variables that do not exist.
    """

    def look_up(names: tuple[str, ...], otherwise: object) -> str:
        found = next((variables[name] for name in names if variables.get(name)), str(otherwise or ""))
        if not found:
            slurm = " (Slurm's srun sets it)" if len(names) > 1 else ""
            raise UserError(f"{path}: {names[0]} is not set{slurm}; see docs/scale.md")
        return found

    def number(names: tuple[str, ...], otherwise: object) -> int:
        if not (found := look_up(names, otherwise)).isdecimal():
            raise UserError(f"{path}: {' or '.join(names)} is '{found}', wants a number")
        return int(found)

    opened = configuration.num_machines == _OPEN
    machines = number(("NNODES", "SLURM_NNODES"), "") if opened else int(configuration.num_machines)
    processes = _count(path, configuration.num_processes, machines, gpus, on_cpu=on_cpu)
    if machines == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return World(processes, 1, 0, "127.0.0.1", free.getsockname()[1])
    machine = number(("NODE_RANK", "SLURM_NODEID"), "" if opened else str(configuration.machine_rank))
    if machine >= machines:
        raise UserError(f"{path}: this is machine {machine} of {machines}; they count from 0")
    address = look_up(("MASTER_ADDR",), configuration.main_process_ip)
    port = number(("MASTER_PORT",), configuration.main_process_port or _PORT)
    return World(processes, machines, machine, address, port)


def _count(path: Path, total: int, machines: int, gpus: int, *, on_cpu: bool) -> int:
    """Count the processes on each machine."""
    if not on_cpu and not gpus:
        raise UserError(f"{path}: needs GPUs, and this machine has none; set `launch:` to single or cpu")
    if total == _OPEN:
        return gpus
    processes, rest = divmod(total, machines)
    if rest:
        raise UserError(f"{path}: num_processes: {total} can't be divided among {machines} machines")
    if not on_cpu and processes > gpus:
        raise UserError(f"{path}: num_processes: {processes} on this machine, which has {gpus} GPUs")
    return processes


def environment(path: Path, world: World) -> dict[str, str]:
    """The variables by which accelerate passes a configuration, such as FSDP's, to the processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    given = [
        "--config_file", str(path), "--num_processes", str(world.processes * world.machines),
        "--num_machines", str(world.machines), "--machine_rank", str(world.machine),
        "--main_process_ip", world.address, "--main_process_port", "0", "--same_network",
        "--num_cpu_threads_per_process", "1", "-m", "module",
    ]  # fmt: skip
    try:
        arguments = _validate_launch_command(launch_command_parser().parse_args(given))[0]
        variables: dict[str, str] = prepare_multi_gpu_env(arguments)
    except ValueError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return {key: value for key, value in variables.items() if key.startswith(("ACCELERATE_", "FSDP_"))}


def _gpus() -> int:
    """Count the GPUs that this process may use; set consumer cards up as accelerate's launcher does."""
    import torch

    count = int(torch.accelerator.device_count())
    if count:
        from accelerate.utils import check_cuda_p2p_ib_support

        if not check_cuda_p2p_ib_support():
            os.environ.setdefault("NCCL_P2P_DISABLE", "1")
            os.environ.setdefault("NCCL_IB_DISABLE", "1")
    return count


# --- several processes -----------------------------------------------------------------------


def _run(world: World, module: str, arguments: Sequence[str]) -> int:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    code = "from hexapla.parallel.launch import run_rank; run_rank()"
    hidden = {n: Std.ERR for n in range(world.processes) if n or world.machine}
    with tempfile.TemporaryDirectory(prefix="hexapla-launch-") as folder:
        config = LaunchConfig(
            min_nodes=world.machines, max_nodes=world.machines, nproc_per_node=world.processes,
            run_id="hexapla", rdzv_backend="static", rdzv_endpoint=f"{world.address}:{world.port}",
            rdzv_configs={"rank": world.machine}, local_addr=world.address if world.machines == 1 else None,
            max_restarts=0, monitor_interval=0.1, signals_to_handle="SIGTERM,SIGINT",
            logs_specs=DefaultLogsSpecs(folder, redirects=hidden),
        )  # fmt: skip
        logging.disable()  # torch's lines on what happens to the processes; ours are below.
        try:
            elastic_launch(config, sys.executable)("-c", code, module, *arguments)
        except SignalException as stop:
            return 128 + int(stop.sigval)
        except ChildFailedError as failed:
            (logs,) = Path(folder).glob("*/attempt_0")
            return _explain({int(each.local_rank): each for each in failed.failures.values()}, logs)
        finally:
            logging.disable(logging.NOTSET)
            for pid in Path(folder).rglob("pid"):
                with contextlib.suppress(OSError, ValueError):
                    os.killpg(int(pid.read_text()), signal.SIGKILL)  # what a killed process had started
    return 0


def _explain(failures: Mapping[int, Any], logs: Path) -> int:
    """Show why all processes ended, unless the first has already shown it; return the exit status.

    Of several that failed, one with a user error knows best, then one that was killed, then the earliest: the
    others often say only that they lost the connection. Last come those that the agent ended.
    """
    ranks = {2: 0, 1: 2} | dict.fromkeys(_ENDED_BY_US, 3)
    rank, cause = min(failures.items(), key=lambda each: (ranks.get(each[1].exitcode, 1), each[1].timestamp))
    status: int = cause.exitcode
    said = _tail(logs / str(rank) / "stderr.log") or _tail(logs / str(rank) / "traceback")
    if status == 2:
        said = "" if (logs / "0" / "said").exists() else said.rpartition("\n")[2]
    _print(said)
    if status < 0:
        hint = "; the memory may have run out" if -status == signal.SIGKILL else ""
        _print(f"hexapla: process {rank} was ended by {signal.Signals(-status).name}{hint}")
    return 128 - status if status < 0 else status


def _tail(file: Path) -> str:
    return file.read_bytes()[-_SHOWN:].decode(errors="replace").rstrip() if file.exists() else ""


def _print(line: str) -> None:
    if line:
        print(line, file=sys.stderr)  # noqa: T201


def run_rank() -> None:
    """Run a module as `python -m` would, as one of several processes.

    An uncaught exception of the first goes to a file: when one process ends, the others' exceptions about
    lost connections are not what the user should read.
    """
    module, *arguments = sys.argv[1:]
    folder = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parent
    (folder / "pid").write_text(str(os.getpid()))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)

    def keep(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with (folder / "traceback").open("w", encoding="utf-8") as file:
            traceback.print_exception(kind, error, trace, file=file)

    if not (folder / "stderr.log").exists():
        sys.excepthook = keep
    sys.argv = [module, *arguments]
    status = [1]
    atexit.register(_leave, status)  # Registered first, so it comes last.
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status[0] = 0
    except SystemExit as stop:
        status[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if status[0] == 2 and sys.excepthook is keep:
            # The user has read the line, even if this process is ended for another's sake before it exits.
            (folder / "said").touch()
        raise


def _leave(status: Sequence[int]) -> None:
    """Exit without C++'s destructors: while gloo is connected they abort now and then."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status[0])
