import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hexapla.training.loss import ABSENT, info_nce


def unit(rng, rows):
    vectors = rng.normal(size=(rows, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_definition(queries, candidates, query_ids, candidate_ids, own, temperature, positives):
    total = 0.0
    for i, query in enumerate(queries):
        there = [j for j in range(len(candidates)) if candidate_ids[j] != ABSENT]
        right = [j for j in there if candidate_ids[j] == query_ids[i]] if positives == "all" else [own[i]]
        if positives == "own":
            there = [j for j in there if j == own[i] or candidate_ids[j] != query_ids[i]]
        scores = {j: np.exp(query @ candidates[j] / temperature) for j in there}
        total -= np.mean([np.log(scores[j] / sum(scores.values())) for j in right])
    return total / len(queries)


@given(
    st.integers(2, 9), st.integers(0, 4), st.integers(0, 999), st.floats(0.05, 2),
    st.sampled_from(["own", "all"]),
)  # fmt: skip
def test_the_loss_is_its_definition(rows, extra, seed, temperature, positives):
    rng = np.random.default_rng(seed)
    queries, candidates = unit(rng, rows), unit(rng, rows + extra)
    ids = rng.integers(0, rows, size=rows)
    candidate_ids = np.concatenate([ids, rng.choice([ABSENT, 0, rows], size=extra)])
    own = np.arange(rows)
    arrays = (queries, candidates, ids, candidate_ids, own)
    found = info_nce(*map(torch.from_numpy, arrays), temperature=temperature, positives=positives)
    assert found.item() == pytest.approx(by_definition(*arrays, temperature, positives))


@given(st.integers(0, 99), st.sampled_from(["own", "all"]))
def test_gradients_are_finite_and_those_of_absent_candidates_zero(seed, positives):
    rng = np.random.default_rng(seed)
    queries = torch.from_numpy(unit(rng, 4)).requires_grad_()
    candidates = torch.from_numpy(unit(rng, 6)).requires_grad_()
    ids = torch.tensor([0, 0, 1, 2])
    candidate_ids = torch.tensor([0, 0, 1, 2, ABSENT, 7])
    loss = info_nce(
        queries, candidates, ids, candidate_ids, torch.arange(4), temperature=0.01, positives=positives
    )
    loss.backward()
    assert torch.isfinite(queries.grad).all()
    assert (candidates.grad[4] == 0).all()
    assert (candidates.grad[5] != 0).any()


def test_all_of_one_passage_leaves_nothing_to_learn_from_own_positives():
    vectors = torch.nn.functional.normalize(torch.randn(4, 3), dim=1).requires_grad_()
    ids = torch.zeros(4, dtype=torch.long)
    loss = info_nce(vectors, vectors, ids, ids, torch.arange(4), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert vectors.grad.abs().max() == 0


def test_with_all_positives_the_loss_is_lowest_where_translations_are_equally_near():
    question = torch.tensor([[1.0, 0.0]])
    ids, own = torch.tensor([0]), torch.tensor([0])

    def loss(first, second):
        angles = torch.tensor([first, second, 2.0])
        candidates = torch.stack([angles.cos(), angles.sin()], 1)
        return info_nce(
            question, candidates, ids, torch.tensor([0, 0, 1]), own, temperature=0.1, positives="all"
        )

    # The same mean cosine: once the own language's passage is nearer than the other's, once they are equal.
    high, low = 0.9, 0.5
    equal = torch.acos(torch.tensor((high + low) / 2)).item()
    near, far = (torch.acos(torch.tensor(cosine)).item() for cosine in (high, low))
    assert loss(equal, equal) < loss(near, far)
