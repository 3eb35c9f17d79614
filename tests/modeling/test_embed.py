import io
import logging
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LANGUAGES, sample
from hexapla.modeling import embed, encoder
from hexapla.modeling.embed import (
    Embedder,
    encode,
    evaluating,
    has_bf16_units,
    prefetch,
    resolve_precision,
)
from hexapla.modeling.embedding_cache import EmbeddingCache
from hexapla.modeling.encoder import tokenize_texts
from hexapla.schema import UserError

PROMPTS = {"query": "ask: ", "passage": "text: "}
TEXTS = [row[key] for lang in LANGUAGES for row in sample(lang)[:4] for key in ("question", "passage")]

FEW = ["Wer malte die Nachtwache?", "谁画了夜巡？", "Rembrandt"]


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    return encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(embed, "WINDOW", 20)


@pytest.fixture
def forwards(tiny, monkeypatch):
    """The number of texts of each forward pass."""
    seen = []
    handle = tiny.model[0].register_forward_pre_hook(lambda _, args: seen.append(len(args[0]["input_ids"])))
    yield seen
    handle.remove()


@settings(max_examples=20)
@given(
    texts=st.lists(st.sampled_from(["", *TEXTS, "a " * 300]), min_size=1, max_size=60), seed=st.integers(0)
)
def test_the_vectors_are_those_of_sentence_transformers(tiny, texts, seed):
    side, tokens = (("query", 12), ("passage", 128), ("query", 9999))[seed % 3]
    ours, theirs = encode(tiny, texts, side, tokens), tiny.encode(texts, side, tokens, 4)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_neither_order_nor_repetition_changes_a_bit(tiny, small_windows):
    order = np.random.default_rng(1).permutation(len(TEXTS))
    straight = encode(tiny, TEXTS, "passage", 64)
    np.testing.assert_array_equal(encode(tiny, [TEXTS[i] for i in order], "passage", 64), straight[order])
    np.testing.assert_array_equal(encode(tiny, TEXTS * 2, "passage", 64), np.tile(straight, (2, 1)))


def test_pairs_and_texts_together(tiny):
    mixed = [(text, TEXTS[0][:50]) if i % 3 else text for i, text in enumerate(TEXTS)]
    fitting = [m for m in mixed if len(tiny.tokenize([m], "passage", 128)["input_ids"][0]) < 128]
    np.testing.assert_allclose(
        encode(tiny, fitting, "passage", 128), tiny.encode(fitting, "passage", 128, 4), atol=2e-6
    )


def test_no_text_is_encoded_twice(tiny, forwards):
    encode(tiny, ["a", "b", "a", ("a", "b"), "a"], "query", 16)
    assert sum(forwards) == 3


def test_nothing_gives_an_empty_array(tiny):
    assert encode(tiny, [], "query", 16).shape == (0, 32)


def test_dense_layers_and_prompts_that_are_not_pooled_count(tiny_folder):
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    other = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    other.model[1] = Pooling(32, pooling_mode="mean", include_prompt=False)
    plain = encode(other, TEXTS, "query", 64)
    np.testing.assert_allclose(plain, other.encode(TEXTS, "query", 64, 8), atol=2e-6)
    with torch.random.fork_rng():
        other.model[2] = Dense(32, 7)
    dense = encode(other, TEXTS, "query", 64)
    assert dense.shape == (len(TEXTS), 7)
    np.testing.assert_allclose(dense, other.encode(TEXTS, "query", 64, 8), atol=2e-6)
    half = encode(other, TEXTS, "query", 64, precision="bf16")
    assert (dense * half).sum(axis=1).min() > 0.99


def test_a_model_that_feeds_itself_is_left_to_sentence_transformers(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr("hexapla.modeling.embed.extra_features", lambda *a: None)
    theirs = tiny.encode(TEXTS, "query", 64, 32)
    found = encode(tiny, TEXTS, "query", 64, cache=EmbeddingCache(tmp_path))
    np.testing.assert_allclose(found, theirs, atol=2e-6)
    monkeypatch.setattr(tiny, "encode", None)
    np.testing.assert_array_equal(encode(tiny, TEXTS, "query", 64, cache=EmbeddingCache(tmp_path)), found)


def test_training_goes_on_as_it_was(tiny):
    tiny.model.train()
    encode(tiny, TEXTS, "query", 16)
    assert tiny.model.training
    tiny.model.eval()


def test_a_window_is_computed_once_and_only_the_same_in_all_hits(tiny, tmp_path, forwards, small_windows):
    cache = EmbeddingCache(tmp_path)
    first = encode(tiny, TEXTS, "passage", 64, cache=cache)
    worked = sum(forwards)
    forwards.clear()
    np.testing.assert_array_equal(encode(tiny, TEXTS[::-1], "passage", 64, cache=cache), first[::-1])
    assert not forwards
    # The longest text is in a window of its own, and the others are where they were.
    encode(tiny, [*TEXTS, "new " * 1000], "passage", 64, cache=cache)
    assert sum(forwards) <= embed.WINDOW
    for changed in ({"side": "query"}, {"tokens": 63}, {"precision": "bf16"}):
        forwards.clear()
        how = {"side": "passage", "tokens": 64, "precision": "fp32"} | changed
        encode(tiny, TEXTS, how["side"], how["tokens"], precision=how["precision"], cache=cache)
        # A copy of the transformer works in bf16; it has the hook too.
        assert sum(forwards) == worked, changed


def test_weights_are_hashed_and_copied_once_for_many_calls(tiny, tmp_path, monkeypatch):
    hashed, copied = [], []
    hash_weights, copy_weights = type(tiny).fingerprint.fget, embed._in_bf16
    monkeypatch.setattr(
        type(tiny), "fingerprint", property(lambda self: hashed.append(1) or hash_weights(self))
    )
    monkeypatch.setattr(embed, "_in_bf16", lambda module: copied.append(1) or copy_weights(module))
    embedder = Embedder(tiny, precision="bf16", cache=EmbeddingCache(tmp_path))
    for start in range(0, 12, 4):
        embedder.encode(TEXTS[start : start + 4], "passage", 64)
    embedder.encode(TEXTS[:4], "query", 64)
    assert len(hashed) == len(copied) == 1


def test_cached_embeddings_are_those_of_this_format(tiny):
    """When this fails, what is in users' caches is no longer what would be computed: raise `embed.FORMAT`."""
    assert embed.FORMAT == 1
    (row,) = encode(tiny, ["Wer malte die Nachtwache?"], "query", 32)
    np.testing.assert_allclose(row[:4], [-0.310718, -0.045559, -0.145062, 0.075609], atol=1e-4)


def test_an_encoder_that_was_trained_since_gets_vectors_of_its_own(tiny_folder, tmp_path):
    other = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    cache = EmbeddingCache(tmp_path)
    before = encode(other, TEXTS, "query", 32, cache=cache)
    # The one way to change a weight that torch does not count.
    other.model[0].model.get_input_embeddings().weight.data[5:] += 0.05
    after = encode(other, TEXTS, "query", 32, cache=cache)
    assert (after != before).any(axis=1).all()
    np.testing.assert_array_equal(after, encode(other, TEXTS, "query", 32))


def test_a_run_that_was_killed_goes_on_where_it_was(tiny, tmp_path, forwards, small_windows, monkeypatch):
    whole = encode(tiny, TEXTS, "passage", 64)
    worked = sum(forwards)
    refuse, windows = embed._refuse_broken, []

    def killed(*args):
        windows.append(1)
        if len(windows) == 3:
            raise KeyboardInterrupt
        refuse(*args)

    monkeypatch.setattr(embed, "_refuse_broken", killed)
    with pytest.raises(KeyboardInterrupt):
        encode(tiny, TEXTS, "passage", 64, cache=EmbeddingCache(tmp_path))
    forwards.clear()
    np.testing.assert_array_equal(encode(tiny, TEXTS, "passage", 64, cache=EmbeddingCache(tmp_path)), whole)
    assert sum(forwards) == worked - 2 * embed.WINDOW


def test_a_broken_file_is_encoded_again(tiny, tmp_path, forwards, caplog):
    whole = encode(tiny, TEXTS, "passage", 64, cache=EmbeddingCache(tmp_path))
    (shard,) = tmp_path.rglob("*.vectors")
    shard.write_bytes(shard.read_bytes()[:-8])
    forwards.clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(
            encode(tiny, TEXTS, "passage", 64, cache=EmbeddingCache(tmp_path)), whole
        )
    assert forwards
    assert "broken" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_no_number_is_named_and_never_kept(tiny_folder, tmp_path, value):
    other = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    text = "Wer malte die Nachtwache, die in Amsterdam hängt?"
    with torch.no_grad():
        for piece in other.model.tokenizer(text)["input_ids"][1:-1]:
            other.model[0].model.get_input_embeddings().weight[piece] = value
    with pytest.raises(
        UserError, match="Wer malte die Nachtwache.*….*is not finite.*load it again"
    ) as caught:
        encode(other, ["", text], "query", 32, cache=EmbeddingCache(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.vectors"))


def test_half_a_character_is_a_mistake(tiny):
    with pytest.raises(UserError, match=r"'a \\ud800' holds half a character"):
        encode(tiny, ["a \ud800"], "query", 16)


def test_the_bar_counts_every_text_once(tiny, tmp_path, monkeypatch, small_windows):
    bars = []
    real = embed.tqdm

    def tqdm(**kw):
        bars.append((real(**{**kw, "disable": False, "file": io.StringIO()}), kw))
        return bars[-1][0]

    monkeypatch.setattr(embed, "tqdm", tqdm)
    cache = EmbeddingCache(tmp_path)
    for texts in (TEXTS[:50], TEXTS):
        encode(tiny, texts, "query", 32, cache=cache, progress="questions")
        bar, given = bars[-1]
        assert bar.n == bar.total == len(set(texts))
        assert given["disable"] is None
    encode(tiny, TEXTS, "query", 32)
    assert bars[-1][1]["disable"] is True


def test_bf16_is_close_and_leaves_the_encoder_as_it_is(tiny):
    before = {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    made = tokenize_texts(tiny, FEW, "query", 32)
    full, half = (Embedder(tiny, precision=kind).forward(FEW, "query", 32)(made) for kind in ("fp32", "bf16"))
    assert full.dtype == half.dtype == np.float32
    assert (full != half).any()
    assert (full * half).sum(axis=1) == pytest.approx(1, abs=2e-3)
    assert np.linalg.norm(half, axis=1) == pytest.approx(1, abs=1e-5)
    for name, weight in tiny.model.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_auto_is_bf16_where_the_hardware_computes_in_it(tiny, monkeypatch):
    assert [resolve_precision(tiny, wanted) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]
    for flags, chosen in (
        ({"avx512_f": True, "avx2": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert resolve_precision(tiny, "auto") == chosen
    for native, chosen in ((False, False), (True, True)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native
        )
        assert has_bf16_units(torch.device("cuda")) == chosen
    with pytest.raises(UserError, match="'fp8' is unknown; choose auto, fp32 or bf16"):
        resolve_precision(tiny, "fp8")


def test_an_encoder_that_feeds_itself_runs_in_fp32(tiny, monkeypatch):
    monkeypatch.setattr(embed, "extra_features", lambda *a: None)
    assert Embedder(tiny).forward(FEW, "query", 32) is None
    monkeypatch.setattr(embed, "has_bf16_units", lambda device: True)
    assert resolve_precision(tiny, "auto") == "fp32"
    with pytest.raises(UserError, match="bf16 is not for this encoder"):
        Embedder(tiny, precision="bf16").forward(FEW, "query", 32)


def test_the_mode_comes_back_after_an_error(tiny):
    tiny.model.train()
    with pytest.raises(KeyError), evaluating(tiny.model):
        assert not tiny.model.training
        raise KeyError
    assert tiny.model.training


def test_the_next_inputs_are_made_while_the_last_are_used():
    made, used = [], []

    def make(step):
        made.append((step, threading.current_thread().name))
        return step

    for inputs in prefetch(make, range(3, 7)):
        used.append(inputs)
        until = time.monotonic() + 5
        while len(made) < min(len(used) + 1, 4) and time.monotonic() < until:
            time.sleep(0.001)
        assert len(made) == min(len(used) + 1, 4)
    assert used == [3, 4, 5, 6]
    assert {name for _, name in made} == {"prefetch_0"}
    assert list(prefetch(make, range(0))) == []


def test_what_goes_wrong_there_is_raised_here():
    def fail(step):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(prefetch(fail, range(2)))
