"""Shared fixtures: small real text, and an encoder small enough to train in a test."""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing that an earlier run cached may answer for the code under test.
os.environ["HEXAPLA_CACHE"] = tempfile.mkdtemp(prefix="hexapla-cache-")
atexit.register(shutil.rmtree, os.environ["HEXAPLA_CACHE"], ignore_errors=True)

settings.register_profile("shared machine", deadline=None, max_examples=50)
settings.load_profile("shared machine")

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"
LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")


def sample(lang):
    lines = (SAMPLE / "pairs" / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def sample_pairs():
    """A slice of the sample as the rows of a parallel table: 40 ids in 3 languages."""
    from hexapla.schema import Pair

    english = sample("en")[:40]
    return [
        Pair(e["id"], "sample", lang, r["question"], r["passage"], r["answer"], "p" + e["id"], "memory")
        for lang in ("en", "de", "zh")
        for e, r in zip(english, sample(lang), strict=False)
    ]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A plain transformers folder: BERT with 2 layers of width 32, a tokenizer of the sample's pieces."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    text = [row[key] for lang in LANGUAGES for row in sample(lang)[:60] for key in ("question", "passage")]
    fast = Tokenizer(models.BPE(unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    fast.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    )
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=128,
    )  # fmt: skip
    config = BertConfig(
        vocab_size=fast.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tracking_store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def hexapla(monkeypatch, capsys):
    """The command as a person types it; gives exit status, stdout and stderr."""
    from hexapla import __main__ as program

    def run(*argv):
        monkeypatch.setattr("sys.argv", ["hexapla", *map(str, argv)])
        try:
            program.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run
