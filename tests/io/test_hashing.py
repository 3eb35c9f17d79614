import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import hashing


@given(st.lists(st.text(max_size=2), max_size=60), st.sampled_from([1, 3, 7, 1 << 22]))
def test_each_key_knows_the_first_that_equals_it(texts, at_once):
    keys = hashing.digests(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_AT_ONCE", at_once)
        found = hashing.first(keys)
    assert found.tolist() == [texts.index(text) for text in texts]


def test_keys_may_lie_in_a_file(tmp_path):
    keys = hashing.digests(f"{i % 1000}" for i in range(5000))
    keys.tofile(tmp_path / "keys")
    mapped = np.memmap(tmp_path / "keys", keys.dtype, "r").reshape(-1, 2)
    assert np.array_equal(hashing.first(mapped), np.arange(5000) % 1000)


def test_both_halves_of_a_key_count():
    keys = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], np.uint64)
    assert hashing.first(keys).tolist() == [0, 1, 2, 0]
