import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import hashing

text = st.text(max_size=2)


@given(st.lists(text, max_size=60), st.sampled_from([1, 3, 7, 1 << 22]))
def test_each_key_knows_the_first_that_equals_it(texts, at_once):
    keys = hashing.digests(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_SORTED_AT_ONCE", at_once)
        found = hashing.first_occurrences(keys)
    assert found.tolist() == [texts.index(text) for text in texts]


def test_keys_may_be_in_a_file(tmp_path):
    keys = hashing.digests(f"{i % 1000}" for i in range(5000))
    keys.tofile(tmp_path / "keys")
    mapped = np.memmap(tmp_path / "keys", keys.dtype, "r").reshape(-1, 2)
    assert np.array_equal(hashing.first_occurrences(mapped), np.arange(5000) % 1000)


def test_both_halves_of_a_key_count():
    keys = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], np.uint64)
    assert hashing.first_occurrences(keys).tolist() == [0, 1, 2, 0]


def test_a_folders_hash_covers_names_and_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = hashing.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = hashing.sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, hashing.sha256(tmp_path)}) == 3


@given(st.dictionaries(text, st.integers() | text, max_size=5), st.randoms(use_true_random=False))
def test_a_settings_key_depends_on_its_values_and_not_on_their_order(settings, random):
    items = list(settings.items())
    random.shuffle(items)
    assert hashing.key("part", dict(items)) == hashing.key("part", settings)
    assert hashing.key("part", {**settings, "more": 1}) != hashing.key("part", settings)
    assert hashing.key("par", "t") != hashing.key("part")
