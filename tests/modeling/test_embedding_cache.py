import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import cache as io_cache
from hexapla.modeling.embedding_cache import EmbeddingCache, window_key

SETTINGS = {"encoder": "abc", "tokens": 8}
KEYS = [f"{i:032x}" for i in range(20)]
SIZE = 16 + 5 * 6 * 4


def rows(seed, count=5, dim=6):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def kept(cache):
    return [i for i, key in enumerate(KEYS) if cache.read(key, 5, 6) is not None]


def total(root):
    return sum(file.stat().st_size for file in root.glob("*.vectors*"))


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.write(KEYS[0], rows(1))
    np.testing.assert_array_equal(EmbeddingCache(tmp_path).read(KEYS[0], 5, 6), rows(1))
    assert cache.read(KEYS[1], 5, 6) is None


texts = st.text(alphabet="ab\0ü", max_size=3)


@given(
    st.lists(texts | st.tuples(texts, texts), max_size=4),
    st.lists(texts | st.tuples(texts, texts), max_size=4),
)
def test_only_equal_windows_have_equal_keys(one, other):
    assert (window_key(SETTINGS, one) == window_key(SETTINGS, other)) == (one == other)


def test_every_setting_counts_and_their_order_does_not():
    first = window_key(SETTINGS, ["a"])
    assert window_key(dict(reversed(SETTINGS.items())), ["a"]) == first
    for change in ({"encoder": "abd"}, {"tokens": 9}, {"precision": "bf16"}):
        assert window_key(SETTINGS | change, ["a"]) != first


def test_a_key_is_the_same_in_every_version():
    key = window_key({"format": 1, "encoder": "abc"}, ["ein Text", ("Satz", "Zusammenhang")])
    assert key == "554367a76e39c18d532fc2493e3f9b56"


@pytest.mark.parametrize("harm", ["cut", "emptied", "one bit", "another shape"])
def test_a_broken_file_is_dropped_with_a_warning(tmp_path, caplog, harm):
    cache = EmbeddingCache(tmp_path)
    for i in range(2):
        cache.write(KEYS[i], rows(i))
    file = tmp_path / f"{KEYS[0]}.vectors"
    data = bytearray(file.read_bytes())
    if harm == "one bit":
        data[-1] ^= 64
    file.write_bytes({"cut": data[:-4], "emptied": b""}.get(harm, data))
    with caplog.at_level(logging.WARNING):
        assert cache.read(KEYS[0], 5, 7 if harm == "another shape" else 6) is None
    assert str(file) in caplog.text
    assert not file.exists()
    cache.write(KEYS[0], rows(0))
    assert kept(cache) == [0, 1]


def test_the_window_used_longest_ago_goes_first(tmp_path):
    for i in range(3):
        EmbeddingCache(tmp_path).write(KEYS[i], rows(i))
    EmbeddingCache(tmp_path).read(KEYS[0], 5, 6)
    time.sleep(0.002)
    EmbeddingCache(tmp_path, limit=3 * SIZE).write(KEYS[3], rows(3))
    assert kept(EmbeddingCache(tmp_path)) == [0, 2, 3]


def test_a_corpus_larger_than_the_limit_keeps_what_fits_and_says_so(tmp_path, caplog):
    EmbeddingCache(tmp_path).write(KEYS[0], rows(0))
    time.sleep(0.002)
    cache = EmbeddingCache(tmp_path, limit=3 * SIZE)
    for i in range(1, 9):
        cache.write(KEYS[i], rows(i))
    assert kept(cache) == [1, 2, 3]
    assert caplog.text.count("full (limit") == 1


def write_many(root, keys, limit, start):
    start.wait()
    cache = EmbeddingCache(root, limit=limit)
    for i, key in enumerate(keys):
        cache.write(key, rows(i))


def test_the_limit_holds_for_several_processes(tmp_path):
    """Each would fill the cache by itself; before, each measured only once and then counted its own bytes."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    limit = 6 * SIZE
    processes = [
        context.Process(target=write_many, args=(tmp_path, KEYS[5 * n : 5 * n + 5], limit, start))
        for n in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert SIZE < total(tmp_path) <= limit


def test_what_a_killed_writer_left_goes_and_nothing_that_is_not_ours(tmp_path):
    (tmp_path / "chapter.vectors").write_text("mine")
    scratch = tmp_path / f".{KEYS[0]}.vectors.abcd"
    scratch.write_bytes(b"x" * 2 * SIZE)
    os.utime(scratch, (1, 1))
    cache = EmbeddingCache(tmp_path, limit=2 * SIZE)
    cache.write(KEYS[1], rows(1))
    assert not scratch.exists()
    assert kept(cache) == [1]
    assert (tmp_path / "chapter.vectors").read_text() == "mine"


def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    for i in range(2):
        cache.write(KEYS[i], rows(i))
    assert cache.read(KEYS[0], 5, 6) is None
    assert caplog.text.count("no embeddings are kept") == 1


def test_the_default_folder_is_a_kind_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    EmbeddingCache().write(KEYS[0], rows(0))
    (entry,) = io_cache.list_entries()
    assert (entry.kind, entry.path.name) == ("embeddings", f"{KEYS[0]}.vectors")


def test_the_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "own"))
    assert EmbeddingCache().root == tmp_path / "own" / "embeddings"
    monkeypatch.delenv("HEXAPLA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EmbeddingCache().root == tmp_path / "hexapla" / "embeddings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert EmbeddingCache().root == Path.home() / ".cache" / "hexapla" / "embeddings"
