"""How fast texts become vectors, next to sentence-transformers' own `encode`.

    python perf/encoding.py [--corpus FOLDER] [--encoder NAME] [--texts N] [--rounds N] [--cpu-time]

Same model, texts, lengths and threads; in each round every way works on the same fresh texts, one way
after the other, so that what slows the machine slows all. Ratios are of the same round, medians over
the rounds; the first round warms up and is not counted. On a machine that others use as well,
`--cpu-time` counts what the process computes, in one thread.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hexapla.modeling import embed
from hexapla.modeling import encoder as encoders

ROOT = Path(__file__).parent.parent
XQUAD_R = ROOT.parent / "shared" / "benchmarks" / "xquad-r"
SAMPLE = ROOT / "data" / "sample" / "benchmark"
TOKENS = 256
_LONG = 4
"""Long texts take about this many times as long."""

Way = Callable[[list[str]], np.ndarray]


def corpora(folder: Path) -> dict[str, list[str]]:
    """Texts of a benchmark in LAReQA format, all languages: questions, contexts, both with sentences."""
    questions, contexts, sentences = [], [], []
    for file in sorted(folder.glob("*.json")):
        for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                contexts.append(paragraph["context"])
                sentences += paragraph["sentences"]
                questions += [question["question"] for question in paragraph["qas"]]
    sets = {"short": questions, "long": contexts, "mixed": [*questions, *contexts, *sentences]}
    return {name: sorted(set(texts)) for name, texts in sets.items()}


def ways(encoder: encoders.Encoder, precision: encoders.Precision) -> dict[str, Way]:
    theirs = {
        f"sentence-transformers, batch {size}": partial(_theirs, encoder, batch_size=size)
        for size in (16, 32, 64)
    }
    ours: dict[str, Way] = {"ours, fp32": partial(_ours, encoder, precision="fp32")}
    if precision != "fp32":
        ours[f"ours, auto ({precision})"] = partial(_ours, encoder, precision=precision)
    return theirs | ours


def _theirs(encoder: encoders.Encoder, texts: list[str], *, batch_size: int) -> np.ndarray:
    return encoder.encode(texts, "passage", TOKENS, batch_size)


def _ours(encoder: encoders.Encoder, texts: list[str], *, precision: encoders.Precision) -> np.ndarray:
    return embed.encode(encoder, texts, "passage", TOKENS, precision=precision)


class Padding:
    """Counts what goes into the transformer."""

    def __init__(self, encoder: encoders.Encoder) -> None:
        self.area = self.real = 0

        # A function, since the copy in bf16 would count with a copy of a method's object.
        def count(_: object, arguments: tuple[dict[str, torch.Tensor]]) -> None:
            mask = arguments[0]["attention_mask"]
            self.area += mask.numel()
            self.real += int(mask.sum())

        encoder.model[0].register_forward_pre_hook(count)

    def take(self) -> float:
        """Share of padding since the last time."""
        share = 1 - self.real / self.area
        self.area = self.real = 0
        return share


def measured(
    encoder: encoders.Encoder,
    texts: list[str],
    size: int,
    rounds: int,
    precision: encoders.Precision,
    clock: Callable[[], float],
) -> list[tuple[str, float, float, float, float]]:
    """A row a way: its name, texts a second, ratio to the best peer, lowest cosine, share of padding."""
    rng = np.random.default_rng(7)
    candidates = ways(encoder, precision)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    cosines = dict.fromkeys(candidates, 1.0)
    padding = dict.fromkeys(candidates, 0.0)
    counter = Padding(encoder)
    for number in range(rounds + 1):
        drawn = [texts[i] for i in rng.choice(len(texts), size, replace=False)]
        reference = None
        for name, way in candidates.items():
            began = clock()
            vectors = way(drawn)
            taken = clock() - began
            share = counter.take()
            reference = vectors if reference is None else reference
            cosines[name] = min(cosines[name], float((vectors * reference).sum(axis=1).min()))
            if number:
                seconds[name].append(taken)
                padding[name] += share / rounds
    peers = [name for name in candidates if not name.startswith("ours")]
    best = min(peers, key=lambda name: statistics.median(seconds[name]))
    return [
        (
            name,
            size / statistics.median(taken),
            statistics.median(b / t for b, t in zip(seconds[best], taken, strict=True)),
            cosines[name],
            padding[name],
        )
        for name, taken in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, default=XQUAD_R if XQUAD_R.is_dir() else SAMPLE)
    parser.add_argument("--encoder", default=encoders.DEFAULT)
    parser.add_argument("--texts", type=int, default=300, help="a round, of long ones a quarter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    if given.cpu_time:
        torch.set_num_threads(1)
    encoder = encoders.load(given.encoder, prompts={"query": "", "passage": ""})
    precision = embed.resolve_precision(encoder, "auto")
    out = sys.stdout
    out.write(f"{given.encoder} on {encoder.device}, {torch.get_num_threads()} threads, {clock.__name__}\n")
    for name, texts in corpora(given.corpus).items():
        size = min(len(texts), given.texts // _LONG if name == "long" else given.texts)
        out.write(f"\n{name}: {given.rounds} rounds of {size} texts, at most {TOKENS} tokens\n")
        out.write(f"{'':34}{'texts/s':>9}{'ratio':>7}{'min cosine':>12}{'padding':>9}\n")
        for way, speed, ratio, cosine, share in measured(
            encoder, texts, size, given.rounds, precision, clock
        ):
            out.write(f"{way:34}{speed:9.1f}{ratio:7.2f}{cosine:12.6f}{share:9.1%}\n")
            out.flush()


if __name__ == "__main__":
    main()
