import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import cache as store
from hexapla.modeling.embedding_cache import Cache, digests

KEY = {"encoder": "abc", "tokens": 8}


def texts(start, count):
    return [f"text {i}" for i in range(start, start + count)]


def rows(start, count, dim=6):
    """The vector of a text follows from its number."""
    return np.stack([np.random.default_rng(i).normal(size=dim) for i in range(start, start + count)]).astype(
        np.float32
    )


def look(cache, wanted, key=KEY, dim=6):
    with cache.shelf(key) as shelf:
        into = np.zeros((len(wanted), dim), np.float32)
        return shelf.read(shelf.find(digests(wanted)), into), into


def keep(cache, start, count, key=KEY):
    with cache.shelf(key) as shelf:
        shelf.add(digests(texts(start, count)), rows(start, count))


@given(
    kept=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=25),
    wanted=st.permutations(range(70)),
)
def test_what_was_kept_is_found_bit_for_bit_and_nothing_else(tmp_path_factory, kept, wanted):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    for start, count in kept:
        keep(cache, start, count)
    known = {i for start, count in kept for i in range(start, start + count)}
    there, into = look(cache, [f"text {i}" for i in wanted])
    assert there.tolist() == [i in known for i in wanted]
    for row, i in enumerate(wanted):
        np.testing.assert_array_equal(into[row], rows(i, 1)[0] if i in known else 0)


def test_another_key_does_not_hit(tmp_path):
    cache = Cache(tmp_path)
    keep(cache, 0, 5)
    for change in ({"encoder": "abd"}, {"tokens": 9}, {"precision": "bf16"}):
        assert not look(cache, texts(0, 5), KEY | change)[0].any()
    assert look(cache, texts(0, 5), dict(reversed(KEY.items())))[0].all()


def test_a_pair_is_no_text_and_its_parts_have_a_border():
    names = digests(["ab", ("ab", ""), ("a", "b"), ("", "ab"), "a\0b", "ab\0"])
    assert len(set(names.tolist())) == 6


@pytest.mark.parametrize("harm", ["cut", "emptied", "header", "index"])
def test_a_broken_shard_is_dropped_with_a_warning_and_the_others_stay(tmp_path, caplog, harm):
    cache = Cache(tmp_path)
    keep(cache, 0, 5)
    (shard,) = tmp_path.rglob("*.vectors")
    keep(cache, 5, 5)
    data = bytearray(shard.read_bytes())
    if harm == "header":
        data[3] ^= 1
    if harm == "index":
        data[70] ^= 1
    shard.write_bytes({"cut": data[:-4], "emptied": b""}.get(harm, data))
    with caplog.at_level(logging.WARNING):
        there, _ = look(cache, texts(0, 10))
    assert there.tolist() == [False] * 5 + [True] * 5
    assert str(shard) in caplog.text
    keep(cache, 0, 5)
    assert look(cache, texts(0, 10))[0].all()


def test_one_wrong_bit_in_a_vector_is_seen(tmp_path, caplog):
    cache = Cache(tmp_path)
    keep(cache, 0, 5)
    (shard,) = tmp_path.rglob("*.vectors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 64
    shard.write_bytes(data)
    there, into = look(cache, texts(0, 5))
    assert not there.any()
    assert not into.any()
    assert "broken" in caplog.text


def test_many_small_shards_become_one_even_under_a_reader(tmp_path):
    cache = Cache(tmp_path)
    for start in range(0, 60, 3):
        keep(cache, start, 4)
    assert len(list(tmp_path.rglob("*.vectors"))) < 20
    with cache.shelf(KEY) as reader:
        found = reader.find(digests(texts(0, 61)))
        for start in range(100, 140, 2):
            keep(cache, start, 2)
        into = np.zeros((61, 6), np.float32)
        assert reader.read(found, into).all()
    np.testing.assert_array_equal(into, rows(0, 61))
    assert look(cache, texts(100, 40))[0].all()


def test_two_that_write_the_same_end_with_one_file(tmp_path):
    one, two = Cache(tmp_path), Cache(tmp_path)
    with one.shelf(KEY) as a, two.shelf(KEY) as b:
        for shelf in (a, b):
            shelf.add(digests(texts(0, 5)), rows(0, 5))
    assert len(list(tmp_path.rglob("*.vectors"))) == 1
    assert look(one, texts(0, 5))[0].all()


def test_the_limit_holds_the_oldest_goes_first_and_one_in_use_stays(tmp_path, caplog):
    size = 64 + -(-100 * 20 // 64) * 64 + 100 * 24
    cache = Cache(tmp_path, limit=3 * size + 100)
    keys = [KEY | {"tokens": i} for i in range(6)]
    with cache.shelf(keys[0]) as used:
        used.add(digests(texts(0, 100)), rows(0, 100))
        for key in keys[1:5]:
            keep(cache, 0, 100, key)
        held = [look(cache, texts(0, 100), key)[0].all() for key in keys]
        assert held == [True, False, False, True, True, False]
        assert sum(f.stat().st_size for f in tmp_path.rglob("*.vectors")) <= cache.limit
        used.add(digests(texts(100, 300)), rows(100, 300))
        assert "full" in caplog.text
    assert sum(f.stat().st_size for f in tmp_path.rglob("*.vectors")) <= cache.limit
    assert look(cache, texts(0, 100), keys[0])[0].all()


def test_nothing_but_shelves_is_ever_dropped(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.vectors").write_text("mine")
    cache = Cache(tmp_path, limit=10)
    keep(cache, 0, 5)
    assert (tmp_path / "thesis" / "chapter.vectors").read_text() == "mine"


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file" / "cache").shelf(KEY) as shelf:
        assert shelf is None
    assert "no vectors are kept" in caplog.text


def test_the_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "own"))
    assert store.cache_root() == tmp_path / "own"
    monkeypatch.delenv("HEXAPLA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_root() == tmp_path / "hexapla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_root() == Path.home() / ".cache" / "hexapla"
