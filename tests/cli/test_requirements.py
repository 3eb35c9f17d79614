"""What the hub is asked, and what becomes of its answers; a stand-in answers."""

import dataclasses

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from conftest import ROOT
from hexapla import config
from hexapla.cli import requirements
from hexapla.cli.plan import plan
from hexapla.cli.requirements import Item

COMMIT, OTHER = "a" * 40, "b" * 40


class Answer:
    def __init__(self, **sizes):
        self.sha = OTHER
        self.siblings = [type("File", (), {"rfilename": k, "size": v}) for k, v in sizes.items()]


@pytest.fixture
def hub(monkeypatch):
    """Answers by id; what is not among them does not exist."""
    answers, calls = {}, []

    def repo_info(self, name, *, repo_type, revision, files_metadata):
        assert files_metadata
        calls.append((name, repo_type, revision))
        if name not in answers:
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})
            raise RepositoryNotFoundError("https://x?token=secret", response=response())
        return answers[name]

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    return answers, calls


def test_the_hub_is_asked_for_sizes_and_commits(hub):
    answers, calls = hub
    answers["own/model"] = Answer(**{"model.safetensors": 2_000_000, "config.json": 500, "tf.h5": 9_000_000})
    answers["own/data"] = Answer(**{"train.parquet": 3_000_000, "README.md": 0})
    items = [
        Item("encoder", "encoder", "own/model", COMMIT, host="model"),
        Item("source", "data", "own/data", "main", host="dataset", problem="own/data: 'main' may move"),
        Item("source", "local", "x", megabytes=1.0, here=True),
    ]
    found = requirements.ask_hub(items)
    assert [item.megabytes for item in found] == [pytest.approx(2.0005), pytest.approx(3.0), 1.0]
    assert [item.problem for item in found] == ["", f"own/data: 'main' may move (now {OTHER})", ""]
    assert calls == [("own/model", "model", COMMIT), ("own/data", "dataset", "main")]


def test_a_model_without_safetensors_and_an_unknown_id_are_listed_without_secrets(hub):
    answers, _ = hub
    answers["own/pickled"] = Answer(**{"pytorch_model.bin": 5, "config.json": 1})
    items = [Item("translation", "a", name, COMMIT, host="model") for name in ("own/pickled", "own/gone")]
    pickled, gone = requirements.ask_hub(items)
    assert "holds no safetensors" in pickled.problem
    assert gone.problem == f"own/gone@{COMMIT}: the hub says RepositoryNotFoundError"


def test_offline_the_real_client_says_so(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (item,) = requirements.ask_hub([Item("encoder", "encoder", "own/model", COMMIT, host="model")])
    assert item.problem == f"own/model@{COMMIT}: the hub says OfflineModeIsEnabled"


def test_the_hub_is_asked_only_on_request(hub, tmp_path, capsys, monkeypatch):
    answers, calls = hub
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    answers["own/encoder"] = Answer(**{"model.safetensors": 4_000_000_000})
    settings = config.load(ROOT / "params.yaml")
    own = dataclasses.replace(settings.encoders["e5-small"], model=f"own/encoder@{COMMIT}")
    settings = dataclasses.replace(settings, encoders={"e5-small": own})
    for online in (False, True):
        assert not calls
        plan(settings, online=online)
    assert calls == [("own/encoder", "model", COMMIT)]
    unasked, asked = capsys.readouterr().out.split("Nothing is missing.")[:2]
    assert "without encoder, of unknown size" in unasked
    assert "- to download: 4.0 GB" in asked
