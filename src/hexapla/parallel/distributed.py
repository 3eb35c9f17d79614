"""Several processes side by side (`accelerate launch`, `torchrun`): which one this is, who gets what.

Without a launcher every function is the answer of one process alone, and nothing is imported or set up.
"""

import logging
import os
import threading
from typing import Any

import numpy as np

from hexapla.schema import UserError

_log = logging.getLogger(__name__)

_PATIENCE = 20.0
"""Seconds after which a process that waits for the others says so."""
_ROWS_AT_ONCE = 1 << 16
"""Rows that a process hands round at a time: they pass through the memory of its device."""


def launched() -> bool:
    """Whether a launcher started this process as one of several, which all of them say by the same variables.

    Raises:
        UserError: the variables say so, but not where the processes meet; a shell may have kept them of an
            earlier run, and this process would wait for others for ever.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2 or "LOCAL_RANK" not in os.environ:
        return False
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE and LOCAL_RANK are set as for one of several processes, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not; `unset WORLD_SIZE LOCAL_RANK`, or start with a launcher"
        )
    return True


def rank() -> int:
    return int(_state().process_index) if launched() else 0


def count() -> int:
    return int(_state().num_processes) if launched() else 1


def is_main() -> bool:
    return rank() == 0


def device() -> str | None:
    """The device that is this process's own, such as `cuda:1`; None without a launcher."""
    return str(_state().device) if launched() else None


def barrier() -> None:
    """Wait until all processes are here."""
    if launched():
        _state().wait_for_everyone()


def agreed(value: str) -> str:
    """The main process's value, in all of them: for what each would measure a little differently."""
    if not launched():
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    return str(broadcast_object_list([value])[0])


def everyones(value: str) -> list[str]:
    """What each process says, by rank."""
    if not launched():
        return [value]
    from accelerate.utils import gather_object

    _state()
    return [str(each) for each in gather_object([value])]


def gather(rows: np.ndarray) -> list[np.ndarray]:
    """What each process holds, by rank, in every process.

    Args:
        rows: [rows, dim]; the number of rows may differ between processes, dim and type may not.
    """
    if not launched():
        return [rows]
    import torch
    from accelerate.utils import gather as gather_tensors
    from accelerate.utils import gather_object

    state = _state()
    counts = [int(held) for held in gather_object([len(rows)])]
    parts: list[list[np.ndarray]] = [[rows[:0]] for _ in counts]
    for first in range(0, max(counts), _ROWS_AT_ONCE):
        # Collective operations want the same shape everywhere; the filling is cut off again.
        block = np.zeros((min(_ROWS_AT_ONCE, max(counts) - first), *rows.shape[1:]), rows.dtype)
        mine = rows[first : first + len(block)]
        block[: len(mine)] = mine
        whole = gather_tensors(torch.from_numpy(block).to(state.device)).cpu().numpy()
        for process, held in enumerate(counts):
            end = min(len(block), held - first)
            if end > 0:
                parts[process].append(whole[process * len(block) :][:end])
    return [np.concatenate(part) for part in parts]


def on_cpu() -> bool:
    """Whether Accelerate must be set to the CPU; by default it takes several processes without a GPU for one."""
    import torch
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_CPU")) or not torch.accelerator.is_available()


def _state() -> Any:
    from accelerate import PartialState

    if PartialState._shared_state:
        return PartialState(cpu=on_cpu())
    # Where no launcher runs and a shell kept its variables, nobody else will come.
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    message = (
        "process %s still waits for all %s at %s:%s, as RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say"
    )
    waiting = threading.Timer(_PATIENCE, _log.warning, (message, *(os.environ[name] for name in names)))
    waiting.daemon = True
    waiting.start()
    try:
        return PartialState(cpu=on_cpu())
    finally:
        waiting.cancel()
