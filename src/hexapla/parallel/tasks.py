"""A task, the outcome of trying it, and what a place where tasks run offers; how many cores there are."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from hexapla.schema import UserError, first_line


class Task(NamedTuple):
    """A call of a function."""

    key: str
    """A hash of everything that the result depends on; it names the file that keeps the result."""
    label: str
    """The group under which progress counts the task, such as its language."""
    arguments: tuple[Any, ...]
    """Values that pickle can hold."""
    size: int
    """Units of work, such as texts."""


class Failure(NamedTuple):
    """A task that failed as often as it was tried."""

    task: Task
    error: str
    """One line."""


class Attempt(NamedTuple):
    """The outcome of calling a task once: a result, or in one line why there is none."""

    result: Any = None
    error: str = ""


class Place(NamedTuple):
    """Where tasks run."""

    submit: Callable[[Callable[..., Any], tuple[Any, ...]], "Future[Attempt]"]
    """Start a call; the future raises when the place fails, not when the function does."""
    capacity: Callable[[], int]
    """How many tasks may be submitted at a time."""


def cores() -> int:
    """Count the cores that this process may use: in a container or a Slurm job not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Count the threads that an engine should use: OMP_NUM_THREADS, or else one a core.

    Where the variable is a list by levels of nested loops ("4,2"), its first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(first) if first.isdecimal() else 0) or cores()


def describe_error(error: Exception) -> str:
    """Say in one line what was raised; a user's mistake keeps its own words."""
    line = first_line(error)
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Attempt:
    """Call the function, wherever this runs; an exception returns as one line."""
    try:
        return Attempt(function(*arguments))
    except Exception as error:
        return Attempt(error=describe_error(error))
