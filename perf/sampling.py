"""How fast batches are planned, and how much memory that takes, next to sentence-transformers' NO_DUPLICATES.

    python perf/sampling.py [--ids N] [--pairs N] [--batches N] [--ragged] [--per-passage N] [--cpu-time]

First it measures our index and our samplers in one thread, on generated codes of N ids in 9 languages. Then
it plans one epoch over N pairs in one language with ours and with both of theirs: the one that compares
strings, and the one that compares hashes. It counts batches from the start, with their hashing and our
planning, and without what comes before the first batch. The ways take turns within a round, so that what
slows the machine slows all of them; figures are medians over the rounds. On a machine that others use too,
`--cpu-time` counts the processor's seconds instead of the clock's.
"""

import argparse
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import datasets
import numpy as np
import psutil
import torch
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from hexapla.training import samplers
from hexapla.training.samplers import BatchPlan, CodedColumn

BATCH = 1024
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "ru", "th", "zh")
SAMPLERS = {
    "monolingual": {"sampler": "monolingual"},
    "crosslingual": {"sampler": "crosslingual"},
    "hybrid": {"sampler": "hybrid"},
    "hybrid, by example": {"sampler": "hybrid", "mixing": "example"},
    "parallel, 4 languages": {"sampler": "parallel", "languages_per_id": 4},
    "hybrid, exponent 0.5": {"sampler": "hybrid", "exponent": 0.5},
}
ROUNDS = 3
Clock = Callable[[], float]


def columns(ids: int, per_passage: int, *, ragged: bool) -> list[CodedColumn]:
    """Ids, languages, passages and sources of a table; the first third of the ids is another source."""
    item = np.repeat(np.arange(ids, dtype=np.int32), len(LANGUAGES))
    lang = np.tile(np.arange(len(LANGUAGES), dtype=np.int32), ids)
    if ragged:
        # The one source in English only, of the other each translation with probability 0.6.
        there = np.random.default_rng(0).random(len(item), dtype=np.float32) < 0.6
        there &= item >= ids // 3
        there |= lang == LANGUAGES.index("en")
        item, lang = item[there], lang[there]
    passages = -(-ids // per_passage)
    return [
        # Names are looked up in messages only, and these are as many.
        CodedColumn(item, range(ids)),  # type: ignore[arg-type]
        CodedColumn(lang, LANGUAGES),
        CodedColumn(item % np.int32(passages), range(passages)),  # type: ignore[arg-type]
        CodedColumn((item < ids // 3).astype(np.int32), ("large", "small")),
    ]


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """A list that holds, afterwards, by how many GiB the process's memory grew at most."""
    process, done, grown = psutil.Process(), threading.Event(), [0.0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.002):
            grown[0] = max(grown[0], (process.memory_info().rss - before) / 2**30)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        done.set()
        thread.join()


def at_scale(ids: int, per_passage: int, batches: int, clock: Clock, *, ragged: bool) -> None:
    given = columns(ids, per_passage, ragged=ragged)
    with peak_memory() as grown:
        began = clock()
        index = samplers.build_index(*given)
        taken = clock() - began
    out = sys.stdout
    out.write(
        f"{ids:,} ids, {len(given[0].values):,} rows: index in {taken:.1f} s, {grown[0]:.2f} GiB at most\n"
    )
    out.write(f"{'':24}{'first batch, ms':>17}{'batches/s':>11}{'any step, ms':>14}\n")
    for name, options in SAMPLERS.items():
        began = clock()
        plan = BatchPlan(index, batch_size=BATCH, seed=1, **options)
        plan.at(0)
        first = clock() - began
        speeds = [batches / timed(plan, range(batches), clock) for _ in range(ROUNDS)]
        jumps = np.random.default_rng(1).integers(10**6, size=50).tolist()
        jump = timed(plan, jumps, clock) / len(jumps)
        speed = statistics.median(speeds)
        out.write(f"{name:24}{first * 1e3:17.0f}{speed:11,.0f}{jump * 1e3:14.1f}\n")
        out.flush()


def timed(plan: BatchPlan, steps: Iterable[int], clock: Clock) -> float:
    began = clock()
    for step in steps:
        plan.at(step)
    return clock() - began


def compare_with_peers(pairs: int, per_passage: int, clock: Clock) -> None:
    """Batches a second of one epoch over pairs, by all ways in turn."""
    passages = -(-pairs // per_passage)
    texts = {
        "anchor": [f"what is said of number {pair}?" for pair in range(pairs)],
        "positive": [f"of number {pair % passages} it is said that it is so" for pair in range(pairs)],
    }
    dataset = datasets.Dataset.from_dict(texts)
    item, one = np.arange(pairs, dtype=np.int32), np.zeros(pairs, np.int32)
    index = samplers.build_index(
        CodedColumn(item, texts["anchor"]),
        CodedColumn(one, ("en",)),
        CodedColumn(item % np.int32(passages), range(passages)),  # type: ignore[arg-type]
        CodedColumn(one, ("one",)),
    )
    speeds: dict[str, list[tuple[float, float]]] = {}
    for number in range(ROUNDS):
        for name, start in ways(dataset, index, number).items():
            began = clock()
            batches = start()
            next(batches)
            first = clock()
            count = sum(1 for _ in batches)
            ended = clock()
            speeds.setdefault(name, []).append((count / (ended - first), (count + 1) / (ended - began)))
    out = sys.stdout
    out.write(f"\n{pairs:,} pairs, {passages:,} passages, an epoch of batches of {BATCH}; batches/s\n")
    out.write(f"{'':24}{'after the first':>17}{'ours, times':>13}{'from the start':>17}{'ours, times':>13}\n")
    for name, each in speeds.items():
        out.write(f"{name:24}")
        for theirs, ours in zip(zip(*each, strict=True), zip(*speeds["ours"], strict=True), strict=True):
            ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
            out.write(f"{statistics.median(theirs):17,.1f}{ratio:13,.1f}")
        out.write("\n")


def ways(
    dataset: datasets.Dataset, index: samplers.PairIndex, seed: int
) -> dict[str, Callable[[], Iterator[object]]]:
    """Each starts an epoch anew."""

    def theirs(*, hashed: bool) -> Iterator[Sequence[int]]:
        more = {"precompute_hashes": True, "precompute_num_proc": 1} if hashed else {}
        generator = torch.Generator().manual_seed(seed)
        return iter(NoDuplicatesBatchSampler(dataset, BATCH, True, generator=generator, seed=seed, **more))

    def ours() -> Iterator[samplers.Batch]:
        plan = BatchPlan(index, sampler="monolingual", batch_size=BATCH, seed=seed)
        return (plan.at(step) for step in range(len(plan)))

    return {
        "NO_DUPLICATES": lambda: theirs(hashed=False),
        "NO_DUPLICATES_HASHED": lambda: theirs(hashed=True),
        "ours": ours,
    }


def computed() -> float:
    """Seconds that the process and its children (theirs hash in one) have computed."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--pairs", type=int, default=200_000, help="next to sentence-transformers")
    parser.add_argument("--batches", type=int, default=1000, help="a sampler and round, at scale")
    parser.add_argument("--per-passage", type=int, default=1, help="ids that share a passage")
    parser.add_argument("--ragged", action="store_true", help="missing translations, and an English source")
    parser.add_argument("--cpu-time", action="store_true")
    given = parser.parse_args()
    if given.pairs < 3 * BATCH:
        parser.error(f"--pairs: at least {3 * BATCH:,}, so that an epoch has three batches")
    clock = computed if given.cpu_time else time.perf_counter
    datasets.disable_progress_bars()
    at_scale(given.ids, given.per_passage, given.batches, clock, ragged=given.ragged)
    compare_with_peers(given.pairs, given.per_passage, clock)


if __name__ == "__main__":
    main()
