"""Training next to sentence-transformers' trainer: pairs a second, at an equal loss.

    python perf/training.py [--corpus FILE] [--batch N] [--steps N] [--windows N] [--precision P] [--cached]

Same checkpoint, pairs in the same order, prompts, lengths, threads, optimiser (AdamW, linear decay,
clipping), InfoNCE, and frozen word embeddings. In each window both ways make the same steps, one way after
the other, each going on from its own weights; a window's first step warms up and is not counted. Ratios are
of the same window, medians over the windows. `--cached` sets our step next to the cached loss (GradCache)
for batches whose activations do not fit. `--curve` trains both without dropout and compares every loss.
"""

import argparse
import gzip
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from accelerate.state import AcceleratorState
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses
from torch.utils.data import BatchSampler, SequentialSampler

from hexapla.modeling import adapters
from hexapla.modeling import encoder as encoders
from hexapla.training import samplers
from hexapla.training import trainer as training
from hexapla.training.checkpoints import Checkpoints
from hexapla.training.collate import Lengths
from hexapla.training.gradcache import MemoryLimits, Objective

ROOT = Path(__file__).parent.parent
HELP = ROOT.parent / "shared" / "corpora" / "help-parallel.jsonl.gz"
SAMPLE = ROOT / "data" / "sample" / "pairs"
TEMPERATURE, RATE, DECAY, CLIP = 0.02, 3e-5, 0.01, 1.0


class Pairs(NamedTuple):
    """Questions and passages; a `Table` and, in their order, a plan of batches."""

    questions: list[str]
    passages: list[str]
    batch: int
    seed: int = 0

    @property
    def index(self) -> samplers.PairIndex:
        rows = np.arange(len(self.questions), dtype=np.int32)
        return samplers.PairIndex(("all",), rows[:, None], rows, np.zeros(len(rows), np.int16), ("all",))

    def __len__(self) -> int:
        return len(self.questions) // self.batch

    def at(self, step: int) -> samplers.Batch:
        items = np.arange(step * self.batch, (step + 1) * self.batch)
        zeros = np.zeros(self.batch, np.int64)
        return samplers.Batch(samplers.CROSSLINGUAL, items, zeros, zeros)

    def texts(self, column: str, rows: np.ndarray) -> list[str]:
        held = self.questions if column == "question" else self.passages
        return [held[row] for row in rows]

    def negatives(self, rows: np.ndarray) -> list[list[str]]:
        return [[] for _ in rows]


def pairs(corpus: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """Pairs whose question and passage are in languages drawn for each, every passage once."""
    rng = np.random.default_rng(seed)
    if corpus.is_dir():
        columns = [
            [json.loads(line) for line in file.open(encoding="utf-8")] for file in sorted(corpus.glob("*"))
        ]
        items = [list(row) for row in zip(*columns, strict=True)]
    else:
        with gzip.open(corpus, "rt", encoding="utf-8") as lines:
            items = [list(json.loads(line)["texts"].values()) for line in lines]
    items = [item for item in items if len(item) > 1]
    order = np.concatenate([rng.permutation(len(items)) for _ in range(count // len(items) + 1)])[:count]
    drawn = [rng.permutation(len(items[i]))[:2] for i in order]
    return (
        [items[i][first]["question"] for i, (first, _) in zip(order, drawn, strict=True)],
        [items[i][second]["passage"] for i, (_, second) in zip(order, drawn, strict=True)],
    )


class Window(NamedTuple):
    """What one way did in one window: losses of all its steps, seconds of all but the first."""

    losses: list[float]
    seconds: float


class Settings(NamedTuple):
    tokens: int
    steps: int
    precision: str
    memory: MemoryLimits


def ours(encoder: encoders.Encoder, part: Pairs, settings: Settings) -> Window:
    ends: list[float] = []
    curve = training.train(
        encoder,
        part,
        part,
        training.StepSettings(
            Lengths(settings.tokens, settings.tokens),
            training.Schedule(RATE, 0, settings.steps),
            Objective(TEMPERATURE, two_sided=False),
            settings.memory,
            DECAY,
            CLIP,
            settings.precision,
        ),
        checkpoints=Checkpoints(None, settings={}, every=1),
        on_step=lambda _: ends.append(time.perf_counter()),
    )
    return Window([step.loss for step in curve], ends[-1] - ends[0])


class _Clock(transformers.TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def theirs(
    encoder: encoders.Encoder,
    part: Pairs,
    settings: Settings,
    loss: Callable[[Any], torch.nn.Module],
) -> Window:
    encoder.model.max_seq_length = settings.tokens
    clock = _Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SentenceTransformerTrainer(
            model=encoder.model,
            args=SentenceTransformerTrainingArguments(
                output_dir=scratch,
                max_steps=settings.steps,
                per_device_train_batch_size=part.batch,
                learning_rate=RATE,
                warmup_steps=0,
                weight_decay=DECAY,
                max_grad_norm=CLIP,
                bf16=settings.precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                prompts={"question": "query: ", "passage": "passage: "},
                batch_sampler=lambda dataset, batch_size, **_: BatchSampler(
                    SequentialSampler(dataset), batch_size, drop_last=True
                ),
                logging_steps=1,
                disable_tqdm=True,
                report_to="none",
                save_strategy="no",
            ),
            train_dataset=Dataset.from_dict({"question": part.questions, "passage": part.passages}),
            loss=loss(encoder.model),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    losses_ = [float(reported["loss"]) for reported in trainer.state.log_history if "loss" in reported]
    return Window(losses_, clock.ends[-1] - clock.ends[0])


def ways(given: argparse.Namespace) -> dict[str, Callable[[encoders.Encoder, Pairs], Window]]:
    """The peers first."""
    scale = 1 / TEMPERATURE
    tokens = given.forward_tokens or encoders.tokens_per_batch(
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    found: dict[str, Callable[[encoders.Encoder, Pairs], Window]] = {}

    def peer(name: str, loss: Callable[[Any], torch.nn.Module], precision: str) -> None:
        settings = Settings(given.tokens, given.steps, precision, MemoryLimits(0, 0))
        found[f"sentence-transformers, {name}, {precision}"] = lambda e, p: theirs(e, p, settings, loss)

    def own(name: str, precision: str, kept: int) -> None:
        settings = Settings(given.tokens, given.steps, precision, MemoryLimits(tokens, kept))
        found[f"ours, {name}, {precision}"] = lambda e, p: ours(e, p, settings)

    for precision in given.precision:
        if given.cached:
            by_texts = partial(losses.CachedMultipleNegativesRankingLoss, scale=scale, mini_batch_size=32)
            by_tokens = partial(
                losses.CachedMultipleNegativesRankingLoss, scale=scale, mini_batch_num_tokens=tokens
            )
            peer("cached, 32 texts", by_texts, precision)
            peer("cached, tokens", by_tokens, precision)
            own("nothing kept", precision, 0)
            own(f"{given.kept_tokens:,} tokens kept", precision, given.kept_tokens)
        else:
            peer("in-batch", partial(losses.MultipleNegativesRankingLoss, scale=scale), precision)
            own("plain", precision, 1 << 40)
    return found


def run(given: argparse.Namespace) -> None:
    found = ways(given)
    trained = {name: learner(given) for name in found}
    windows: dict[str, list[Window]] = {name: [] for name in found}
    for number in range(given.windows):
        drawn = pairs(given.corpus, given.batch * given.steps, number)
        for name, way in found.items():
            # Accelerate keeps one precision for a program; the trainers here want several.
            AcceleratorState._reset_state(reset_partial_state=True)
            windows[name].append(way(trained[name], Pairs(*drawn, given.batch, number)))
        _progress(number, windows)
    _show(given, windows)


def learner(given: argparse.Namespace) -> encoders.Encoder:
    learner = encoders.load(given.encoder, prompts={"query": "query: ", "passage": "passage: "})
    adapters.freeze(learner, embeddings=True, layers=0)
    if given.curve:
        for module in learner.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
    return learner


def _progress(number: int, windows: dict[str, list[Window]]) -> None:
    reported = ", ".join(f"{name} {done[-1].seconds:.1f} s" for name, done in windows.items())
    sys.stderr.write(f"window {number + 1}: {reported}\n")


def _show(given: argparse.Namespace, windows: dict[str, list[Window]]) -> None:
    peers = [name for name in windows if not name.startswith("ours")]
    pairs_timed = given.batch * (given.steps - 1)
    out = sys.stdout
    dropout = ", no dropout" if given.curve else ""
    out.write(
        f"{given.encoder}, batch {given.batch}, at most {given.tokens} tokens, "
        f"{torch.get_num_threads()} threads, {given.windows} windows of {given.steps - 1} steps{dropout}\n"
        f"{'':44}{'pairs/s':>9}{'ratio':>7}{'mean loss':>11}{'largest difference':>20}\n"
    )
    best = min(peers, key=lambda name: statistics.median(w.seconds for w in windows[name]))
    reference = np.array([w.losses for w in windows[peers[0]]])
    for name, done in windows.items():
        speed = pairs_timed / statistics.median(w.seconds for w in done)
        ratio = statistics.median(b.seconds / w.seconds for b, w in zip(windows[best], done, strict=True))
        curve = np.array([w.losses for w in done])
        apart = np.abs(curve - reference).max()
        out.write(f"{name:44}{speed:9.2f}{ratio:7.2f}{curve.mean():11.4f}{apart:20.4f}\n")
    out.write(f"ratio: to the faster peer, {best}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, default=HELP if HELP.is_file() else SAMPLE)
    parser.add_argument("--encoder", default=encoders.DEFAULT)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6, help="a window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--forward-tokens", type=int)
    parser.add_argument("--kept-tokens", type=int, default=8192)
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--curve", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    run(given)


if __name__ == "__main__":
    main()
