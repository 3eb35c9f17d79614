"""Exact search: peak memory and speed of our streamed search next to one FAISS index that holds everything.

    python perf/search.py [small] [large]      # passages; 200,000 and 2,000,000 when left out

Random unit vectors of dimension 384, 500 queries, the first 100 hits, shards of 50,000 vectors that
are made one after another. Every run is a process of its own, so its peak is its own; making the
vectors is not timed. The few hits on which the two differ change places: their scores are so close
that they hang on the last bit of FAISS's float32 sums.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

DIM, QUERIES, K, SHARD = 384, 500, 100, 50_000


class Run(NamedTuple):
    seconds: float
    cpu: float
    """Seconds of all threads: steadier than the clock where others compute too."""
    base: int
    """KiB, before the first vector; `peak`: at the end."""
    peak: int
    positions: np.ndarray


def vectors(seed: int, count: int) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


class Shards:
    """The corpus, a shard at a time, and the seconds (clock, CPU) that making it took."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seconds = np.zeros(2)

    def __iter__(self) -> Iterator[np.ndarray]:
        for first in range(0, self.size, SHARD):
            start = clocks()
            shard = vectors(first + 1, min(SHARD, self.size - first))
            self.seconds += clocks() - start
            yield shard
            del shard


def streamed(queries: np.ndarray, shards: Shards) -> np.ndarray:
    from hexapla.evaluation import ranking

    return ranking.top_k(queries, shards, K).positions


def whole(queries: np.ndarray, shards: Shards) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    # Told the size once, its memory need not be copied when it grows.
    index.codes.resize(shards.size * DIM * 4)
    index.codes.resize(0)
    for shard in shards:
        index.add(shard)
    return index.search(queries, K)[1]


SEARCHES = {"hexapla.evaluation.ranking.top_k, streamed": streamed, "faiss.IndexFlatIP, all in memory": whole}


def measured(name: str, size: int) -> Run:
    import faiss  # noqa: F401 - part of the base

    from hexapla.evaluation import ranking  # noqa: F401

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queries, shards = vectors(0, QUERIES), Shards(size)
    start = clocks()
    positions = SEARCHES[name](queries, shards)
    seconds, cpu = (clocks() - start - shards.seconds).tolist()
    return Run(seconds, cpu, base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, positions)


def main() -> None:
    sizes = [int(size.replace(",", "")) for size in sys.argv[1:]] or [200_000, 2_000_000]
    spawn = multiprocessing.get_context("spawn")
    columns = (
        "search",
        "passages",
        "vectors, GB",
        "peak, GB",
        "before, GB",
        "seconds",
        "CPU s",
        "passages/s",
    )
    lines = [f"| {' | '.join(columns)} |", "|:--|" + "--:|" * (len(columns) - 1)]
    for size in sizes:
        found = []
        for name in SEARCHES:
            with spawn.Pool(1) as alone:
                run = alone.apply(measured, (name, size))
            found.append(run.positions)
            lines.append(
                f"| {name} | {size:,} | {size * DIM * 4 / 1e9:.2f} | {run.peak * 1024 / 1e9:.2f} "
                f"| {run.base * 1024 / 1e9:.2f} | {run.seconds:.1f} | {run.cpu:.1f} "
                f"| {size / run.seconds:,.0f} |"
            )
        lines.append(
            f"| the two agree on | {size:,} | {(found[0] == found[1]).mean():.4%} of the hits ||||||"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
