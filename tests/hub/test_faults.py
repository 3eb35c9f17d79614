"""Networks and hubs that fail: one line with the cause and the cure, and another try where that may help."""

import os

import pytest

from conftest import SAMPLE
from hexapla.benchmarks import registry
from hexapla.config import HubBenchmark, HubSource
from hexapla.data.collect.sources import read_rows
from hexapla.data.translate import nmt
from hexapla.io import download
from hexapla.modeling import encoder
from hexapla.schema import UserError
from hub.fixtures import LABSE, ONE, TWO

PROMPTS = {"query": "", "passage": ""}
LATER = "9" * 40


def load_encoder(name="sentence-transformers/LaBSE", commit=LABSE):
    return encoder.load(f"{name}@{commit}", prompts=PROMPTS, device="cpu")


def open_translator(name="Helsinki-NLP/opus-mt-en-de", commit=TWO):
    return nmt.open_model(f"{name}@{commit}")


def read_dataset(name="own/lines", commit=ONE):
    return list(read_rows(HubSource(dataset=name, revision=commit), SAMPLE))


def fetch_benchmark(name="own/lareqa", commit=ONE):
    return registry.fetch(HubBenchmark(name="xq", hub=name, revision=commit))


DOORS = [load_encoder, open_translator, read_dataset, fetch_benchmark]


@pytest.fixture(autouse=True)
def impatient(online, monkeypatch, tmp_path):
    import datasets

    online.make("sentence-transformers/LaBSE", "Helsinki-NLP/opus-mt-en-de", "own/lines", "own/lareqa")
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
    monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0)


def refused(door, *words, **given):
    with pytest.raises(UserError) as caught:
        door(**given)
    said = str(caught.value)
    assert "\n" not in said
    assert "secret" not in said
    assert not [word for word in words if word not in said], said
    return said


@pytest.mark.parametrize("door", DOORS)
def test_without_a_fault_all_doors_open(door):
    assert door()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "gated", "status": 401}, ["consent", "hf auth login", "agree at https://huggingface.co/"]),
        ({"kind": "gated", "status": 403}, ["consent", "HF_TOKEN"]),
        ({"kind": "status", "status": 403}, ["HTTP 403: access is refused", "hf auth login"]),
        ({"kind": "status", "status": 429}, ["HTTP 429: too many requests", "wait some minutes"]),
        ({"kind": "status", "status": 500}, ["HTTP 500: the hub fails", "try again later"]),
        ({"kind": "status", "status": 503}, ["HTTP 503: the hub fails", "try again later"]),
        ({"kind": "drop"}, ["the connection was cut off", "run this again"]),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_hub_that_refuses_or_fails(online, door, fault, words):
    online.fail("/", **fault)
    refused(door, *words)


@pytest.mark.parametrize("door", DOORS)
def test_a_hub_that_does_not_answer(online, door, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.DEFAULT_REQUEST_TIMEOUT", 0.2)
    online.fail("/", "status", status=504)
    refused(door, "HTTP 504", "try again later")


@pytest.mark.parametrize("door", DOORS)
def test_a_repository_that_is_not_there(door):
    refused(door, "no such ", "it needs a login", name="no/where")


@pytest.mark.parametrize("door", DOORS)
def test_a_commit_that_is_not_there(door):
    refused(door, "no such revision", "/commits/main", commit=LATER)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("match", ["/api/", "/resolve"])
def test_a_single_failure_is_tried_again(online, door, match):
    online.fail(match, "status", status=500, times=1)
    assert door()


@pytest.mark.parametrize("door", [load_encoder, open_translator])
def test_a_file_that_is_cut_off_for_good(online, door):
    online.fail("model.safetensors", "cut", method="GET", at=100)
    refused(door, "the connection was cut off", "run this again, and it goes on")


@pytest.mark.parametrize("door", [load_encoder, open_translator])
def test_a_file_that_stalls_for_good(online, door, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    online.fail("sig=", "stall", method="GET", at=100, seconds=1)
    refused(door, "no answer in time", "HF_HUB_DOWNLOAD_TIMEOUT")


ARRIVALS = [
    (load_encoder, "/config.json"),
    (load_encoder, "sig="),
    (open_translator, "vocab.json"),
    (fetch_benchmark, "en.json"),
]


@pytest.mark.parametrize(("door", "match"), ARRIVALS)
def test_a_file_that_arrives_broken_is_not_kept(online, door, match):
    online.fail(match, "corrupt", method="GET", at=20)
    refused(door, "arrives broken", "was not kept", "try again later")
    online.faults.clear()
    assert door()


@pytest.mark.parametrize(("door", "match"), ARRIVALS)
def test_a_file_that_arrives_broken_once_is_fetched_again(online, door, match):
    online.fail(match, "corrupt", method="GET", at=20, times=2)
    assert door()


@pytest.mark.parametrize(
    ("door", "name"),
    [(load_encoder, "model.safetensors"), (load_encoder, "config.json"), (open_translator, "vocab.json")],
)
def test_a_file_that_is_broken_in_the_cache(door, name, tmp_path):
    door()
    (file,) = (tmp_path / "hf").glob(f"hub/models--*/snapshots/*/{name}")
    blob = file.resolve()
    blob.write_bytes(blob.read_bytes()[:50])
    os.utime(blob, (0, 0))
    said = refused(door, f"delete {blob}, which is broken, and run this again")
    blob.unlink()
    assert said
    assert door()


def test_a_full_disk_is_told_with_its_cure():
    failure = download.explain_failure(OSError(28, "No space left on device"), "model", "a/b")
    assert failure == download.HubFailure(
        "no space left on the disk", "make room, or set HF_HOME to another disk"
    )


@pytest.mark.slow
def test_the_command_ends_with_one_line_and_status_2(hub, process):
    """In a process of its own, where only the environment says where the hub is."""
    hub.make("sentence-transformers/LaBSE")
    hub.fail("/", "gated", status=403)
    benchmark = str(SAMPLE / "benchmark")
    model = f"sentence-transformers/LaBSE@{LABSE}"
    done = process("-m", "hexapla", "evaluate", model, "--benchmark", benchmark, HEXAPLA_CACHE="cache")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "its owner asks for a login and consent first" in done.stderr
