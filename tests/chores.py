"""Functions for workers in other processes, which have to find them by name; they import little."""

import contextlib
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

AT_IMPORT = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}


def square(number):
    return number * number


def where(_):
    """Which process this is, and what a library that is imported now reads."""
    time.sleep(0.2)  # so that all workers get some
    return os.getpid(), AT_IMPORT


def noted(folder, number):
    """A note of each try, and which it is."""
    with (Path(folder) / str(number)).open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    return tries(folder, number)


def tries(folder, number):
    return (Path(folder) / str(number)).read_text().count("\n")


def fallible(folder, number, failing):
    """Raise so many times before it works."""
    if noted(folder, number) <= failing:
        raise ValueError(f"{number} is not ready\nnor is it worth a second line")
    return square(number)


def late(folder, number, failing):
    """One that does not fail ends after nine have begun."""
    noted(folder, number)
    if failing:
        raise ValueError(f"{number} is not ready")
    while len(list(Path(folder).iterdir())) < 9:
        time.sleep(0.02)
    time.sleep(0.2)
    return square(number)


def mortal(folder, number, dying):
    """Be killed so many times before it works."""
    if noted(folder, number) <= dying:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def cut_short(folder, number):
    """Be killed half-way through sending the result, the first time."""

    def half(pipe, message):
        os.write(pipe.fileno(), bytes(message)[: len(message) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    if noted(folder, number) == 1 and number == 1:
        Connection._send = half
    return number, "x" * 100_000


def slow(folder, number, seconds=60):
    noted(folder, number)
    time.sleep(seconds)
    return square(number)


def unsendable(number):
    return (lambda: number) if number % 2 else number


def on_node(folder, number, victim, seconds):
    """On the node `victim` it lasts until the node is killed."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    with (Path(folder) / node).open("a") as notes:
        notes.write(f"{number}\n")
    time.sleep(600 if node == victim else seconds)
    return square(number)


def alive(pid):
    """Whether the process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def main(folder):
    """A program with two workers at long tasks, to be ended from outside."""
    from hexapla.config import Executor
    from hexapla.parallel import executors
    from hexapla.parallel.tasks import Task

    tasks = [Task(str(number), "", (folder, number), 1) for number in range(4)]
    executors.run(slow, tasks, Executor(workers=2), save=lambda *_: None, on_gpu=False)


if __name__ == "__main__":
    main(sys.argv[1])
