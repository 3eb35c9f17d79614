"""InfoNCE over cosine similarities with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def info_nce(
    questions: Float[Tensor, "batch dim"],
    passages: Float[Tensor, "batch dim"],
    passage_ids: Int[Tensor, " batch"],
    *,
    temperature: float,
    two_sided: bool = False,
) -> Float[Tensor, ""]:
    """Mean cross entropy of each question's own passage among the batch's.

    Args:
        questions: unit vectors; row i is answered by row i of `passages`.
        passages: unit vectors.
        passage_ids: rows of equal id hold the same passage and are no negatives of each other.
        temperature: divides the cosine.
        two_sided: averaged with the same from the passages' side.
    """
    scores = questions @ passages.T / temperature
    same = passage_ids[:, None] == passage_ids[None, :]
    same.fill_diagonal_(False)
    scores = scores.masked_fill(same, -torch.inf)
    own = torch.arange(len(scores), device=scores.device)
    loss = functional.cross_entropy(scores, own)
    if two_sided:
        loss = (loss + functional.cross_entropy(scores.T, own)) / 2
    return loss
