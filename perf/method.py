"""What training is worth on XQuAD-R: models trained on parallel pairs, none of which the benchmark holds.

    python perf/method.py NAME [--sampler S] [--alpha A] [--languages-per-id K] [--set KEY=VALUE ...]
    hexapla compare build/method/hybrid build/method/monolingual ...

Trains the default encoder on the pairs of a corpus of help pages and the shipped sample (as two sources,
`help` and `sample`), with the settings of params.yaml but for those that are set here, and judges it on
XQuAD-R, as it is and centered. Model, summary and results lie in build/method/NAME; a run that was killed
goes on when the same command is given again.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hexapla.io import cache, tables
from hexapla.schema import Pair

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
SAMPLE = ROOT / "data" / "sample" / "pairs"


def pairs(corpus: Path, *, sample: bool) -> Iterator[Pair]:
    """Every pair in every language that it has."""
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            for lang, text in item["texts"].items():
                name = f"help:{item['id']}"
                yield Pair(name, "help", lang, text["question"], text["passage"], "", name, "original")
    for file in sorted(SAMPLE.glob("*.jsonl")) if sample else []:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            name = f"sample:{row['id']}"
            yield Pair(
                name, "sample", file.stem, row["question"], row["passage"], row["answer"], name, "original"
            )


def settings(changes: list[str]) -> dict[str, Any]:
    """params.yaml with KEY=VALUE changes, KEY dotted, VALUE in YAML."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        *path, last = key.split(".")
        section = tree
        for name in path:
            section = section[name]
        section[last] = yaml.safe_load(value)
    return tree


def run(*command: str) -> float:
    """Seconds that it took; ends this program when it fails."""
    began = time.perf_counter()
    status = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"}, check=False
    ).returncode
    if status:
        sys.exit(status)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("name")
    parser.add_argument("--sampler", default="hybrid")
    parser.add_argument("--alpha", default="0.5")
    parser.add_argument("--mixing", default="batch")
    parser.add_argument("--languages-per-id", default="4")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-sample", action="store_true", help="the help pages alone")
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpora" / "help-parallel.jsonl.gz")
    parser.add_argument("--benchmark", type=Path, default=SHARED / "benchmarks" / "xquad-r")
    given = parser.parse_args()
    out = ROOT / "build" / "method" / given.name
    table = out.parent / ("help.parquet" if given.no_sample else "help-and-sample.parquet")
    if not table.is_file():
        tables.write_pairs(table, pairs(given.corpus, sample=not given.no_sample))
    params = out / "params.yaml"
    changes = [
        f"sampler={given.sampler}", f"hybrid.alpha={given.alpha}", f"hybrid.mixing={given.mixing}",
        f"parallel.languages={given.languages_per_id}", *given.set,
    ]  # fmt: skip
    cache.write_text(params, yaml.safe_dump(settings(changes), sort_keys=False))
    seconds = run(
        "hexapla", "stage", "train", "--params", str(params), "--pairs", str(table),
        "--model", str(out / given.name), "--curve", str(out / "curve.csv"),
        "--summary", str(out / "training.json"), "--checkpoints", str(out / "checkpoints"),
    )  # fmt: skip
    sys.stdout.write(f"{given.name}: trained in {seconds / 60:.1f} minutes, loading and saving included\n")
    sys.stdout.flush()
    run(
        "hexapla", "evaluate", str(out / given.name), "--benchmark", str(given.benchmark),
        "--centering", "none", "language", "--out", str(out),
    )  # fmt: skip


if __name__ == "__main__":
    main()
