"""Ranks and metrics of a benchmark of XQuAD-R's size, ours next to others' in one run.

    python perf/ranking.py
    python perf/ranking.py --vectors FILE.npz --benchmark data/benchmarks/xquad-r
    pip install --target FOLDER ranx && python perf/ranking.py --ranx FOLDER

Each contestant runs three times in a process of its own; the fastest counts, so what others compile
at first use does not. The others do less than we do: one pool of all languages, no pools by
language, no bias, no intervals. pytrec_eval and ranx are asked a sample of the questions only, and
their seconds for all are extrapolated and marked so. The file of vectors holds the arrays
`queries` and `passages`, in the benchmark's order; without one, vectors are drawn at random such
that scores look like an untuned multilingual encoder's.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hexapla.benchmarks import lareqa
from hexapla.evaluation import metrics, ranking, statistics
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
IDS, SENTENCES, DIM = 1190, 1183, 384
SAMPLE = 200
METRICS = {
    "map": metrics.average_precision,
    "map20": partial(metrics.average_precision_at, k=20),
    "mrr": metrics.reciprocal_rank,
    "r1": partial(metrics.recall_at, k=1),
    "r10": partial(metrics.recall_at, k=10),
    "r100": partial(metrics.recall_at, k=100),
    "ndcg10": partial(metrics.ndcg_at, k=10),
}


class World(NamedTuple):
    benchmark: ParallelBenchmark
    queries: np.ndarray
    passages: np.ndarray


class Figures(NamedTuple):
    """What a contestant found: the same in all, but for scores that differ in the last bit only.

    `map20` is of all questions.
    """

    asked: int
    map20: float | None = None
    map_of_sample: float | None = None


class Timing(NamedTuple):
    figures: Figures
    phases: dict[str, float]
    """Seconds by phase."""
    mebibytes: float
    """Peak resident memory of its process, vectors and imports included."""


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start


def world(vectors: Path | None, folder: Path | None) -> World:
    if vectors is not None and folder is not None:
        held = np.load(vectors)
        return World(lareqa.load(folder), held["queries"], held["passages"])
    rng = np.random.default_rng(0)
    answer = rng.integers(SENTENCES, size=IDS)
    questions: list[BenchmarkQuery] = []
    passages: list[BenchmarkPassage] = []
    for lang in LANGUAGES:
        first = len(passages)
        questions += [BenchmarkQuery(f"q{i}", lang, "", first + int(a)) for i, a in enumerate(answer)]
        passages += [BenchmarkPassage(lang, "", "")] * SENTENCES

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, DIM), dtype=np.float32)

    # What all texts share, what a language's share, what a passage means, and the rest.
    shared, language, meaning = 3 * drawn(1), 0.45 * drawn(len(LANGUAGES), 1), 0.6 * drawn(SENTENCES)
    asked = shared + language + meaning[answer] + 0.85 * drawn(len(LANGUAGES), IDS)
    found = shared + language + meaning + 0.85 * drawn(len(LANGUAGES), SENTENCES)
    sides = [side.reshape(-1, DIM) for side in (asked, found)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return World(ParallelBenchmark(LANGUAGES, questions, passages), *sides)


def sample(world: World) -> np.ndarray:
    """Rows of the questions that the slow ones are asked."""
    rows = np.random.default_rng(1).choice(len(world.queries), SAMPLE, replace=False)
    return np.sort(rows)


def ours(world: World, clock: Clock) -> Figures:
    with clock("ranks in 3 settings"):
        ranks = ranking.rank(world.benchmark, world.queries, world.passages)
    with clock("7 metrics, also by language"):
        values = {name: compute(ranks.in_pool) for name, compute in METRICS.items()}
        for compute in METRICS.values():
            for lang in range(len(ranks.languages)):
                compute(ranks.in_language[:, lang : lang + 1])
    with clock("bias"):
        metrics.rank_distance(ranks.in_pool)
        metrics.worst_rank(ranks.in_pool)
        metrics.recall_of_others(ranks.in_pool, ranks.query_languages, k=10)
        metrics.own_language_share(ranks.top_languages, ranks.query_languages)
        metrics.recall_matrix(ranks.in_language, ranks.query_languages)
        metrics.share_matrix(ranks.top_languages, ranks.query_languages, languages=len(ranks.languages))
    with clock("interval and test of a figure"):
        clusters, cluster = np.unique(ranks.ids, return_inverse=True)
        cell, shape = (
            cluster * len(ranks.languages) + ranks.query_languages,
            (len(clusters), len(ranks.languages)),
        )
        sums = np.bincount(cell, values["map"], minlength=shape[0] * shape[1]).reshape(shape)
        counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        statistics.bootstrap_interval(sums, counts)
        statistics.paired_test(sums, sums[::-1], counts)
    return Figures(len(ranks.ids), float(values["map20"].mean()), float(values["map"][sample(world)].mean()))


def xtreme(world: World, clock: Clock) -> Figures:
    """XTREME-R's way, restated: a question at a time, all scores sorted, mAP@20 and no more."""
    total = 0.0
    relevant = world.benchmark.relevant
    with clock("scores, sorting, mAP@20"):
        for question, vector in zip(world.benchmark.queries, world.queries, strict=True):
            targets = np.array(relevant[question.id])
            order = (vector[None] @ world.passages.T).squeeze().argsort()[::-1][:20]
            hits, score = 0, 0.0
            for place, candidate in enumerate(order):
                if candidate in targets and candidate not in order[:place]:
                    hits += 1
                    score += hits / (place + 1)
            total += score / min(len(targets), 20)
    return Figures(len(world.queries), total / len(world.queries))


def _as_dictionaries(
    world: World, clock: Clock
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Relevant passages and the whole ranking of every question, as TREC's tools want them."""
    names = [f"d{i}" for i in range(len(world.passages))]
    qrels, run = {}, {}
    relevant = world.benchmark.relevant
    with clock("scores to dictionaries"):
        for row in sample(world):
            qrels[f"q{row}"] = {names[target]: 1 for target in relevant[world.benchmark.queries[row].id]}
            scores = (world.passages @ world.queries[row]).tolist()
            run[f"q{row}"] = dict(zip(names, scores, strict=True))
    return qrels, run


def pytrec(world: World, clock: Clock) -> Figures:
    import pytrec_eval

    qrels, run = _as_dictionaries(world, clock)
    with clock("5 metrics"):
        wanted = {"map", "recip_rank", "recall.10,100", "ndcg_cut.10"}
        values = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    return Figures(len(run), None, float(np.mean([value["map"] for value in values.values()])))


def ranx(world: World, clock: Clock) -> Figures:
    from ranx import Qrels, Run, evaluate

    wanted = ["map", "mrr", "recall@10", "recall@100", "ndcg@10"]
    plain, run = _as_dictionaries(world, clock)
    with clock("5 metrics"):
        values = evaluate(Qrels(plain), Run(run), wanted)
    return Figures(len(run), None, float(values["map"]))


CONTESTANTS: dict[str, Callable[[World, Clock], Figures]] = {
    "hexapla": ours,
    "XTREME-R's way": xtreme,
    "pytrec_eval": pytrec,
    "ranx": ranx,
}


def timed(name: str, vectors: Path | None, folder: Path | None, extra: str | None) -> Timing:
    if extra:
        sys.path.append(extra)
    # Others warn about their own insides.
    warnings.simplefilter("ignore")
    here = world(vectors, folder)
    passes = []
    for _ in range(3):
        clock = Clock()
        figures = CONTESTANTS[name](here, clock)
        passes.append(clock.phases)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Timing(figures, min(passes, key=lambda phases: sum(phases.values())), peak)


def line(*cells: object) -> None:
    sys.stdout.write("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |\n")
    sys.stdout.flush()


def shown(name: str, timing: Timing, all_questions: int, base: float) -> float:
    """Write one contestant's rows; its seconds for all questions."""
    figures = timing.figures
    scale = all_questions / figures.asked
    for phase, seconds in timing.phases.items():
        line(name, phase, figures.asked, f"{seconds:.3f}", *[None] * 5)
    total = sum(timing.phases.values())
    note = "" if scale == 1 else " (extrapolated)"
    rounded = [None if figure is None else f"{figure:.5f}" for figure in figures[1:]]
    ratio = f"{total * scale / (base or total):.1f}"
    line(
        f"**{name}**", "all", figures.asked, f"{total:.3f}", f"{total * scale:.2f}{note}", ratio,
        f"{timing.mebibytes:.0f}", *rounded,
    )  # fmt: skip
    return total * scale


def main() -> None:
    parser = argparse.ArgumentParser(description="speed of ranking, side by side")
    parser.add_argument("--vectors", type=Path, help=".npz with `queries` and `passages`")
    parser.add_argument("--benchmark", type=Path, help="the LAReQA-format folder they belong to")
    parser.add_argument("--ranx", help="a folder that ranx was installed into (pip install --target)")
    given = parser.parse_args()
    if (given.vectors is None) != (given.benchmark is None):
        parser.error("--vectors and --benchmark belong together")
    line("", "phase", "questions", "seconds", "for all", "times ours", "peak MiB", "mAP@20", "mAP of sample")
    line(":--", ":--", *["--:"] * 7)
    everything, base = 0, 0.0
    for name in CONTESTANTS:
        if name == "ranx" and not given.ranx and importlib.util.find_spec("ranx") is None:
            line("ranx", "not installed, left out", *[None] * 7)
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            timing = process.submit(timed, name, given.vectors, given.benchmark, given.ranx).result()
        everything = everything or timing.figures.asked
        seconds = shown(name, timing, everything, base)
        base = base or seconds


if __name__ == "__main__":
    main()
