"""Encoders as they are on the hub: which are loaded, with which weights, and which are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hexapla.modeling import encoder
from hexapla.modeling.encoder import unit_vectors
from hub.fixtures import E5, LABSE, MBERT, ONE, XLMR

PROMPTS = {"query": "query: ", "passage": "passage: "}
TEXTS = ["Wer malte die Nachtwache?", "Rembrandt did."]
COMMITS = {
    "FacebookAI/xlm-roberta-base": XLMR,
    "google-bert/bert-base-multilingual-cased": MBERT,
    "sentence-transformers/LaBSE": LABSE,
    "intfloat/multilingual-e5-small": E5,
}
HALF = "intfloat/multilingual-e5-large-instruct"
"""It is stored in fp16."""
BRAIN = "Qwen/Qwen3-Embedding-0.6B"
"""It is stored in bf16."""


@pytest.fixture
def folder_of(hub, repositories, tmp_path):
    """Give a copy of an encoder's folder, to be changed."""

    def copy(name):
        hub.make(name)
        return shutil.copytree(repositories / "models" / name / COMMITS.get(name, ONE), tmp_path / "copy")

    return copy


def load(folder):
    return encoder.load(str(folder), prompts=PROMPTS, device="cpu")


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "stored"), [(HALF, torch.float16), (BRAIN, torch.bfloat16)])
def test_an_encoder_that_is_stored_in_half_precision_is_loaded_in_fp32(folder_of, name, stored):
    folder = folder_of(name)
    kept = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in kept.values() if weight.is_floating_point()} == {stored}
    loaded = load(folder)
    weights = loaded.model[0].model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(torch.equal(weights[key], weight.float()) for key, weight in kept.items() if key in weights)


@pytest.mark.parametrize("name", [HALF, BRAIN])
def test_it_is_trained_in_fp32_and_saved_so(folder_of, name, tmp_path):
    loaded = load(folder_of(name))
    trained = {name: weight for name, weight in loaded.model.named_parameters() if "layer" in name}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-6, weight_decay=0.0)
    unit_vectors(loaded.model, loaded.tokenize(TEXTS, "query", 32))[0, 0].backward()
    optimizer.step()
    moved = [
        (weight != before[name]).float().mean().item() for name, weight in trained.items() if weight.dim() > 1
    ]
    assert np.mean(moved) > 0.9
    loaded.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config.get("dtype"), config.get("torch_dtype")) == ("float32", None)
    np.testing.assert_array_equal(
        load(tmp_path / "saved").encode(TEXTS, "query", 32, 2), loaded.encode(TEXTS, "query", 32, 2)
    )


def test_a_dense_layer_in_half_precision_computes_in_fp32_too(folder_of):
    folder = folder_of("sentence-transformers/LaBSE")
    for file in (folder / "model.safetensors", folder / "2_Dense" / "model.safetensors"):
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()},
            file,
            {"format": "pt"},
        )
    assert {weight.dtype for weight in load(folder).model.parameters()} == {torch.float32}
