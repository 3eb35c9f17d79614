"""The forward pass of an encoder in fp32 or bf16, and which of them is the right one here."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hexapla.modeling.encoder import Encoder, Side, Text
from hexapla.modeling.tokenization import Pieces, budget, extras, padded, pieces
from hexapla.parallel import distributed
from hexapla.schema import UserError

Precision = Literal["fp32", "bf16"]
Forward = Callable[[Sequence[Pieces]], np.ndarray]

_FASTER = 1.3
_ALIKE = 0.99
_SECONDS = 0.5


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside the block; in training or not after it, as before."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def forward_of(
    encoder: Encoder, probe: Sequence[Text], side: Side, tokens: int, precision: Precision
) -> Forward | None:
    """Pieces of a batch to unit vectors; None where only sentence-transformers can feed the model.

    bf16 is a copy of the transformer: 5 to 10 % faster than autocast on 2 cores, which turns the weights
    anew in every batch, with cosines to fp32 of at least 0.99995 (autocast's: 0.99998).
    """
    more = extras(encoder, [text if isinstance(text, str) else text[0] for text in probe], side, tokens)
    if more is None:
        if precision == "bf16":
            raise UserError("encode: bf16 is not for this encoder (no plain transformer); use fp32")
        return None
    first, *rest = encoder.model.children()
    transformer = _halved(first) if precision == "bf16" else first
    device = encoder.device

    def forward(batch: Sequence[Pieces]) -> np.ndarray:
        features = {name: tensor.to(device) for name, tensor in padded(encoder, batch).items()}
        with torch.inference_mode():
            out = transformer({**features, **more})
            out = {k: v.float() if _is_half(v) else v for k, v in out.items()}
            for module in rest:
                out = module(out)
            unit: np.ndarray = (
                nn.functional.normalize(out["sentence_embedding"].float(), dim=-1).cpu().numpy()
            )
            return unit

    return forward


def _halved(module: nn.Module) -> nn.Module:
    """A copy with bf16 weights; fp32 weights and the tokenizer are not copied on the way."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        for weight in module.parameters()
        if weight.is_floating_point()
    }
    if (processor := getattr(module, "processor", None)) is not None:
        memo[id(processor)] = processor
    return copy.deepcopy(module, memo)


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def resolved_precision(encoder: Encoder, wanted: str) -> Precision:
    """`fp32` or `bf16` as wanted, or for `auto` the one that is better here; the same in all processes.

    Raises:
        UserError: `wanted` is none of the three.
    """
    if wanted == "fp32":
        return "fp32"
    if wanted == "bf16":
        return "bf16"
    if wanted != "auto":
        raise UserError(f"precision: '{wanted}' is unknown; choose auto, fp32 or bf16")
    return "bf16" if distributed.agreed(measured_precision(encoder)) == "bf16" else "fp32"


def measured_precision(encoder: Encoder) -> Precision:
    """bf16 where it is at least 1.3 times as fast on this very device, and gives the same vectors.

    Not a matter of what a processor is said to have: where bf16 is emulated it is far slower. Both are
    timed in turn, for about a second. On a CPU it is the time that one thread computes, so that other
    programs on the machine change nothing.
    """
    probe = ["Πᾶσα γραφὴ, six columns. " * 32]
    with evaluating(encoder.model):
        full = forward_of(encoder, probe, "passage", 64, "fp32")
        if full is None:
            return "fp32"
        half = forward_of(encoder, probe, "passage", 64, "bf16")
        assert half
        size = 2 if encoder.device.type == "cpu" else budget(encoder.device) // 64
        batch = pieces(encoder, probe, "passage", 64) * size
        try:
            with _clock(encoder.device) as clock:
                like = float(full(batch)[0] @ half(batch)[0])
                # Written so that NaN, which is neither more nor less than anything, is not alike.
                good = like >= _ALIKE and _times_as_fast(half, full, batch, clock) >= _FASTER
        except RuntimeError:  # no kernel for bf16 here
            return "fp32"
    return "bf16" if good else "fp32"


@contextmanager
def _clock(device: torch.device) -> Iterator[Callable[[], float]]:
    if device.type != "cpu":
        yield time.perf_counter
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield time.thread_time
    finally:
        torch.set_num_threads(threads)


def _times_as_fast(
    one: Forward, other: Forward, batch: Sequence[Pieces], clock: Callable[[], float]
) -> float:
    """Median over rounds, each of which times both: what slows a round slows both."""
    ratios: list[float] = []
    began = clock()
    while len(ratios) < 9 and (len(ratios) < 3 or clock() - began < _SECONDS):
        marks = [clock()]
        for forward in (one, other):
            forward(batch)
            marks.append(clock())
        ratios.append((marks[2] - marks[1]) / (marks[1] - marks[0]))
    return statistics.median(ratios)
