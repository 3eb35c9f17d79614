"""How fast pairs are collected, from a JSONL file to the table, and in how much memory.

    python perf/collecting.py [--rows N ...] [--folder FOLDER] [--threshold T] [--keep]

Rows are generated: passages of about 60 words and questions of about 10, from a vocabulary of 50,000 words
whose frequencies are Zipf's; 2 % are repeated as they are, 2 % with a word changed. Each number of rows is
collected in a process of its own, with a cache of its own; the peak is that of its resident memory, which
counts pages of mapped files, and the second figure what it holds without these. "again" is the same once
more, when all parts are in the cache. 10 million rows want 20 GB of disk.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from hexapla.config import Collect, FilesSource
from hexapla.pipeline.collect import collect

WORDS = 50_000
PASSAGE, QUESTION = 60, 10
AT_ONCE = 10_000


def vocabulary(rng: np.random.Generator) -> np.ndarray:
    """Words of 2 to 12 letters, as frequent ones are short."""
    letters = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))
    shares = 1 / np.arange(3, len(letters) + 3)
    lengths = np.clip(rng.poisson(np.linspace(3, 8, WORDS)), 2, 12)
    drawn = rng.choice(letters, size=int(lengths.sum()), p=shares / shares.sum())
    return np.array(["".join(word) for word in np.split(drawn, np.cumsum(lengths)[:-1])], dtype=object)


def generated(count: int) -> Iterator[dict[str, str]]:
    """Rows, of which every 50th is the one before it, and every 50th nearly so."""
    rng = np.random.default_rng(0)
    words = vocabulary(rng)
    shares = 1 / np.arange(1, WORDS + 1)
    edges = np.cumsum(shares / shares.sum())
    for start in range(0, count, AT_ONCE):
        drawn = words[np.searchsorted(edges, rng.random((AT_ONCE, PASSAGE + QUESTION)))]
        for number in range(min(AT_ONCE, count - start)):
            if number % 50 == 49:
                drawn[number] = drawn[number - 1]
            elif number % 50 == 24:
                drawn[number] = drawn[number - 1]
                drawn[number, rng.integers(PASSAGE)] = "changed"
            passage, question = " ".join(drawn[number, :PASSAGE]), " ".join(drawn[number, PASSAGE:])
            row = {"question": f"{question.capitalize()}?", "passage": f"{passage.capitalize()}."}
            yield {"id": f"row-{start + number}", **row}


class Peak(threading.Thread):
    """The most memory that this process holds, without the files that are mapped, looked at now and then."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.start()

    def run(self) -> None:
        process = psutil.Process()
        while True:
            held = process.memory_info()
            self.bytes = max(self.bytes, held.rss - held.shared)
            time.sleep(0.05)


def measured(file: Path, threshold: float) -> dict[str, float]:
    """Seconds and MiB of the stage, in this process."""
    sources = (FilesSource(path=str(file)),)
    peak, began = Peak(), time.perf_counter()
    collect(
        Collect(sources=sources, near_duplicates=threshold),
        (),
        sample=Path("data/sample"),
        out=file.parent / "pairs",
        benchmarks_out=file.parent / "benchmarks",
        summary=file.parent / "summary.json",
    )
    seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    card = json.loads((file.parent / "summary.json").read_text())
    counts = {name: card[name] for name in ("pairs", "duplicates", "near_duplicates")}
    return {"seconds": seconds, "peak": most, "private": peak.bytes / 2**20, **counts}


def rounds(count: int, given: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    file = folder / "rows.jsonl"
    try:
        with file.open("w") as lines:
            lines.writelines(f"{json.dumps(row)}\n" for row in generated(count))
        for name in ("", "again"):
            command = [sys.executable, *sys.argv, "--file", str(file)]
            environment = {**os.environ, "HEXAPLA_CACHE": str(folder / "cache")}
            done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
            got = json.loads(done.stdout)
            disk = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) / 2**20
            disk -= file.stat().st_size / 2**20
            found = f"{got['duplicates']:,} | {got['near_duplicates']:,}"
            speed = f"{got['seconds']:,.0f} | {count / got['seconds']:,.0f}"
            memory = f"{got['peak']:,.0f} | {got['private']:,.0f} | {disk:,.0f}"
            sys.stdout.write(f"| {count:,} {name} | {speed} | {memory} | {found} |\n")
            sys.stdout.flush()
    finally:
        if not given.keep:
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the files are written; default: the system's")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file:
        sys.stdout.write(json.dumps(measured(given.file, given.threshold)))
        return
    names = "rows | seconds | rows/s | peak MiB | without mapped files | disk MiB | exact | near"
    sys.stdout.write(f"| {names} |\n|{'---|' * 8}\n")
    for count in given.rows:
        rounds(count, given)


if __name__ == "__main__":
    main()
