"""The oracle is the padded forward pass of the same encoder, and sentence-transformers on its own."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, XLMRobertaConfig, XLMRobertaModel, masking_utils

from conftest import LANGUAGES, sample
from hexapla.modeling import encoder as encoders
from hexapla.modeling import packing
from hexapla.modeling.encoder import Encoder, unit_vectors
from hexapla.modeling.packing import available, install, packed
from hexapla.modeling.tokenization import extras, padded, pieces

PROMPTS = {"query": "ask: ", "passage": ""}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
TEXTS = [sample(lang)[i]["passage"][: 20 + 31 * i] for i, lang in enumerate(LANGUAGES)]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def folder(request, tiny_folder, tmp_path_factory):
    """A transformer over the tiny tokenizer; XLM-R's padding is moved from 0, so that positions begin late.

    The layers' weights are ten times what they are at first, or a text would be little but its own tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModel.from_pretrained(tiny_folder)
    if request.param == "xlm-roberta":
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(7)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        sizes = {key: getattr(model.config, key) for key in SIZES}
        with torch.random.fork_rng():
            torch.manual_seed(2)
            model = XLMRobertaModel(
                XLMRobertaConfig(**sizes, max_position_embeddings=140, pad_token_id=7, type_vocab_size=1)
            )
    with torch.no_grad():
        for weight in model.encoder.parameters():
            if weight.ndim == 2:
                weight *= 10
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def loaded(folder, mode="mean", device="cpu"):
    learner = encoders.load(str(folder), prompts=PROMPTS, device=device)
    learner.model[1].pooling_mode = mode
    learner.model.eval()
    return learner


def passed(learner, features):
    """Vectors, and the gradient of every weight for a loss that weighs each number differently."""
    learner.model.zero_grad()
    vectors = unit_vectors(learner.model, features)
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    return vectors.detach(), {n: w.grad for n, w in learner.model.named_parameters() if w.grad is not None}


def same(one, other):
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_vectors_and_gradients_are_those_of_padded_texts(folder, mode):
    learner = loaded(folder, mode)
    for layer in learner.model[0].model.encoder.layer:
        layer.attention.self.scaling *= 2  # so that it is not what attention takes by itself
    batch = pieces(learner, [*TEXTS, "", f"a {learner.model.tokenizer.pad_token} b"], "query", 100)
    vectors, gradients = passed(learner, padded(learner, batch))
    install(learner)
    features = packed(learner, batch)
    assert features["input_ids"].shape == (1, sum(len(text["input_ids"]) for text in batch))
    ours, theirs = passed(learner, features)
    assert same(ours, vectors)
    assert theirs.keys() == gradients.keys()
    assert all(same(theirs[name], gradients[name]) for name in gradients)


def test_the_prompt_is_left_out_where_the_pooling_leaves_it_out(folder):
    learner = loaded(folder)
    learner.model[1].include_prompt = False
    more = extras(learner, TEXTS, "query", 100)
    batch = pieces(learner, TEXTS, "query", 100)
    whole = unit_vectors(learner.model, padded(learner, batch))
    wanted = unit_vectors(learner.model, {**padded(learner, batch), **more})
    install(learner)
    assert same(unit_vectors(learner.model, {**packed(learner, batch), **more}), wanted)
    assert not same(wanted, whole)


def test_texts_do_not_see_each_other(folder):
    learner = loaded(folder)
    install(learner)
    batch = pieces(learner, TEXTS, "passage", 60)
    other = [dict(text) for text in batch]
    other[4]["input_ids"] = other[4]["input_ids"][::-1]
    before, after = (unit_vectors(learner.model, packed(learner, texts)) for texts in (batch, other))
    changed = [row for row in range(len(batch)) if not torch.equal(before[row], after[row])]
    assert changed == [4]


def test_no_mask_is_made_for_packed_texts_and_padded_ones_keep_theirs(folder, monkeypatch):
    learner = loaded(folder)
    batch = pieces(learner, TEXTS, "passage", 60)
    before = unit_vectors(learner.model, padded(learner, batch))
    made = []

    def watched(*args, **kwargs):
        made.append(masking_utils.sdpa_mask(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(packing, "sdpa_mask", watched)
    install(learner)
    unit_vectors(learner.model, packed(learner, batch))
    assert made == [None]
    assert torch.equal(unit_vectors(learner.model, padded(learner, batch)), before)
    assert len(made) == 2
    assert made[1] is not None


def test_what_is_saved_knows_nothing_of_it(folder, tmp_path):
    learner = loaded(folder)
    fingerprint = learner.fingerprint
    install(learner)
    assert learner.fingerprint == fingerprint
    learner.save(tmp_path / "saved")
    files = [file.read_text(encoding="utf-8") for file in (tmp_path / "saved").rglob("*.json")]
    assert len(files) > 3
    assert not any(packing._NAME in text for text in files)
    assert "attn_implementation" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert AutoModel.from_pretrained(tmp_path / "saved").config._attn_implementation == "sdpa"
    features = padded(learner, pieces(learner, TEXTS, "passage", 60))
    assert torch.equal(
        unit_vectors(loaded(tmp_path / "saved").model, features), unit_vectors(learner.model, features)
    )


def test_attention_dropout_is_that_of_the_model(folder):
    learner = loaded(folder)
    install(learner)
    batch = pieces(learner, TEXTS, "passage", 60)
    still = unit_vectors(learner.model, packed(learner, batch))
    learner.model.train()
    for module in learner.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert same(unit_vectors(learner.model, packed(learner, batch)), still)
    for layer in learner.model[0].model.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    assert not same(unit_vectors(learner.model, packed(learner, batch)), still)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_kernels_are_called_as_torch_declares_them(dropout):
    """On `meta`, where torch checks shapes, and the way back, without a GPU."""
    pack = [torch.randn(1, 2, 12, 16, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in "qkv"]
    starts = torch.empty(4, dtype=torch.int32, device="meta")
    out, _ = packing._attend(
        torch.nn.Module(), *pack, None, dropout=dropout, scaling=0.25, cu_seq_lens_q=starts, max_length_q=5
    )
    assert out.shape == (1, 12, 2, 16)
    out.sum().backward()
    assert all(part.grad.shape == part.shape for part in pack)


def test_available_where_kernel_model_and_pooling_are(folder, monkeypatch):
    learner = loaded(folder)
    assert not available(learner)
    monkeypatch.setattr(Encoder, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not available(learner)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert available(learner)
    learner.model[1].pooling_mode = "max"
    assert not available(learner)
    learner.model[1].pooling_mode = "cls"
    assert available(learner)
    config = learner.model[0].model.config
    for key, value in (
        ("num_attention_heads", 8),
        ("is_decoder", True),
        ("model_type", "mpnet"),
        ("_attn_implementation", "eager"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(config, key, value)
            assert not available(learner), key
    install(learner)
    assert available(learner)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_the_kernels_give_what_padded_texts_give(folder, mode, dropout):
    """Dropout of 1e-9 drops nothing, but goes the way of the operator that knows dropout."""
    learner = loaded(folder, mode, "cuda")
    if not available(learner):
        pytest.skip("needs a GPU that has FlashAttention")
    learner.model.train()
    for module in learner.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = pieces(learner, TEXTS, "passage", 100)
    wanted, expected = passed(learner, {name: t.cuda() for name, t in padded(learner, batch).items()})
    install(learner)
    for layer in learner.model[0].model.encoder.layer:
        layer.attention.self.dropout.p = dropout
    with torch.autocast("cuda", torch.bfloat16):
        ours, found = passed(learner, packed(learner, batch))
    assert torch.cosine_similarity(ours.float(), wanted).min() > 0.999
    one, two = (torch.cat([grads[name].flatten() for name in expected]) for grads in (found, expected))
    assert torch.cosine_similarity(one, two, dim=0) > 0.999


def test_it_is_taken_where_it_works_and_put_back_where_it_does_not(folder, monkeypatch, caplog):
    learner = loaded(folder)
    before = learner.model[0].model.config._attn_implementation
    assert not packing.works(learner)
    assert learner.model[0].model.config._attn_implementation == before
    monkeypatch.setattr(packing, "available", lambda _: True)
    monkeypatch.setattr(
        packing, "packed", lambda learner, batch: {**packed(learner, batch), "cu_seq_lens_q": None}
    )
    assert not packing.works(learner)
    assert learner.model[0].model.config._attn_implementation == before

    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(packing, "packed", broken)
    assert not packing.works(learner)
    assert "no kernel image" in caplog.text
    assert learner.model[0].model.config._attn_implementation == before
    monkeypatch.setattr(packing, "packed", packed)
    learner.model.train()
    assert packing.works(learner)
    assert learner.model.training
    assert learner.model[0].model.config._attn_implementation != before
