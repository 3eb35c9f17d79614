"""Where tasks run: in this process, in others of this machine, or on a Ray cluster. No result depends on it.

A task is a call of a pure function, so that it can be repeated, anywhere, whatever it died of. Results
return to this process, which alone writes: nothing has to be shared with the places where tasks run.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from hexapla.config_data import Executor
from hexapla.parallel import workers
from hexapla.parallel.cores import cores
from hexapla.parallel.progress import Progress, progress
from hexapla.parallel.workers import Outcome, Place

_TICK = 1.0
"""Seconds after which progress is looked at, though no task has ended."""
_HOPELESS = 8
"""Tasks given up, and none done, after which no more are begun: what ails them ails all."""
_log = logging.getLogger(__name__)


class Task(NamedTuple):
    """A call of a function."""

    key: str
    """Of all that its result depends on; names the file that keeps the result."""
    label: str
    """What progress is told by, such as the language."""
    arguments: tuple[Any, ...]
    """Of a kind that pickle knows."""
    size: int
    """Units of work."""


class Failure(NamedTuple):
    """A task that was given up."""

    task: Task
    error: str
    """One line."""


class _Try(NamedTuple):
    number: int
    """Of its task, in their order."""
    task: Task
    left: int
    """Tries after this one."""


def run(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    executor: Executor,
    *,
    save: Callable[[Task, Any], None],
    unit: str = "texts",
    describe: str = "",
    totals: Counter[str] | None = None,
    light: int = 0,
    on_gpu: bool = True,
) -> list[Failure]:
    """Call `function` for each task and hand the results to `save`, in this process, as they come.

    Of tasks and results a few per worker are held at a time.

    Args:
        function: of a module (pickle has to find it), and pure: it may be called again for the same task.
        tasks: those that are left to do; a list, or an iterator that makes them when they are needed.
        executor: where, and how often a task that fails, or whose worker dies, is tried again.
        save: writes a result; what it raises ends everything.
        unit: what the tasks' sizes count.
        describe: what is being done, for progress.
        totals: units by label, of an iterator, for the time left; of a list they are known.
        light: units, where they are known, below which tasks are not worth another process.
        on_gpu: whether `function` uses a GPU; otherwise it gets a worker a core.

    Returns:
        The tasks that failed each time, in their order, while the others went on. When the first eight
        that end have all failed for good, these: then the others are not tried.

    Raises:
        UserError: Ray is not installed, or the cluster can't be reached.
    """
    most = None
    if isinstance(tasks, Collection):
        most, totals = len(tasks), Counter()
        for task in tasks:
            totals[task.label] += task.size
    inline = most == 0 or (totals is not None and totals.total() < light)
    if inline and most != 0 and executor.kind == "ray":
        _log.info("%s: too little for Ray, done in this process", describe or function.__name__)
    with (
        nullcontext(workers.here()) if inline else _place(executor, most, on_gpu=on_gpu) as place,
        progress(describe or function.__name__, unit, totals or Counter()) as shown,
    ):
        return _run(function, tasks, place, executor.retries, save, shown)


def _run(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    place: Place,
    retries: int,
    save: Callable[[Task, Any], None],
    shown: Progress,
) -> list[Failure]:
    fresh = (_Try(number, task, retries) for number, task in enumerate(tasks))
    again: deque[_Try] = deque()
    running: dict[Future[Outcome], _Try] = {}
    failures: dict[int, Failure] = {}
    done = 0
    while True:
        hopeless = not done and len(failures) >= _HOPELESS
        for each in () if hopeless else _next(again, fresh, place.window() - len(running)):
            running[place.submit(function, each.task.arguments)] = each
        if not running:
            if hopeless:
                _log.warning("%d tasks have failed and none has succeeded: trying no more", len(failures))
            return [failures[number] for number in sorted(failures)]
        for future in wait(running, timeout=_TICK, return_when=FIRST_COMPLETED).done:
            tried, outcome = running.pop(future), _outcome(future)
            if not outcome.error:
                save(tried.task, outcome.result)
                done += 1
                shown.advance(tried.task.label, tried.task.size)
            elif tried.left:
                _log.warning("%s %s: %s; trying again", tried.task.label, tried.task.key, outcome.error)
                again.append(tried._replace(left=tried.left - 1))
            else:
                failures[tried.number] = Failure(tried.task, outcome.error)
        shown.tick()


def _next(again: deque[_Try], fresh: Iterator[_Try], count: int) -> Iterator[_Try]:
    for _ in range(count):
        if again:
            yield again.popleft()
        elif (each := next(fresh, None)) is not None:
            yield each
        else:
            return


def _outcome(future: "Future[Outcome]") -> Outcome:
    try:
        return future.result()
    except Exception as error:
        return Outcome(error=workers.told(error))


# --- places ----------------------------------------------------------------------------------


def _place(executor: Executor, most: int | None, *, on_gpu: bool) -> AbstractContextManager[Place]:
    """By the executor's kind; `most` is the number of tasks, if that is known."""
    if executor.kind == "ray":
        from hexapla.parallel import ray_cluster

        gpus = executor.gpus if on_gpu else 0.0
        return ray_cluster.cluster(executor.address, gpus=gpus, cores=executor.workers or cores())
    devices = _gpus() if on_gpu else ()
    count = executor.workers or len(devices) or cores()
    count = count if most is None else min(count, most)
    if count == 1:
        return nullcontext(workers.here())
    return workers.pool(environments(count, devices))


def environments(count: int, devices: tuple[str, ...]) -> list[dict[str, str]]:
    """Each worker's share of the cores, unless the user has set the threads, and its GPU, in turn."""
    share = str(max(1, cores() // count))
    threads = {name: share for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS") if name not in os.environ}
    gpus = [{"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} if devices else {} for n in range(count)]
    return [{**threads, **gpu} for gpu in gpus]


def _gpus() -> tuple[str, ...]:
    """That this process may use, by the names that CUDA_VISIBLE_DEVICES has for them."""
    import torch  # takes seconds; counting does not set up the GPUs

    count = torch.accelerator.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count]) or tuple(map(str, range(count)))
