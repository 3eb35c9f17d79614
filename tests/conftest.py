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
# Workers of pytest-xdist inherit the environment after the lines below have changed it.
OWN_CACHE = os.environ.setdefault("HEXAPLA_OWN_CACHE", os.environ.get("HEXAPLA_CACHE", ""))
"""The cache of whoever runs the tests; benchmarks that are fetched for the tests stay there."""
if os.environ.get("PYTEST_XDIST_WORKER"):
    # The workers share the cores. With a thread for each core, all of them together would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing that an earlier run cached may answer for the code under test.
os.environ["HEXAPLA_CACHE"] = tempfile.mkdtemp(prefix="hexapla-cache-")
atexit.register(shutil.rmtree, os.environ["HEXAPLA_CACHE"], ignore_errors=True)

settings.register_profile("shared machine", deadline=None, max_examples=50)
settings.load_profile("shared machine")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
"""Data next to the repository, which a plain clone does not have."""
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
def xquad_r(request):
    """The folder of XQuAD-R: next to the repository, else in the cache, else fetched by its pinned checksums.

    Only CI and `make slow` fetch it, so that plain tests never wait for a network.
    """
    from hexapla.benchmarks import registry
    from hexapla.config import PresetBenchmark
    from hexapla.io import download
    from hexapla.schema import UserError

    if (SHARED / "benchmarks" / "xquad-r").is_dir():
        return SHARED / "benchmarks" / "xquad-r"

    def refuse(url, *_, **__):
        raise UserError(f"{url} is fetched only by `make slow` and in CI (CI=true)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEXAPLA_CACHE", OWN_CACHE)
        if not os.environ.get("CI") and request.config.option.markexpr != "slow":
            patch.setattr(download, "download", refuse)
        try:
            return registry.fetch(PresetBenchmark(preset="xquad-r")).folder
        except UserError as error:
            pytest.skip(f"XQuAD-R is neither in {SHARED} nor in the cache: {error}")


@pytest.fixture(scope="session")
def miracl_yo():
    """The folder of MIRACL's Yoruba part in its published layout, which no preset has."""
    folder = SHARED / "benchmarks" / "miracl"
    if not folder.is_dir():
        pytest.skip(f"MIRACL as published is not in {SHARED}, and the presets have another layout")
    return folder


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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """MLflow's database without runs. To make one takes seconds, to copy one does not."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")).engine.dispose()
    return folder / "mlflow.db"


@pytest.fixture
def tracking_store(empty_store, tmp_path, monkeypatch):
    shutil.copy(empty_store, tmp_path)
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
