"""Encoders as they are on the hub: which are loaded, with which weights, and which are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hexapla.modeling import encoder
from hexapla.modeling.encoder import unit_vectors
from hexapla.schema import UserError
from hub.fixtures import E5, LABSE, MBERT, ONE, XLMR, write_json

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


# --- weights -------------------------------------------------------------------------------------


def refused(folder, capfd, *words):
    """Refuse the folder with one line that has the words, and keep the loader's table off the screen."""
    capfd.readouterr()
    with pytest.raises(UserError) as caught:
        load(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert not [word for word in words if word not in said], said
    out, err = capfd.readouterr()
    assert out + err == ""


def rewrite(folder, change):
    """Change the weights of a folder, which are given as a dictionary."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def configure(folder, name="config.json", **values):
    file = folder / name
    settings = {**json.loads(file.read_text()), **values}
    write_json(file, {key: value for key, value in settings.items() if value != "DROP"})


@pytest.mark.parametrize("name", [*COMMITS, "jhu-clsp/mmBERT-base", HALF, BRAIN])
def test_encoders_as_they_are_on_the_hub_are_loaded_without_a_word(folder_of, name, capfd):
    folder = folder_of(name)
    capfd.readouterr()
    loaded = load(folder)
    assert np.isfinite(loaded.encode(TEXTS, "query", 32, 2)).all()
    out, err = capfd.readouterr()
    assert "MISSING" not in out + err
    assert "UNEXPECTED" not in out + err


def test_the_same_from_the_hub_itself(online):
    online.make("sentence-transformers/LaBSE")
    loaded = encoder.load(f"sentence-transformers/LaBSE@{LABSE}", prompts=PROMPTS, device="cpu")
    assert [type(module).__name__ for module in loaded.model] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Normalize",
    ]


@pytest.mark.parametrize("name", ["own/lacking"])
def test_a_layer_whose_weights_are_missing(folder_of, name, capfd):
    refused(folder_of(name), capfd, "lacks weights: encoder.layer.1.attention.output.", ", ... (10 in all)")


def test_weights_under_other_names(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")

    def rename(weights):
        for key in [key for key in weights if ".query." in key]:
            weights[key.replace("query", "q_proj")] = weights.pop(key)

    rewrite(folder, rename)
    refused(folder, capfd, "lacks weights: encoder.layer.0.attention.self.query.bias")


def test_a_single_missing_weight(folder_of, capfd):
    folder = folder_of("FacebookAI/xlm-roberta-base")
    rewrite(folder, lambda weights: weights.pop("roberta.embeddings.LayerNorm.bias"))
    refused(folder, capfd, "lacks weights: embeddings.LayerNorm.bias (1 in all)")


def test_weights_that_are_all_another_models(folder_of, capfd):
    folder = folder_of("jhu-clsp/mmBERT-base")
    rewrite(folder, lambda weights: [weights.update({f"net.{key}": weights.pop(key)}) for key in [*weights]])
    refused(folder, capfd, "lacks weights: embeddings.")


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("intfloat/multilingual-e5-small", 1, "has weights that the configuration has no place for"),
        ("FacebookAI/xlm-roberta-base", 1, "has weights that the configuration has no place for"),
        ("intfloat/multilingual-e5-small", 3, "lacks weights: encoder.layer.2."),
        ("google-bert/bert-base-multilingual-cased", 5, "lacks weights: encoder.layer.2."),
    ],
)
def test_a_configuration_with_another_number_of_layers(folder_of, name, layers, words, capfd):
    folder = folder_of(name)
    configure(folder, num_hidden_layers=layers)
    refused(folder, capfd, words, "encoder.layer.")


def test_a_configuration_with_another_width(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")
    configure(folder, intermediate_size=128)
    refused(folder, capfd, "has weights of other shapes than the configuration: encoder.layer.0.intermediate")


def test_a_pooler_that_nobody_uses_may_be_missing(folder_of):
    folder = folder_of("intfloat/multilingual-e5-small")
    whole = load(folder).encode(TEXTS, "query", 32, 2)
    rewrite(folder, lambda weights: [weights.pop(key) for key in [*weights] if key.startswith("pooler.")])
    np.testing.assert_array_equal(load(folder).encode(TEXTS, "query", 32, 2), whole)


def test_a_dense_layer_without_its_weights(folder_of, capfd):
    folder = folder_of("sentence-transformers/LaBSE")
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({"linear.bias": weights["linear.bias"]}, folder / "2_Dense" / "model.safetensors")
    refused(folder, capfd, "can't be loaded", "linear.weight")


def test_pickled_weights_of_a_layer_are_not_read(folder_of, capfd):
    refused(folder_of("own/dense-pickled"), capfd, "holds no safetensors in 2_Dense")


# --- tokenizers, and what else lies elsewhere ----------------------------------------------------


@pytest.mark.parametrize("name", ["FacebookAI/xlm-roberta-base", "sentence-transformers/LaBSE", BRAIN])
def test_a_folder_without_a_tokenizer(folder_of, name, capfd):
    folder = folder_of(name)
    for file in ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model"):
        (folder / file).unlink(missing_ok=True)
    refused(folder, capfd, "has no tokenizer; it needs ", "tokenizer.json")


def test_a_tokenizer_of_another_repository(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")
    configure(folder, "sentence_bert_config.json", tokenizer_name_or_path="who/ever")
    refused(folder, capfd, "sentence_bert_config.json takes the tokenizer of 'who/ever'")


def test_an_adapter_without_its_base_model(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "who/ever"})
    refused(folder, capfd, "is an adapter of 'who/ever'; merge it into that model")


# --- lengths, padding and pooling ----------------------------------------------------------------


def test_xlm_r_without_a_stated_length_has_512_positions_for_texts(folder_of):
    loaded = load(folder_of("own/no-length"))
    assert loaded.longest == 512
    long = ["Nachtwache " * 2000]
    assert loaded.tokenize(long, "passage", 9999)["input_ids"].shape == (1, 512)
    assert np.isfinite(loaded.encode(long, "passage", 9999, 1)).all()


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("FacebookAI/xlm-roberta-base", 512),
        ("sentence-transformers/LaBSE", 256),
        ("intfloat/multilingual-e5-small", 512),
        ("jhu-clsp/mmBERT-base", 8192),
        (BRAIN, 32768),
    ],
)
def test_the_longest_text_is_as_the_encoder_says(folder_of, name, longest):
    assert load(folder_of(name)).longest == longest


@pytest.mark.parametrize(("stated", "longest"), [(600, 512), (514, 512), (513, 512), (40, 40), (3, 3)])
def test_a_stated_length_goes_no_further_than_the_positions(folder_of, stated, longest):
    folder = folder_of("own/no-length")
    write_json(folder / "tokenizer_config.json", {"model_max_length": stated})
    loaded = load(folder)
    assert loaded.longest == longest
    assert np.isfinite(loaded.encode(["Wer malte die Nachtwache? " * 300], "query", 9999, 1)).all()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_length_that_special_tokens_fill(folder_of, length, capfd):
    folder = folder_of("sentence-transformers/LaBSE")
    configure(folder, "sentence_bert_config.json", max_seq_length=length)
    refused(folder, capfd, f"a text may have {length} tokens, of which 2 are special", "max_seq_length")


def test_a_tokenizer_without_a_padding_token(folder_of, capfd):
    folder = folder_of(BRAIN)
    configure(folder, "tokenizer_config.json", pad_token="DROP")
    refused(folder, capfd, "its tokenizer has no padding token; name one", "tokenizer_config.json")


def test_a_tokenizer_with_more_pieces_than_the_model_has_vectors(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    configure(folder, vocab_size=rows - 5)
    key = "embeddings.word_embeddings.weight"
    rewrite(folder, lambda weights: weights.update({key: weights[key][: rows - 5].clone()}))
    refused(folder, capfd, f"up to {rows - 1}, but the model has vectors for {rows - 5} only")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pooling_mode_cls_token": False}, ["1_Pooling/config.json chooses no way of pooling"]),
        ({"word_embedding_dimension": 48}, ["pooling expects vectors of 48 numbers, but the model gives 32"]),
        ({"word_embedding_dimension": "DROP"}, ["can't be loaded", "embedding_dimension"]),
        ({"pooling_mode": "average"}, ["can't be loaded", "average"]),
    ],
    ids=["none", "width", "no width", "unknown"],
)
def test_a_broken_pooling_file(folder_of, values, words, capfd):
    folder = folder_of("sentence-transformers/LaBSE")
    configure(folder, "1_Pooling/config.json", **values)
    refused(folder, capfd, *words)


def test_a_missing_pooling_file(folder_of, capfd):
    folder = folder_of("sentence-transformers/LaBSE")
    (folder / "1_Pooling" / "config.json").unlink()
    refused(folder, capfd, "1_Pooling/config.json is missing, which modules.json names")


@pytest.mark.parametrize(
    "name",
    ["config.json", "1_Pooling/config.json", "modules.json", "tokenizer_config.json", "2_Dense/config.json"],
)
@pytest.mark.parametrize("text", ["{", "", "7"])
def test_settings_that_are_no_settings(folder_of, name, text, capfd):
    folder = folder_of("sentence-transformers/LaBSE")
    (folder / name).write_text(text)
    refused(folder, capfd, f"{name} ", "fetch it again")


def test_a_tokenizer_file_that_is_no_tokenizer(folder_of, capfd):
    folder = folder_of("intfloat/multilingual-e5-small")
    (folder / "tokenizer.json").write_text("{")
    refused(folder, capfd, "tokenizer.json can't be read; fetch it again")
