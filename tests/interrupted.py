"""An engine that shouts, and a program that runs the stage `translate` and kills it, many times.

The program forks, so that a run begins within milliseconds and not with seconds of imports.
"""

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

from hexapla import tracking
from hexapla.config import Executor, TranslateFromMemory
from hexapla.data.translate import engines, quality
from hexapla.io import tables
from hexapla.pipeline import translate as stage
from hexapla.schema import ORIGINAL, Pair


class Shouting:
    """Translates to capitals; what it `fails` at, and what is `unknown` to it, can be set."""

    name = "shouting"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.calls: list[tuple[int, str]] = []
        self.fails: set[str] = set()
        self.unknown: set[str] = set()

    def identity(self, lang: str) -> str:
        return f"shouting {lang}"

    def translate(self, texts: list[str], lang: str) -> list[tuple[str, ...]]:
        self.asked += texts
        self.calls.append((len(texts), lang))
        if not self.fails.isdisjoint(texts):
            raise ValueError("it is too hard\nfor me")
        return [() if text in self.unknown else (text.upper(),) for text in texts]


def pairs(count: int, start: int = 0) -> list[Pair]:
    """English pairs; three neighbours share a passage."""
    return [
        Pair(
            f"x/{n}", "x", "en", f"what is thing {n}?", f"thing {n // 3} is a kind of stone {n // 3 + 100}.",
            f"stone {n // 3 + 100}", f"p{n // 3}", ORIGINAL,
        )
        for n in range(start, start + count)
    ]  # fmt: skip


class Slow(Shouting):
    """Notes each shard in a file before it works on it, for some milliseconds."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def translate(self, texts: list[str], lang: str) -> list[tuple[str, ...]]:
        note(self.log, [lang, *texts])
        return [(text.upper() if lang == "de" else text.title(),) for text in texts]


def note(log: Path, texts: Sequence[str]) -> None:
    with log.open("a") as file:
        file.write(f"{os.getpid()} {hashlib.sha256(chr(0).join(texts).encode()).hexdigest()}\n")
    time.sleep(0.01)


@contextmanager
def counting_letters(log: Path) -> Iterator[None]:
    """Replace the encoder, which takes seconds to import, by the frequencies of letters."""

    def encode(passages: Sequence[str], _: object) -> np.ndarray:
        note(log, passages)
        counts = [[passage.count(chr(point)) + 1.0 for point in range(97, 123)] for passage in passages]
        return np.array(counts) / np.linalg.norm(counts, axis=1, keepdims=True)

    with (
        mock.patch.object(quality, "load_encoder"),
        mock.patch.object(
            quality, "choose_settings", lambda *cosine: quality.CosineSettings(*cosine, "fp32")
        ),
        mock.patch.object(quality, "encoder_identity", return_value="letters"),
        mock.patch.object(quality, "encode_passages", encode),
    ):
        yield


def run(folder: Path) -> None:
    made = Slow(folder / "log")
    settings = TranslateFromMemory(languages=("de", "es"), cosine="letters", shard_texts=3)
    with (
        mock.patch.object(engines, "build_engine", return_value=made),
        mock.patch.object(engines, "check_engines"),
        mock.patch.object(quality, "PAIRS", 5),
        counting_letters(folder / "log"),
        mock.patch.object(tracking, "run", return_value=nullcontext(mock.MagicMock())),
    ):
        stage.translate(
            settings, Executor(workers=1), pairs=folder / "raw", sample=folder, out=folder / "out",
            summary=folder / "summary.json",
        )  # fmt: skip


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait(folder: Path, kill: int, chance: random.Random) -> None:
    """Some shards long, or for the later runs a time, so that all that a run does is hit."""
    until = time.monotonic() + chance.uniform(0.05, 0.5)
    more = lines(folder / "log") + chance.randint(1, 4)
    while kill % 4 and lines(folder / "log") < more and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.01) if kill % 4 else max(0, until - time.monotonic()))


def main(folder: Path, kills: int) -> None:
    for number in range(4):
        tables.write_pairs(folder / "raw" / f"{number:02d}-x-00000.parquet", pairs(20, number * 19))
    for lang in ("en", "de", "es"):
        quality._load_identifier(lang)  # loaded before the forks
    chance = random.Random(13)
    for kill in range(kills):
        if not (child := os.fork()):
            run(folder)
            os._exit(0)
        wait(folder, kill, chance)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    run(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
