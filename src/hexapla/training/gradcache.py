"""The gradients of one global batch, in memory that does not grow with the batch, on any number of processes.

The contrastive loss couples all texts of a batch; their encoding does not (GradCache, Gao et al. 2021, arXiv
2101.06983). So a step has three parts. All texts become embeddings, in micro-batches of texts of nearly one length.
The loss gives the gradient of each embedding. Each micro-batch carries the gradients of its embeddings on to the
weights. As many micro-batches as the memory allows keep their activations between the first part and the last; the
others are encoded twice, with the same dropout. The gradients are those of one pass over the whole batch.

With several processes, each encodes its slice of the batch and compares its rows with the embeddings of all.
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

from hexapla.modeling.encoder import split_into_batches
from hexapla.schema import UserError
from hexapla.training.loss import Positives, info_nce

_SCORES = 1 << 25
"""Similarities that are in memory at a time; a larger batch is compared by blocks of its rows."""


class Objective(NamedTuple):
    """How embeddings become a loss."""

    temperature: float
    two_sided: bool
    """The loss is averaged with that of each passage among the batch's queries."""
    positives: Positives = "own"


class MemoryLimits(NamedTuple):
    """What bounds the memory of a step, in tokens, padding included."""

    forward_tokens: int
    """The most tokens of a micro-batch."""
    kept_tokens: int
    """The most tokens whose activations are kept from the first forward pass for the backward pass."""


class LocalBatch(NamedTuple):
    """What one process encodes of a batch, and which passages the whole batch has."""

    lengths: Sequence[int]
    """Tokens of each text."""
    places: Int[np.ndarray, " texts"]
    """Where each text's embedding belongs in the slice's block [kinds * pairs]; the kinds are queries, passages,
    first hard negatives, second hard negatives, ..."""
    kinds: int
    pairs: int
    """The number of pairs in the slice."""
    passage_ids: Int[Tensor, " pairs"]
    """The ids of the global batch's passages."""
    negative_ids: Int[Tensor, "kinds-2 pairs"]
    """The ids of the global batch's hard negatives; `loss.ABSENT` where a pair has fewer."""


Encode = Callable[[np.ndarray, int], Float[Tensor, "texts dim"]]
"""Encodes the texts of a micro-batch, given their positions and its number, with the same dropout each time."""


def add_gradients(
    accelerator: Accelerator,
    model: nn.Module,
    encode: Encode,
    batch: LocalBatch,
    *,
    objective: Objective,
    limits: MemoryLimits,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[float, int]:
    """Add the gradients of the global batch's mean loss to the weights.

    Args:
        accelerator: knows the processes.
        model: what `encode` calls, as `accelerator` prepared it: with several processes its gradients are averaged
            once, in the last backward pass.
        encode: encodes texts of this process.
        batch: what is encoded.
        objective: the loss.
        limits: of the memory.
        autocast: a context for the forward passes.

    Returns:
        The loss, and the tokens that this process computed, padding included.
    """
    micro = _split_micro_batches(accelerator, batch.lengths, limits.forward_tokens)
    areas = [len(texts) * max(batch.lengths[i] for i in texts) for texts in micro]
    kept = _choose_kept(accelerator, areas, limits.kept_tokens)
    embeddings, graphs = {}, {}
    with autocast():
        # The long texts come first, because their graph is kept: autocast caches the weights as it first casts
        # them, and a cast without a graph would cut later micro-batches off from the weights.
        for number in reversed(range(len(micro))):
            with _skip_averaging(accelerator, model, len(micro) > 1), torch.set_grad_enabled(number in kept):
                encoded = encode(micro[number], number)
            embeddings[number] = encoded.detach().float()
            if number in kept:
                graphs[number] = encoded
    block = torch.zeros(batch.kinds * batch.pairs, embeddings[0].shape[1], device=embeddings[0].device)
    for number, texts in enumerate(micro):
        block[batch.places[texts]] = embeddings[number]
    loss, gradient = contrast(accelerator, block.view(batch.kinds, batch.pairs, -1), batch, objective)
    gradient = gradient.flatten(0, 1)
    for number in reversed(range(len(micro))):
        with _skip_averaging(accelerator, model, number > 0):
            if number in kept:
                encoded = graphs.pop(number)
            else:
                with autocast():
                    encoded = encode(micro[number], number)
            encoded.backward(gradient[batch.places[micro[number]]].to(encoded.dtype))  # type: ignore[no-untyped-call]
    return loss, sum(areas)


def contrast(
    accelerator: Accelerator, block: Float[Tensor, "kinds rows dim"], batch: LocalBatch, objective: Objective
) -> tuple[float, Float[Tensor, "kinds rows dim"]]:
    """The global batch's mean loss, and its gradient with respect to this process's embeddings.

    The gradient is multiplied by the number of processes, because the weights' gradients are averaged over them.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    ids = batch.passage_ids.to(block.device), batch.negative_ids.to(block.device)
    batch = batch._replace(passage_ids=ids[0], negative_ids=ids[1])
    # [processes, kinds, rows, dim] becomes [kinds, pairs, dim]: the slices are in the batch in the order of the ranks.
    everyone = accelerator.gather(block[None]).transpose(0, 1).flatten(1, 2).requires_grad_()
    mine = torch.arange(rank * batch.pairs, (rank + 1) * batch.pairs, device=block.device)
    size = max(1, _SCORES // (everyone.shape[0] * everyone.shape[1]))
    total = 0.0
    for rows in torch.split(mine, size):
        loss = _compare_rows(everyone, rows, batch, objective) * (len(rows) / len(mine))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    assert everyone.grad is not None
    gradient = accelerator.reduce(everyone.grad, "sum") if count > 1 else everyone.grad
    mean = accelerator.reduce(torch.tensor(total, device=block.device), "mean") if count > 1 else total
    return float(mean), gradient[:, mine]


def _compare_rows(
    embeddings: Float[Tensor, "kinds pairs dim"],
    rows: Int[Tensor, " rows"],
    batch: LocalBatch,
    objective: Objective,
) -> Float[Tensor, ""]:
    """The mean loss of some rows of the global batch."""
    queries, passages, negatives = embeddings[0], embeddings[1], embeddings[2:].flatten(0, 1)
    ids = batch.passage_ids
    contrast_rows = partial(info_nce, temperature=objective.temperature, positives=objective.positives)
    columns = torch.cat([passages, negatives])
    column_ids = torch.cat([ids, batch.negative_ids.flatten()])
    loss = contrast_rows(queries[rows], columns, ids[rows], column_ids, rows)
    if objective.two_sided:
        loss = (loss + contrast_rows(passages[rows], queries, ids[rows], ids, rows)) / 2
    return loss


def _split_micro_batches(accelerator: Accelerator, lengths: Sequence[int], tokens: int) -> list[np.ndarray]:
    """Positions of the texts of each micro-batch, the short texts first.

    A sharded model gathers its weights in every forward pass, so there all processes need the same number.
    """
    micro = list(split_into_batches(lengths, tokens))
    if accelerator.is_fsdp2:
        counts = gather_object([(len(micro), len(lengths))])
        wanted = max(batches for batches, _ in counts)
        if wanted > min(texts for _, texts in counts):
            raise UserError(
                "train.forward_tokens: too low for how unequally hard negatives are spread; raise it"
            )
        while len(micro) < wanted:
            largest = int(np.argmax([len(texts) for texts in micro]))
            micro[largest : largest + 1] = np.array_split(micro[largest], 2)
    return micro


def _choose_kept(accelerator: Accelerator, areas: Sequence[int], tokens: int) -> set[int]:
    """Numbers of the micro-batches whose activations are kept: the last ones, as many as `tokens` allow.

    With several processes, the last backward pass averages the gradients, and its forward pass must come after all
    others. So there the shortest texts are encoded twice, unless there is only one micro-batch. A sharded model,
    whose weights come and go, keeps nothing.
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
        # In the first forward pass with gradient after a step, the processes agree on how they send gradients. All
        # must do that before the embeddings are gathered, or all after.
        fewest = min(gather_object([len(kept)]))
        kept = set(sorted(kept, reverse=True)[:fewest])
    return kept


def _skip_averaging(accelerator: Accelerator, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    return accelerator.no_sync(model) if wanted and accelerator.num_processes > 1 else nullcontext()
