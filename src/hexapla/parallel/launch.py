"""`python -m hexapla.parallel.launch NAME MODULE [argument ...]`: a module in one process or in several.

NAME is a file of `configs/accelerate`. One process is plain `python -m MODULE`. Several are started here
and not by `accelerate launch`, which starts several without a GPU only through MPI and answers a mistake of
the user with torchrun's traceback and status 1.

Of several processes only the first is seen to speak on stderr; they would say most things in chorus. What
the others say is kept, and shown when one of them is why all end.
"""

import atexit
import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, NamedTuple, NoReturn

from hexapla.parallel import clusters
from hexapla.schema import UserError

_POLL = 0.05
_GRACE = 2.0
"""Seconds in which the others may still end by themselves, once one has failed."""
_PATIENCE = 30.0
"""Seconds between asking to end and SIGKILL; as long as Slurm waits."""
_SHOWN = 2**16
"""Bytes, the last, of what a failed process said."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl(2)."""


class _Process(NamedTuple):
    rank: int
    running: "subprocess.Popen[bytes]"
    said: IO[bytes]
    """Its stderr; of the first process, whose stderr is seen as it comes, its traceback only."""


def main() -> None:
    """Launch what the command line says; a user's mistake ends with status 2."""
    try:
        sys.exit(launch(*sys.argv[1:]))
    except UserError as mistake:
        _say(f"hexapla launch: {mistake}")
        sys.exit(2)


def launch(name: str = "", module: str = "", *arguments: str) -> int:
    """Run the module and give its exit status; a single process takes the place of this one.

    Raises:
        UserError: no such config, one that does not fit, or GPUs or variables that are not there.
    """
    if not module:
        raise UserError(
            "wants NAME MODULE [argument ...]; NAME is a file of configs/accelerate, without .yaml"
        )
    path, config = clusters.read(name)
    if config.on_cpu:
        # The second for what asks torch and not accelerate: no value hides every GPU.
        os.environ |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    if config.num_processes == config.num_machines == 1:
        _become(module, arguments)
    world = clusters.place(path, config, 0 if config.on_cpu else _gpus(), os.environ)
    if world.size == 1:
        _become(module, arguments)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    environments = [
        os.environ | clusters.environment(config, world, local, os.environ)
        for local in range(world.processes)
    ]
    return _watch([_start([module, *arguments], each) for each in environments], asked)


def _become(module: str, arguments: Sequence[str]) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is meant


def _gpus() -> int:
    """How many this process may use; for consumer cards, set up as accelerate's launcher does."""
    import torch

    count = torch.accelerator.device_count()
    if count:
        from accelerate.utils import check_cuda_p2p_ib_support

        if not check_cuda_p2p_ib_support():
            os.environ.setdefault("NCCL_P2P_DISABLE", "1")
            os.environ.setdefault("NCCL_IB_DISABLE", "1")
    return int(count)


# --- several processes -----------------------------------------------------------------------


def _start(command: Sequence[str], variables: dict[str, str]) -> _Process:
    said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
    first = variables["RANK"] == "0"
    handle = said.fileno()
    code = "from hexapla.parallel.launch import child; child()"
    running = subprocess.Popen(  # noqa: S603 - the user's own command
        [sys.executable, "-c", code, str(handle if first else 2), *command],
        env=variables,
        stderr=None if first else said,
        pass_fds=[handle] if first else [],
        # Ctrl-C is for the launcher, which tells each once; and a group can be killed as a whole.
        start_new_session=True,
    )
    return _Process(int(variables["RANK"]), running, said)


def child() -> None:
    """What each of several processes is: the module, as `python -m` would run it.

    An uncaught exception goes to the file whose handle comes first: when one process ends, the others'
    exceptions about lost connections are not what the user should read.
    """
    handle, module, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)

    def keep(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with open(int(handle), "a", encoding="utf-8", closefd=False) as said:
            traceback.print_exception(kind, error, trace, file=said)

    sys.excepthook = keep
    sys.argv = [module, *arguments]
    status = [1]
    # Registered before all others, so that it comes after them.
    atexit.register(_leave, status)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status[0] = 0
    except SystemExit as stop:
        status[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise


def _leave(status: Sequence[int]) -> None:
    """Skip C++'s last things: with gloo still connected they abort now and then, whatever the status was."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status[0])


def _watch(processes: Sequence[_Process], asked: Sequence[int]) -> int:
    """Wait until all have ended, one has failed, or a signal came; end all; give the exit status."""
    ended: list[_Process] = []
    _wait(processes, ended, lambda: bool(asked) or any(each.running.returncode for each in ended))
    if not asked and len(ended) < len(processes):
        # All may have found the same mistake. Let the first of them say so.
        until = time.monotonic() + _GRACE
        _wait(processes, ended, lambda: bool(asked) or time.monotonic() > until)
    failed = [each for each in ended if each.running.returncode]
    _end(processes, asked[0] if asked else signal.SIGTERM)
    if asked:
        return 128 + asked[0]
    return _told(failed) if failed else 0


def _wait(processes: Sequence[_Process], ended: list[_Process], enough: Callable[[], bool]) -> None:
    """Add to `ended`, in the order in which they end."""
    while len(ended) < len(processes) and not enough():
        time.sleep(_POLL)
        known = {each.rank for each in ended}
        ended += [each for each in processes if each.rank not in known and each.running.poll() is not None]


def _end(processes: Sequence[_Process], number: int) -> None:
    """Ask those that still run to end, and kill what is left of them and of what they started."""
    for each in processes:
        if each.running.poll() is None:
            each.running.send_signal(number)
    until = time.monotonic() + _PATIENCE
    _wait(processes, [], lambda: time.monotonic() > until)
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.running.pid, signal.SIGKILL)
        each.running.wait()


def _told(failed: Sequence[_Process]) -> int:
    """Show why all ended, as far as it was not seen; give the exit status.

    Of several that failed, one knows best: one that found the user's mistake, then one that was killed,
    then the earliest; the others often say no more than that they lost it.
    """
    cause = min(failed, key=lambda each: {2: 0, 1: 2}.get(each.running.returncode, 1))
    status = cause.running.returncode
    seen = any(each.rank == 0 and each.running.returncode == status for each in failed)
    cause.said.seek(max(0, cause.said.seek(0, os.SEEK_END) - _SHOWN))
    said = cause.said.read().decode(errors="replace").rstrip()
    if status == 2:
        said = "" if seen else said.rpartition("\n")[2]
    if said:
        _say(said)
    if status < 0:
        name = signal.Signals(-status).name
        more = "; the memory may not have sufficed" if -status == signal.SIGKILL else ""
        _say(f"hexapla launch: process {cause.rank} was ended by {name}{more}")
    return 128 - status if status < 0 else status


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - the line itself


if __name__ == "__main__":
    main()
