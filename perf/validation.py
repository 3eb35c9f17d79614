"""Rows per second and peak memory of validation by the size of the table.

    python perf/validation.py [--rows N ...] [--languages N] [--folder DIR]

Generated rows: sentences of the sample, put together anew to passages of 20 to 800 characters in up to ten
languages, with the columns that translation adds and a few faults of each kind. Every size is validated in a
process of its own with an empty cache; memory is that of all its processes together (proportional set size,
looked at twice a second). 10 million rows take 5 GB of disk.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from hexapla.config import Executor, FolderBenchmark, Validate
from hexapla.io import cache, tables
from hexapla.pipeline.validate import validate
from hexapla.schema import QUALITY_COLUMNS

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
LANGUAGES = ("en", "de", "es", "zh", "ru", "ar", "hi", "th", "tr", "vi")
FAULTY = 0.02
"""Share of the rows with a fault, of five kinds."""


def table(folder: Path, rows: int, languages: int) -> None:
    """The same ids in each language, in parts as `translate` names them."""
    langs = LANGUAGES[:languages]
    ids = -(-rows // len(langs))
    for number, lang in enumerate(langs):
        tables.write_parts(folder, f"{number:02d}-{lang}-00-perf", _rows(lang, ids), QUALITY_COLUMNS)


def _rows(lang: str, count: int) -> Iterator[tuple[Any, ...]]:
    lines = (SAMPLE / "pairs" / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines]
    tree = cache.read_json(SAMPLE / "benchmark" / f"{lang}.json")
    leak = tree["data"][0]["paragraphs"][0]["context"]
    rng = random.Random(lang)  # noqa: S311 - nothing secret
    english = lang == "en"
    for i in range(count):
        one, two = rng.choice(known), rng.choice(known)
        question = f"{one['question']} {i}"
        passage = " ".join([one["passage"], two["passage"], str(i)][rng.randrange(2) :])
        quality: list[Any] = [1.0, None, lang, 0.1, 1.0, True, 0.85]
        fault = rng.random() / FAULTY
        if fault < 0.2:
            passage = f"{passage} {leak}"
        elif fault < 0.4:
            quality[2] = "nl"
        elif fault < 0.6:
            question = "?"
        elif fault < 0.8:
            question, passage = known[0]["question"], known[0]["passage"]
        elif fault < 1 and not english:
            quality[6] = 0.2
        if english:
            quality = [None, None, quality[2], None, None, None, None]
        answer = two["answer"] if two["answer"] in passage else ""
        yield f"perf/{i}", "perf", lang, question, passage, answer, f"p{i}", "perf", (), *quality


def one(folder: Path) -> None:
    """The stage, in this process and those that it starts."""
    names = ("quarantine.parquet", "summary.json", "docs", "contamination.csv")
    quarantine, summary, docs, contamination = (folder / name for name in names)
    validate(
        Validate(),
        (FolderBenchmark(name="sample", path="benchmark"),),
        Executor(),
        pairs=folder / "pairs",
        data=folder / "benchmarks",
        out=folder / "out",
        quarantine=quarantine,
        summary=summary,
        docs=docs,
        contamination=contamination,
    )


def measured(folder: Path) -> tuple[float, float]:
    """Seconds, and GiB at the peak."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", str(folder)]
    environment = {**os.environ, "HEXAPLA_CACHE": str(folder / "cache")}
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command, env=environment) as child:
        while child.poll() is None:
            peak = max(peak, _held(psutil.Process(child.pid)))
            time.sleep(0.5)
    if child.returncode:
        raise SystemExit(child.returncode)
    return time.monotonic() - began, peak / 2**30


def _held(parent: psutil.Process) -> int:
    held = 0
    try:
        for process in (parent, *parent.children(recursive=True)):
            held += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass  # it has ended meanwhile
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the tables are made; a temporary one by default")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one)
        return
    sys.stdout.write("| rows | seconds | rows/s | peak GiB | kept |\n|---:|---:|---:|---:|---:|\n")
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folder = Path(name)
            table(folder / "pairs", rows, given.languages)
            (folder / "benchmarks").mkdir()
            (folder / "benchmarks" / "sample").symlink_to((SAMPLE / "benchmark").resolve())
            seconds, peak = measured(folder)
            reported = cache.read_json(folder / "summary.json")
        figures = (
            f"{seconds:.0f} | {reported['rows'] / seconds:,.0f} | {peak:.2f} | {reported['kept_share']:.1%}"
        )
        sys.stdout.write(f"| {reported['rows']:,} | {figures} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
