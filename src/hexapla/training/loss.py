"""InfoNCE over cosine similarities (van den Oord et al. 2018, arXiv 1807.03748), with one or many positives."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Positives = Literal["own", "all"]
ABSENT = -1
"""The id of an empty column, which only fills the shape of the batch."""


def info_nce(
    queries: Float[Tensor, "rows dim"],
    passages: Float[Tensor, "columns dim"],
    query_ids: Int[Tensor, " rows"],
    passage_ids: Int[Tensor, " columns"],
    own: Int[Tensor, " rows"],
    *,
    temperature: float,
    positives: Positives = "own",
) -> Float[Tensor, ""]:
    """Mean cross entropy between each query's softmax over the passages and its target.

    Args:
        queries: unit vectors.
        passages: unit vectors.
        query_ids: the id of the passage that answers each query, at least 0.
        passage_ids: the id of each passage; columns with the id ABSENT are ignored.
        own: the column of the passage that belongs to the query.
        temperature: divides the cosine similarity.
        positives: `own`: the target is the own column; other columns with the same id say the same, would be false
            negatives, and are left out. `all`: the target is spread evenly over all columns with the same id (Khosla
            et al. 2020, arXiv 2004.11362, L_out), so that the loss is lowest where all translations of an answer are
            equally near, whatever their language.
    """
    scores = queries @ passages.T / temperature
    same = query_ids[:, None] == passage_ids[None, :]
    absent = (passage_ids == ABSENT).expand_as(scores)
    if positives == "all":
        shares = scores.masked_fill(absent, -torch.inf).log_softmax(dim=1)
        return -(shares.masked_fill(~same, 0).sum(dim=1) / same.sum(dim=1)).mean()
    mine = own[:, None] == torch.arange(len(passages), device=own.device)
    scores = scores.masked_fill((same & ~mine) | absent, -torch.inf)
    return torch.nn.functional.cross_entropy(scores, own)
