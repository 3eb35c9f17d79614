"""What it costs to cut work into shards, keep each one's result in a file, and hand them to workers.

    python perf/sharding.py [--seconds S ...] [--shards N] [--texts N] [--workers N]

A shard is so many texts of the sample; its work is to wait for as long as an engine would compute, and to
return as many texts. Beside the plain loop over the same function, in turn: through `executors.run` in this
process, with the shard's key hashed and its result written as the stages do; and the same with workers,
to which texts and results go through pipes. Figures are medians over the rounds, starting of workers left
out. Overhead is what a shard takes longer than its work; on a machine that others use as well, what this
process computes for a shard says more.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hexapla.config import Executor
from hexapla.io import hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.tasks import Task

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "pairs" / "en.jsonl"
ROUNDS = 3


def engine(texts: Sequence[str], seconds: float) -> list[str]:
    """Upper case for a translation, so that the result is as long."""
    began = time.perf_counter()
    found = [text.upper() for text in texts]
    time.sleep(max(0.0, seconds - (time.perf_counter() - began)))
    return found


def shards(texts: int, count: int) -> Iterator[list[str]]:
    """Passages of the sample over and over, each with its number, so that none equals another."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    passages = [json.loads(line)["passage"] for line in lines]
    numbered = (f"{n} {passage}" for n, passage in enumerate(itertools.cycle(passages)))
    for _ in range(count):
        yield list(itertools.islice(numbered, texts))


def now() -> np.ndarray:
    """On the clock, and what this process has computed, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def plain(given: list[list[str]], seconds: float) -> np.ndarray:
    """Seconds of a shard, and of them what this process computes."""
    began = now()
    for texts in given:
        engine(texts, seconds)
    return (now() - began) / len(given)


def kept(given: list[list[str]], seconds: float, workers: int) -> np.ndarray:
    """The same, as a stage does it: named by the hash of its texts, its result a file of that name.

    Counted from the moment when each worker has brought its first.
    """
    ends = [now()] if workers == 1 else []

    def tasks() -> Iterator[Task]:
        for texts in given:
            key = hashing.digests(["\n".join(texts)]).tobytes().hex()
            yield Task(key, "de", (texts, seconds), len(texts))

    with tempfile.TemporaryDirectory() as folder:

        def save(task: Task, found: list[str]) -> None:
            tables.write_columns(Path(folder) / task.key[:2] / f"{task.key}.parquet", {"text": found})
            ends.append(now())

        failures = executors.run(engine, tasks(), Executor(workers=workers), save=save, on_gpu=False)
    assert not failures
    return (ends[-1] - ends[workers - 1]) / (len(ends) - workers) * np.array([workers, 1])


def measured(given: list[list[str]], seconds: float, workers: int) -> dict[str, np.ndarray]:
    """Seconds of a shard and what this process computes of them, by way."""
    ways: dict[str, Callable[[], np.ndarray]] = {
        "plain loop": lambda: plain(given, seconds),
        "run, in this process": lambda: kept(given, seconds, 1),
        f"run, {workers} workers": lambda: kept(given, seconds, workers),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS)]
    return {name: np.median([each[name] for each in rounds], axis=0) for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 0.1], help="of a shard's work")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--texts", type=int, default=4096, help="of a shard")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    given = list(shards(asked.texts, asked.shards))
    held = sum(len(text.encode()) for texts in given for text in texts) / asked.shards
    out = sys.stdout
    out.write(f"{asked.shards} shards of {asked.texts:,} texts, {held / 2**20:.1f} MiB each\n")
    out.write(f"{'':24}{'work, s':>10}{'a shard, s':>12}{'overhead':>11}{'computed, ms':>14}\n")
    for seconds in asked.seconds:
        for name, (taken, computed) in measured(given, seconds, asked.workers).items():
            out.write(
                f"{name:24}{seconds:10.2f}{taken:12.4f}{taken / seconds - 1:11.2%}{computed * 1e3:14.1f}\n"
            )
            out.flush()


if __name__ == "__main__":
    main()
