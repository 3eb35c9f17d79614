"""Encoders and translation models that bring code of their own: it is not run, and nobody is asked."""

import json
import shutil

import pytest

from conftest import ROOT
from hexapla.data.translate import nmt
from hexapla.modeling import encoder
from hexapla.schema import UserError
from hub.fixtures import LABSE, ONE, write_json

PROMPTS = {"query": "", "passage": ""}


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch):
    def ask(*_):
        raise AssertionError("asked at the terminal")

    monkeypatch.setattr("builtins.input", ask)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (
            "Alibaba-NLP/gte-multilingual-base",
            "config.json names Alibaba-NLP/new-impl--configuration.NewConfig",
        ),
        ("jinaai/jina-embeddings-v3", "config.json names jinaai/xlm-roberta-flash-implementation--"),
        ("own/remote", "config.json names configuration_own.OwnConfig"),
        ("own/remote-elsewhere", "config.json names own/code--configuration_own.OwnConfig"),
    ],
)
def test_an_encoder_of_the_hub_that_names_code_is_refused(online, name, place):
    online.make(name)
    with pytest.raises(UserError, match="needs code of its own, which is not run") as caught:
        encoder.load(f"{name}@{ONE}", prompts=PROMPTS, device="cpu")
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
    asked = [path for _, path, _ in online.requests if path.endswith(".py") or "/own/code" in path]
    assert asked == []


@pytest.fixture
def labse(hub, repositories, tmp_path):
    hub.make("sentence-transformers/LaBSE")
    source = repositories / "models" / "sentence-transformers" / "LaBSE" / LABSE
    return shutil.copytree(source, tmp_path / "labse")


def change(file, **values):
    write_json(file, {**json.loads(file.read_text()), **values})


def refused(folder):
    with pytest.raises(UserError, match="needs code of its own, which is not run") as caught:
        encoder.load(str(folder), prompts=PROMPTS, device="cpu")
    return str(caught.value)


def test_a_module_of_another_package_is_refused(labse):
    modules = json.loads((labse / "modules.json").read_text())
    modules[1]["type"] = "pylate.models.Dense"
    write_json(labse / "modules.json", modules)
    assert "modules.json names pylate.models.Dense" in refused(labse)


def test_a_module_of_the_folders_own_code_is_refused(labse):
    modules = json.loads((labse / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    write_json(labse / "modules.json", modules)
    (labse / "custom_st.py").write_text("raise SystemExit('code was run')\n")
    assert "modules.json names custom_st.Transformer" in refused(labse)


def test_an_activation_that_is_not_pytorchs_is_refused_and_not_replaced(labse):
    change(labse / "2_Dense" / "config.json", activation_function="own.activations.Squash")
    assert "2_Dense/config.json names own.activations.Squash" in refused(labse)


def test_a_tokenizer_with_code_is_refused(labse):
    change(labse / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own_tokens.OwnTokenizer", None]})
    assert "tokenizer_config.json names own_tokens.OwnTokenizer" in refused(labse)


def test_a_processor_with_code_is_refused(labse):
    write_json(labse / "preprocessor_config.json", {"auto_map": {"AutoProcessor": "own_processing.Own"}})
    assert "preprocessor_config.json names own_processing.Own" in refused(labse)


def test_classes_that_transformers_has_are_taken_from_there(labse):
    change(
        labse / "config.json",
        auto_map={
            "AutoConfig": "who/ever--configuration_bert.BertConfig",
            "AutoModel": "who/ever--modeling_bert.BertModel",
            "AutoModelForMaskedLM": "modeling_own.OwnForMaskedLM",
        },
    )
    (labse / "modeling_bert.py").write_text("raise SystemExit('code was run')\n")
    assert encoder.load(str(labse), prompts=PROMPTS, device="cpu").dim == 32


def test_a_translation_model_with_code_is_refused(hub, repositories, tmp_path):
    hub.make("Helsinki-NLP/opus-mt-en-de")
    folder = tmp_path / "marian"
    shutil.copytree(repositories / "models" / "Helsinki-NLP" / "opus-mt-en-de" / ("2" * 40), folder)
    change(
        folder / "config.json",
        auto_map={"AutoModelForSeq2SeqLM": "modeling_own.Own"},
    )
    with pytest.raises(
        UserError, match=r"needs code of its own, which is not run \(config.json names modeling_own.Own\)"
    ):
        nmt.open_model(str(folder))


def test_every_call_that_loads_a_translation_model_says_that_no_code_is_run():
    """Whoever adds a call is told here; the libraries' own default is to ask."""
    text = (ROOT / "src" / "hexapla" / "data" / "translate" / "nmt.py").read_text(encoding="utf-8")
    for call in text.split(".from_pretrained(")[1:]:
        assert "_LOCAL" in call[:120], call[:200]
