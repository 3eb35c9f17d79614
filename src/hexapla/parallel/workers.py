"""Processes of this machine that work on tasks: one that dies costs the task that it was at, and is replaced.

A thread a process hands out the tasks, so `concurrent.futures` does the scheduling. Its own pool of
processes, and loky's, end as a whole when one process dies; they and pebble's share a pipe among all
processes, where one that is killed while it writes stops the others for good. Here each has its own.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple

from hexapla.schema import UserError, first_line

_GRACE = 10.0
"""Seconds in which a worker without a task has to end."""
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy threads' locks, and CUDA does not bear it


class Outcome(NamedTuple):
    """What became of a task: its result or, in one line, why there is none."""

    result: Any = None
    error: str = ""


class Place(NamedTuple):
    """Where tasks run."""

    submit: Callable[[Callable[..., Any], tuple[Any, ...]], "Future[Outcome]"]
    """A function and its arguments, to be called there; the future raises when the place fails, not it."""
    window: Callable[[], int]
    """How many tasks may be handed out at a time."""


class WorkerError(Exception):
    """A worker ended while it was at a task."""


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call the function, wherever this runs; what it raises comes back as one line."""
    try:
        return Outcome(function(*arguments))
    except Exception as error:
        return Outcome(error=told(error))


def told(error: Exception) -> str:
    """In one line; a mistake and a death say themselves what they are."""
    line = first_line(error)
    return line if isinstance(error, (UserError, WorkerError)) else f"{type(error).__name__}: {line}"


def here() -> Place:
    """In this process; a task is done when `submit` returns."""

    def submit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        future.set_result(attempt(function, arguments))
        return future

    return Place(submit, lambda: 1)


@contextmanager
def pool(environments: Sequence[Mapping[str, str]]) -> Iterator[Place]:
    """A worker for each of some sets of environment variables; when the block is left, none is.

    Workers start with their first task. They end at once when the block raises, and when this process
    dies, of whatever signal.
    """
    starting = threading.Lock()
    workers = [_Worker(environment, starting) for environment in environments]
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        worker = free.get()
        try:
            return worker.call(function, arguments)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(len(workers), "hexapla-worker")
    grace = 0.0
    try:
        yield Place(lambda function, arguments: threads.submit(work, function, arguments),
                    lambda: 2 * len(workers))  # fmt: skip
        grace = _GRACE
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end(grace)
        threads.shutdown()


class _Worker:
    """A process and the pipe to it; started when there is a task, and anew when it has died."""

    def __init__(self, environment: Mapping[str, str], starting: threading.Lock) -> None:
        self._environment, self._starting = environment, starting
        self._process: Any = None
        self._pipe: Connection | None = None
        self._over = False

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        """Raises WorkerError, and what pickle does for arguments or results that it can't take apart."""
        message = pickle.dumps((function, arguments))
        if self._pipe and not self._process.is_alive():
            self._buried()  # while it had nothing to do: no task's fault
        pipe = self._pipe or self._start()
        try:
            pipe.send_bytes(message)
            answer = pipe.recv_bytes()
        except (EOFError, OSError):
            raise WorkerError(self._buried()) from None
        return Outcome(*pickle.loads(answer))  # noqa: S301 - from our own process

    def _start(self) -> Connection:
        """Its environment is set before it exists: libraries read theirs when they are first imported."""
        ours, theirs = _SPAWN.Pipe()
        with self._starting:
            if self._over:
                raise WorkerError("the workers are being ended")
            process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
            with _set(self._environment):
                process.start()
            self._process = process
        # Held by the process alone, so that its death ends the pipe.
        theirs.close()
        self._pipe = ours
        return ours

    def _buried(self) -> str:
        """Make way for a new process; how the old one ended."""
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the worker ended with status {code}"
        more = "; the memory may not have sufficed" if -code == signal.SIGKILL else ""
        return f"the worker was ended by {signal.Signals(-code).name}{more}"

    def end(self, grace: float) -> None:
        """Ask it to, and kill it after so many seconds; with 0 at once. It does not start again."""
        with self._starting:
            self._over = True
            process = self._process
        if process is None:
            return
        if grace and self._pipe:
            self._pipe.close()
            process.join(grace)
        process.kill()
        process.join()


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """For a process that is started in the block, which inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection) -> None:
    """What a worker is: calls come in, outcomes go out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    threading.Thread(target=_follow_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        outcome = attempt(_called, (message,))
        try:
            answer = pickle.dumps(tuple(outcome))
        except Exception as error:
            answer = pickle.dumps((None, told(error)))
        pipe.send_bytes(answer)


def _called(message: bytes) -> Any:
    function, arguments = pickle.loads(message)  # noqa: S301 - from our own process
    return function(*arguments)


def _follow_parent() -> None:
    """Nothing that a worker does is of use without the one that asked for it."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
