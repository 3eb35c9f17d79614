"""The only code that knows Ray: tasks on the machines of a cluster, or on this one as if it were one."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hexapla.parallel import workers
from hexapla.parallel.workers import Outcome, Place
from hexapla.schema import UserError, first_line

_PATIENCE = 5.0
"""Seconds in which a cluster's first machine has to answer; Ray itself tries for minutes."""
_OWN = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}


@contextmanager
def cluster(address: str, *, gpus: float, cores: int) -> Iterator[Place]:
    """The cluster at `address`, or RAY_ADDRESS; without either one on this machine, for as long as the block.

    This package's code goes along with the tasks; what it imports has to be installed on the machines. A
    task whose machine dies fails like one that raises: how often it is tried again is up to the caller.

    Args:
        address: host:port, or "auto" for one that runs on this machine.
        gpus: that a task takes; may be a fraction.
        cores: of a cluster that is started here; a task takes one.

    Raises:
        UserError: Ray is not installed, nothing answers at the address, or there are no GPUs.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    with _connected(_imported(own=not address), address, cores) as ray:
        if gpus and not ray.cluster_resources().get("GPU"):
            raise UserError(f"executor.gpus: is {gpus:g}, but the cluster has no GPU; set it to 0")
        call = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(workers.attempt)

        def submit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Outcome]":
            future: Future[Outcome] = call.remote(function, arguments).future()
            return future

        yield Place(submit, lambda: 2 * _slots(ray.cluster_resources(), gpus))


def _slots(resources: dict[str, float], gpus: float) -> int:
    """How many tasks the cluster runs at a time; machines come and go."""
    slots = resources.get("CPU", 0.0)
    return max(1, int(min(slots, resources.get("GPU", 0.0) / gpus) if gpus else slots))


def _imported(*, own: bool) -> Any:
    """Ray reads these when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own:
        # 127.0.0.1, as where Ray has no clusters; else it listens on all of the machine's networks.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise UserError("executor.kind: Ray is not installed; pip install 'hexapla[ray]'") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextmanager
def _connected(ray: Any, address: str, cores: int) -> Iterator[Any]:
    code = {"py_modules": [str(Path(__file__).parents[1])], "excludes": ["__pycache__"]}
    place: dict[str, Any] = {"address": address}
    # A short path: sockets lie in it, whose names Linux cuts at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        if address:
            _reach(address)
        else:
            place = {"address": "local", "num_cpus": cores, "_temp_dir": scratch}
        try:
            ray.init(**place, **_OWN, runtime_env=code)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"executor.address '{address}'" if address else "executor.kind: Ray does not start"
            raise UserError(f"{where}: {' '.join(str(error).split())[:300]}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto": Ray looks for it, and knows soon
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"executor.address '{address}': nothing answers ({first_line(error)}); "
            "`ray start --head` tells the address, and `ray status` whether the cluster lives"
        ) from None
