"""Run tasks on a Ray cluster, or on one that is started on this machine. No other code knows Ray."""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hexapla.parallel.tasks import Attempt, Place, attempt
from hexapla.schema import UserError, first_line

_PATIENCE = 5.0
"""Seconds that a cluster's first machine has to answer; Ray itself tries for minutes."""
_OWN = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}


@contextmanager
def cluster(address: str, *, gpus: float, cores: int) -> Iterator[Place]:
    """Connect to the cluster at `address` or RAY_ADDRESS; without either, start one on this machine.

    This package's code travels with the tasks; what it imports has to be installed on the machines. A task
    whose machine dies fails like one that raises, and the caller decides whether to retry it.

    Args:
        address: host:port, or "auto" for a cluster that runs on this machine.
        gpus: how many a task uses; may be a fraction.
        cores: how many a cluster that is started here has; a task uses one.

    Raises:
        UserError: Ray is not installed, nothing answers at the address, or there are no GPUs.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    with _connected(_imported(own=not address), address, cores) as ray:
        if gpus and not ray.cluster_resources().get("GPU"):
            raise UserError(f"executor.gpus: is {gpus:g}, but the cluster has no GPU; set it to 0")
        call = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(attempt)

        def submit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Attempt]":
            future: Future[Attempt] = call.remote(function, arguments).future()
            return future

        yield Place(submit, lambda: 2 * _slots(ray.cluster_resources(), gpus))


def _slots(resources: dict[str, float], gpus: float) -> int:
    """Count the tasks that the cluster runs at a time; machines come and go."""
    slots = resources.get("CPU", 0.0)
    return max(1, int(min(slots, resources.get("GPU", 0.0) / gpus) if gpus else slots))


def _imported(*, own: bool) -> Any:
    """Import Ray, which reads these variables at its import."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if own:
        # Else Ray listens on all of the machine's networks, not on 127.0.0.1 alone.
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
    # A short path, because it holds sockets, whose names Linux limits to 107 bytes.
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
        return  # "auto": Ray looks for a cluster itself, and soon knows.
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"executor.address '{address}': nothing answers ({first_line(error)}); "
            "`ray start --head` tells the address, and `ray status` whether the cluster lives"
        ) from None
