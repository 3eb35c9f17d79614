"""The gradients of one global batch, in memory that does not grow with it, on any number of processes.

The loss of contrastive training couples all texts of a batch, their encoding does not (GradCache, Gao et
al. 2021, arXiv 2101.06983). So a step has three parts: all texts become vectors, in micro-batches of
texts of nearly one length; the loss gives the gradient of each vector; each micro-batch carries its
vectors' gradients on to the weights. Activations of the first micro-batches are kept between the first
part and the last, as many as the memory allows; the others are encoded twice, with the same dropout. All
of it gives the gradients that one pass over the whole batch would give.

With several processes each encodes its slice of the batch and compares its rows with the vectors of all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor, nn

from hexapla.modeling.tokenization import batches
from hexapla.schema import UserError
from hexapla.training.loss import Positives, info_nce

_SCORES = 1 << 25
"""Similarities that are held at a time; a larger batch is compared by blocks of its rows."""


class Objective(NamedTuple):
    """How vectors become a loss."""

    temperature: float
    two_sided: bool
    """Averaged with the loss of each passage among the batch's questions."""
    positives: Positives = "own"


class Memory(NamedTuple):
    """What bounds the memory of a step, in tokens, padding included."""

    forward_tokens: int
    """Of a micro-batch."""
    kept_tokens: int
    """Whose activations are kept from the first forward pass for the backward pass."""


class Part(NamedTuple):
    """What one process encodes of a batch, and what the vectors of all processes are."""

    lengths: Sequence[int]
    """Tokens of each text."""
    places: np.ndarray
    """int [texts]: where its vector stands in the slice's block [kinds * pairs of the slice]; the kinds
    are questions, passages, first hard negatives, second ones, ..."""
    kinds: int
    pairs: int
    """Of the slice."""
    passage_ids: Int[Tensor, " pairs"]
    """Of the global batch."""
    negative_ids: Int[Tensor, "kinds-2 pairs"]
    """Of the global batch; `losses.ABSENT` where a pair has fewer."""


Encode = Callable[[np.ndarray, int], Float[Tensor, "texts dim"]]
"""Texts of a micro-batch, by position, and its number, to unit vectors; the same dropout each time."""


def add_gradients(
    accelerator: Accelerator,
    model: nn.Module,
    encode: Encode,
    part: Part,
    *,
    objective: Objective,
    memory: Memory,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[float, int]:
    """Add the gradients of the global batch's mean loss to the weights; returns the loss, and the tokens
    that this process computed, padding included.

    Args:
        accelerator: knows the processes.
        model: what `encode` calls, as `accelerator` prepared it: with several processes its gradients are
            averaged once, in the last backward pass.
        encode: texts of this process to vectors.
        part: what is encoded.
        objective: the loss.
        memory: its bounds.
        autocast: around the forward passes.
    """
    micro = _micro_batches(accelerator, part.lengths, memory.forward_tokens)
    areas = [len(texts) * max(part.lengths[i] for i in texts) for texts in micro]
    kept = _kept(accelerator, areas, memory.kept_tokens)
    vectors, graphs = {}, {}
    with autocast():
        # From the long texts down: those whose graph is kept have to come first, since autocast keeps
        # the weights as it first cast them, with their graph or without.
        for number in reversed(range(len(micro))):
            with _unsynchronised(accelerator, model, len(micro) > 1), torch.set_grad_enabled(number in kept):
                made = encode(micro[number], number)
            vectors[number] = made.detach().float()
            if number in kept:
                graphs[number] = made
    block = torch.zeros(part.kinds * part.pairs, vectors[0].shape[1], device=vectors[0].device)
    for number, texts in enumerate(micro):
        block[part.places[texts]] = vectors[number]
    loss, gradient = contrast(accelerator, block.view(part.kinds, part.pairs, -1), part, objective)
    gradient = gradient.flatten(0, 1)
    for number in reversed(range(len(micro))):
        with _unsynchronised(accelerator, model, number > 0):
            if number in kept:
                made = graphs.pop(number)
            else:
                with autocast():
                    made = encode(micro[number], number)
            made.backward(gradient[part.places[micro[number]]].to(made.dtype))  # type: ignore[no-untyped-call]
    return loss, sum(areas)


def contrast(
    accelerator: Accelerator, block: Float[Tensor, "kinds rows dim"], part: Part, objective: Objective
) -> tuple[float, Float[Tensor, "kinds rows dim"]]:
    """The global batch's mean loss, and its gradient for the vectors of this process.

    The gradient is times the number of processes, because what they send to the weights is averaged.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    ids = part.passage_ids.to(block.device), part.negative_ids.to(block.device)
    part = part._replace(passage_ids=ids[0], negative_ids=ids[1])
    # [processes, kinds, rows, dim] to [kinds, pairs, dim]: slices lie in the batch by rank.
    everyone = accelerator.gather(block[None]).transpose(0, 1).flatten(1, 2).requires_grad_()
    mine = torch.arange(rank * part.pairs, (rank + 1) * part.pairs, device=block.device)
    size = max(1, _SCORES // (everyone.shape[0] * everyone.shape[1]))
    total = 0.0
    for rows in torch.split(mine, size):
        loss = _loss(everyone, rows, part, objective) * (len(rows) / len(mine))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    assert everyone.grad is not None
    gradient = accelerator.reduce(everyone.grad, "sum") if count > 1 else everyone.grad
    mean = accelerator.reduce(torch.tensor(total, device=block.device), "mean") if count > 1 else total
    return float(mean), gradient[:, mine]


def _loss(
    vectors: Float[Tensor, "kinds pairs dim"], rows: Int[Tensor, " rows"], part: Part, objective: Objective
) -> Tensor:
    questions, passages, negatives = vectors[0], vectors[1], vectors[2:].flatten(0, 1)
    ids = part.passage_ids
    contrasted = partial(info_nce, temperature=objective.temperature, positives=objective.positives)
    candidates, candidate_ids = (
        torch.cat([passages, negatives]),
        torch.cat([ids, part.negative_ids.flatten()]),
    )
    loss = contrasted(questions[rows], candidates, ids[rows], candidate_ids, rows)
    if objective.two_sided:
        loss = (loss + contrasted(passages[rows], questions, ids[rows], ids, rows)) / 2
    return loss


def _micro_batches(accelerator: Accelerator, lengths: Sequence[int], tokens: int) -> list[np.ndarray]:
    """Positions of the texts of each, the short texts first.

    A sharded model gathers its weights in every forward pass, so there all processes make as many.
    """
    made = list(batches(lengths, tokens))
    if accelerator.is_fsdp2:
        told = gather_object([(len(made), len(lengths))])
        wanted = max(batches for batches, _ in told)
        if wanted > min(texts for _, texts in told):
            raise UserError(
                "train.forward_tokens: too low for how unequally hard negatives are spread; raise it"
            )
        while len(made) < wanted:
            largest = int(np.argmax([len(texts) for texts in made]))
            made[largest : largest + 1] = np.array_split(made[largest], 2)
    return made


def _kept(accelerator: Accelerator, areas: Sequence[int], tokens: int) -> set[int]:
    """Numbers of the micro-batches whose activations are kept: the last ones, as far as `tokens` reach.

    Where gradients are averaged between processes, it is the last backward pass that does it, and its
    forward pass must come after all others. So the shortest texts are encoded twice there, unless there
    is one micro-batch alone; and a sharded model, whose weights come and go, keeps nothing.
    """
    numbers: Iterator[int] = reversed(range(len(areas)))
    if accelerator.num_processes > 1 and len(areas) > 1:
        numbers = iter([] if accelerator.is_fsdp2 else range(len(areas) - 1, 0, -1))
    kept: set[int] = set()
    for number in numbers:
        tokens -= areas[number]
        if tokens < 0:
            break
        kept.add(number)
    if accelerator.num_processes > 1:
        # The first forward pass with gradient after a step has the processes agree on how they send
        # gradients; all must come to it before the vectors are gathered, or all after.
        fewest = min(gather_object([len(kept)]))
        kept = set(sorted(kept, reverse=True)[:fewest])
    return kept


def _unsynchronised(accelerator: Accelerator, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    return accelerator.no_sync(model) if wanted and accelerator.num_processes > 1 else nullcontext()
