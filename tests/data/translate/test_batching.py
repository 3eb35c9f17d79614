"""Batches: all texts, longest first, under the budget, whatever their order."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hexapla.data.translate.batching import batches

TOKENS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=40)


@given(TOKENS, st.integers(1, 40), st.randoms())
def test_batches_hold_all_under_the_budget_in_one_order(tokens, budget, random) -> None:
    made = batches(tokens, budget)
    assert sorted(place for batch in made for place in batch) == list(range(len(tokens)))
    lengths = [[len(tokens[place]) for place in batch] for batch in made]
    assert all(len(batch) * max(batch) <= budget for batch in lengths if len(batch) > 1)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    # None could take the next one's first as well: fewer batches would not do in this order.
    for batch, following in pairwise(lengths):
        assert (len(batch) + 1) * batch[0] > budget, (batch, following)
    shuffled = list(tokens)
    random.shuffle(shuffled)
    again = [[shuffled[place] for place in batch] for batch in batches(shuffled, budget)]
    assert again == [[tokens[place] for place in batch] for batch in made]
