"""InfoNCE over cosines (van den Oord et al. 2018, arXiv 1807.03748), with one or many positives."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Positives = Literal["own", "all"]
ABSENT = -1
"""The id of a candidate that is none: a place that a batch's shape has and its data do not fill."""


def info_nce(
    queries: Float[Tensor, "rows dim"],
    candidates: Float[Tensor, "columns dim"],
    query_ids: Int[Tensor, " rows"],
    candidate_ids: Int[Tensor, " columns"],
    own: Int[Tensor, " rows"],
    *,
    temperature: float,
    positives: Positives = "own",
) -> Float[Tensor, ""]:
    """Mean cross entropy between each row's softmax over the candidates and its target.

    Args:
        queries: unit vectors.
        candidates: unit vectors.
        query_ids: of what answers the row, at least 0.
        candidate_ids: of what the column is; ABSENT columns count for nothing.
        own: the column that belongs to the row.
        temperature: divides the cosine.
        positives: `own`: the target is the own column, and others of equal id, which say the same and
            would be false negatives, are left out. `all`: the target is spread evenly over all columns
            of equal id (Khosla et al. 2020, arXiv 2004.11362, L_out), so that the loss is lowest where
            all translations of an answer are equally near, whatever their language.
    """
    scores = queries @ candidates.T / temperature
    same = query_ids[:, None] == candidate_ids[None, :]
    nothing = (candidate_ids == ABSENT).expand_as(scores)
    if positives == "all":
        shares = scores.masked_fill(nothing, -torch.inf).log_softmax(dim=1)
        return -(shares.masked_fill(~same, 0).sum(dim=1) / same.sum(dim=1)).mean()
    mine = own[:, None] == torch.arange(len(candidates), device=own.device)
    scores = scores.masked_fill((same & ~mine) | nothing, -torch.inf)
    return torch.nn.functional.cross_entropy(scores, own)
