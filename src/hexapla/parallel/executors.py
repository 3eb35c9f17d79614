"""Run tasks in this process, in other processes of this machine, or on a Ray cluster.

A task is a call of a pure function, so that it can be repeated anywhere, whatever it failed of. Results
return to this process, which alone writes them: the places where tasks run need nothing in common.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from tqdm import tqdm

from hexapla.config import Executor
from hexapla.parallel.tasks import Attempt, Failure, Place, Task, attempt, cores, describe_error

LOG_EVERY = 30.0
"""Seconds between progress lines in the log, where there is no terminal for a bar."""
_TICK = 1.0
"""Seconds after which progress is looked at although no task has ended."""
_HOPELESS = 8
"""After so many tasks have failed for good and none has succeeded, no further ones are started."""
_GRACE = 10.0
"""Seconds that a process has to end before it is killed."""
_log = logging.getLogger(__name__)


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
    """Call `function` for each task, and `save` in this process with each result as it arrives.

    Only as many tasks and results are held as there are workers.

    Args:
        function: a pure function of a module, so that pickle finds it and it can be called again.
        tasks: a list, or an iterator that creates tasks when they are needed.
        executor: where to run, and how often a task is retried that raises or whose process dies.
        save: writes a result; an error that it raises ends everything.
        unit: what the tasks' sizes count, in the plural.
        describe: what is being done, for progress.
        totals: units by label, for the time left; needed for an iterator only.
        light: with fewer units than this in total, tasks run in this process.
        on_gpu: whether `function` uses a GPU; otherwise there is a worker for each core.

    Returns:
        The tasks that failed at every attempt, in their order. When the first eight tasks to end have all
        failed, the others are not tried: their cause is likely to be the same.

    Raises:
        UserError: Ray is not installed, or the cluster can't be reached.
    """
    count = None
    if isinstance(tasks, Collection):
        count, totals = len(tasks), Counter()
        for task in tasks:
            totals[task.label] += task.size
    describe = describe or function.__name__
    inline = count == 0 or (totals is not None and totals.total() < light)
    if inline and count != 0 and executor.kind == "ray":
        _log.info("%s: too little work for Ray; it runs in this process", describe)
    total = totals.total() or None if totals else None
    with (
        nullcontext(_in_process()) if inline else _place(executor, count, on_gpu=on_gpu) as place,
        tqdm(desc=describe, total=total, unit=f" {unit}", unit_scale=True, disable=None) as bar,
    ):
        progress = Progress(describe, unit, totals or Counter(), bar)
        return _run(function, tasks, place, executor.retries, save, progress)


def _run(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    place: Place,
    retries: int,
    save: Callable[[Task, Any], None],
    progress: "Progress",
) -> list[Failure]:
    again: deque[tuple[int, Task, int]] = deque()
    fresh = ((number, task, retries) for number, task in enumerate(tasks))
    running: dict[Future[Attempt], tuple[int, Task, int]] = {}
    failures: dict[int, Failure] = {}
    done = 0
    while True:
        hopeless = not done and len(failures) >= _HOPELESS
        free = 0 if hopeless else max(0, place.capacity() - len(running))
        retried = (again.popleft() for _ in range(len(again)))
        for entry in islice(chain(retried, fresh), free):
            running[place.submit(function, entry[1].arguments)] = entry
        if not running:
            if hopeless:
                _log.warning("%d tasks failed and none succeeded; the others are not tried", len(failures))
            return [failures[number] for number in sorted(failures)]
        for future in wait(running, timeout=_TICK, return_when=FIRST_COMPLETED).done:
            (number, task, left), (result, error) = running.pop(future), _result(future)
            if not error:
                save(task, result)
                done += 1
                progress.advance(task.label, task.size)
            elif left:
                _log.warning("%s %s: %s; trying again", task.label, task.key, error)
                again.append((number, task, left - 1))
            else:
                failures[number] = Failure(task, error)
        progress.tick()


def _result(future: "Future[Attempt]") -> Attempt:
    try:
        return future.result()
    except Exception as error:
        return Attempt(error=describe_error(error))


# --- places ----------------------------------------------------------------------------------


def _place(executor: Executor, count: int | None, *, on_gpu: bool) -> AbstractContextManager[Place]:
    """Choose by the executor's kind; `count` is the number of tasks, if it is known."""
    if executor.kind == "ray":
        from hexapla.parallel import ray

        gpus = executor.gpus if on_gpu else 0.0
        return ray.cluster(executor.address, gpus=gpus, cores=executor.workers or cores())
    devices = _gpus() if on_gpu else ()
    workers = executor.workers or len(devices) or cores()
    workers = workers if count is None else min(workers, count)
    return nullcontext(_in_process()) if workers == 1 else pool(environments(workers, devices))


def environments(count: int, devices: tuple[str, ...]) -> list[dict[str, str]]:
    """Give each worker its share of the cores, unless the user has set the threads, and a GPU in turn."""
    share = str(max(1, cores() // count))
    shares = {name: share for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS") if name not in os.environ}
    gpus = [{"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} if devices else {} for n in range(count)]
    return [{**shares, **gpu} for gpu in gpus]


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch  # Takes seconds; counting does not initialize the GPUs.

    count = torch.accelerator.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count]) or tuple(map(str, range(count)))


def _in_process() -> Place:
    def submit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Attempt]":
        future: Future[Attempt] = Future()
        future.set_result(attempt(function, arguments))
        return future

    return Place(submit, lambda: 1)


@contextmanager
def pool(variables: Sequence[Mapping[str, str]]) -> Iterator[Place]:
    """Run tasks in one process for each set of environment variables.

    Processes start with their first task. They end with the block, at once if it raises, and they end when
    this process dies, however it dies.
    """
    workers = [_Worker(own) for own in variables]
    others = set(multiprocessing.active_children())

    def submit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Attempt]":
        return next(worker for worker in workers if worker.idle).submit(function, arguments)

    grace = 0.0
    try:
        yield Place(submit, lambda: len(workers))
        grace = _GRACE
    finally:
        if not grace:  # Also a process that Ctrl-C caught while it was being started.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        for worker in workers:
            worker.close(grace)


class _Worker:
    """A pool of one process, replaced when the process dies.

    In a pool of several processes all running tasks fail when one process dies, and nobody knows which of
    them killed it. A process of its own costs a task nothing and answers that.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._pool: ProcessPoolExecutor | None = None
        self._process: Any = None
        self.answer: Future[Attempt] = Future()
        self.answer.set_result(Attempt())

    @property
    def idle(self) -> bool:
        return self.answer.done()

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Attempt]":
        answer: Future[Attempt] = Future()
        self.answer = answer
        try:
            submitted = self._start(function, arguments)
        except BrokenProcessPool:  # The process died without a task: this one is not to blame.
            self.close(0)
            submitted = self._start(function, arguments)

        process = self._process

        def finish(done: "Future[Attempt]") -> None:
            if isinstance(done.exception(), BrokenProcessPool):
                answer.set_result(Attempt(error=_death(process)))
            else:
                answer.set_result(_result(done))

        submitted.add_done_callback(finish)
        return answer

    def _start(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Attempt]":
        if self._pool is not None:
            return self._pool.submit(attempt, function, arguments)
        # Not forked: a fork copies locks that other threads hold, and CUDA does not survive it.
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_initialize)
        before = set(multiprocessing.active_children())
        # Libraries read the variables when they are first imported, so they are set before the start.
        with _environment(self._variables):
            submitted = self._pool.submit(attempt, function, arguments)
        (self._process,) = set(multiprocessing.active_children()) - before
        # While this process held the writing end of the pipe too, a worker that is killed half-way through
        # writing a result would leave the pool reading for ever.
        self._pool._result_queue._writer.close()  # type: ignore[attr-defined]
        return submitted

    def close(self, grace: float) -> None:
        """End the process, and kill it unless it ends within `grace` seconds."""
        if self._pool is None:
            return
        # The pool's own thread has to be the one that waits for the process: two that wait for one process at
        # the same time take it for alive for a moment after its end.
        timer = threading.Timer(grace, self._process.kill) if self._process else None
        if timer is not None:
            timer.start()
        self._pool.shutdown()
        if timer is not None:
            timer.cancel()
        self._pool = self._process = None


def _death(process: Any) -> str:
    """Say how a worker ended."""
    process.join(_GRACE)
    code = process.exitcode
    if code is None or code >= 0:
        return f"the worker ended with status {code}"
    hint = "; the memory may have run out" if -code == signal.SIGKILL else ""
    return f"the worker was ended by {signal.Signals(-code).name}{hint}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that starts in the block and inherits them."""
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _initialize() -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def follow_parent() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


# --- progress --------------------------------------------------------------------------------


@dataclass
class Progress:
    """Counts of finished work: a bar on a terminal, or else a line in the log now and then."""

    describe: str
    unit: str
    totals: Counter[str]
    bar: "tqdm[Any]"
    done: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)

    def advance(self, label: str, size: int) -> None:
        self.done[label] += size
        self.bar.set_postfix_str(self._labels(), refresh=False)
        self.bar.update(size)

    def tick(self) -> None:
        """Log a line if it is time to; to be called every few seconds, whether or not there is news."""
        now = time.monotonic()
        if self.bar.disable and now - self.logged >= LOG_EVERY:
            self.logged = now
            _log.info("%s", self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """The counts, the rate since the start, and the time left at that rate."""
        done, total = self.done.total(), self.totals.total()
        rate = done / seconds
        counts = f"{done:,} of {total:,} {self.unit}" if total else f"{done:,} {self.unit}"
        left = f", {tqdm.format_interval((total - done) / rate)} left" if total and rate else ""
        labels = f"; {shown}" if (shown := self._labels()) else ""
        return f"{self.describe}: {counts}, {rate:,.3g}/s{left}{labels}"

    def _labels(self) -> str:
        """The labels in progress; all of them where the totals are unknown."""
        current = [label for label in self.done if label and self.done[label] != self.totals[label]]
        of = {label: f"/{total:,}" for label, total in self.totals.items()}
        return ", ".join(f"{label} {self.done[label]:,}{of.get(label, '')}" for label in current)
