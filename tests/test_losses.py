import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hexapla.losses import info_nce


def unit(rng, rows):
    vectors = rng.normal(size=(rows, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_definition(questions, passages, ids, temperature):
    total = 0.0
    for i, question in enumerate(questions):
        scores = {
            j: np.exp(question @ p / temperature)
            for j, p in enumerate(passages)
            if j == i or ids[j] != ids[i]
        }
        total -= np.log(scores[i] / sum(scores.values()))
    return total / len(questions)


@given(st.integers(2, 9), st.integers(0, 99), st.floats(0.05, 2))
def test_loss_is_its_definition_with_equal_passages_left_out(rows, seed, temperature):
    rng = np.random.default_rng(seed)
    questions, passages = unit(rng, rows), unit(rng, rows)
    ids = rng.integers(0, rows, size=rows)
    one, other = (
        by_definition(questions, passages, ids, temperature),
        by_definition(passages, questions, ids, temperature),
    )
    tensors = [torch.from_numpy(a) for a in (questions, passages, ids)]
    assert info_nce(*tensors, temperature=temperature).item() == pytest.approx(one)
    both = info_nce(*tensors, temperature=temperature, two_sided=True).item()
    assert both == pytest.approx((one + other) / 2)


def test_all_of_one_passage_leaves_nothing_to_learn():
    vectors = torch.nn.functional.normalize(torch.randn(4, 3), dim=1).requires_grad_()
    loss = info_nce(vectors, vectors, torch.zeros(4, dtype=torch.long), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert vectors.grad.abs().max() == 0
