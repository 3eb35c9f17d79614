"""Did a refactoring change any figure? Run this before and after it; equal lines mean that it did not.

    python perf/characterize.py [--out FILE]

Clones the last commit, runs its pipeline on a small setting (fp32, the shipped sample and its benchmark, 6
steps, the candidate and two models to compare with), and prints the SHA-256 of every model's weights and scores.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETTING = [
    "train.steps=6",
    "train.batch_size=16",
    "train.precision=fp32",
    "evaluate.precision=fp32",
    "comparison.recipes=[crosslingual]",
    "benchmarks=[{name: sample, path: data/sample/benchmark, languages: [de, en, th, zh]}]",
]
HASHED = ("models/*/*.safetensors", "reports/results/*/scores.json")


def run(*command: str, folder: Path, **more: str) -> None:
    environment = (
        os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | more
    )
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)


def hashes(folder: Path) -> list[str]:
    """One line a file, with a model's role (candidate, untuned, crosslingual) in place of its whole name."""
    lines = []
    for file in (file for pattern in HASHED for file in folder.glob(pattern)):
        name = re.sub(r"e5-small-([a-z]+)(-\d+)?", r"\1", str(file.relative_to(folder)))
        lines.append((name, hashlib.sha256(file.read_bytes()).hexdigest()[:16]))
    return [f"{digest}  {name}" for name, digest in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the lines here, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        run("git", "clone", "--quiet", str(ROOT), str(clone), folder=ROOT)
        changes = [part for change in SETTING for part in ("-S", change)]
        run("dvc", "exp", "run", "--force", *changes, folder=clone, HEXAPLA_CACHE=str(Path(name) / "cache"))
        text = "\n".join(hashes(clone)) + "\n"
    print(text, end="")
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
