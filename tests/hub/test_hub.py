"""The stand-in and its repositories, against the clients that Hexapla uses."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import snapshot_download

from hexapla.config import PresetSource
from hexapla.data.collect.sources import load_presets, read_rows, resolve_preset
from hub import fixtures
from hub.fixtures import XLMR

NAME = "FacebookAI/xlm-roberta-base"
WEIGHTS = "model.safetensors?sig"


def sizes(folder):
    files = (file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors"))
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def fetch(name=NAME, revision=XLMR):
    return snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"])


def test_a_snapshot_has_all_files_and_is_taken_from_the_cache_next_time(online, repositories, tmp_path):
    online.make(NAME)
    assert sizes(Path(fetch())) == sizes(repositories / "models" / NAME / XLMR)
    before = len(online.requests)
    assert sizes(Path(fetch())) == sizes(repositories / "models" / NAME / XLMR)
    assert len(online.requests) == before


def test_a_branch_is_the_commit_that_it_points_to(online):
    online.make("Helsinki-NLP/opus-mt-en-de")
    main, change = (fetch("Helsinki-NLP/opus-mt-en-de", ref) for ref in ("main", "refs/pr/45"))
    assert (main[-40:], change[-40:]) == (fixtures.ONE, fixtures.TWO)


def test_what_was_cut_off_is_asked_for_again(online, repositories):
    online.make(NAME)
    online.fail(WEIGHTS, "cut", method="GET", at=10_000, times=1)
    assert sizes(Path(fetch())) == sizes(repositories / "models" / NAME / XLMR)
    # It starts anew, since the client writes 10 MB at once, and holds less.
    assert [status for _, path, status in online.requests if WEIGHTS in path] == [200, 200]


@pytest.mark.parametrize(
    ("repository", "revision", "fault", "kind"),
    [
        ("nobody/nothing", "main", None, "RepositoryNotFoundError"),
        (NAME, "5" * 40, None, "RevisionNotFoundError"),
        (NAME, XLMR, {"match": "/api/models", "kind": "gated", "status": 403}, "GatedRepoError"),
        (NAME, XLMR, {"match": "/cdn/", "kind": "status", "status": 500}, "HfHubHTTPError"),
        (NAME, XLMR, {"match": "/cdn/", "kind": "cut", "method": "GET", "at": 0}, "RemoteProtocolError"),
    ],
)
def test_errors_are_those_of_the_client(online, repository, revision, fault, kind):
    online.make(NAME)
    if fault:
        online.fail(**fault)
    with pytest.raises((OSError, httpx2.RemoteProtocolError)) as caught:
        fetch(repository, revision)
    assert type(caught.value).__name__ == kind


def test_another_process_finds_the_hub_by_its_environment(hub, process):
    hub.make(NAME)
    code = f"import huggingface_hub as hub; print(hub.snapshot_download({NAME!r}, revision={XLMR!r}))"
    done = process("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"/snapshots/{XLMR}")


@pytest.mark.parametrize("preset", sorted(name for name, corpus in load_presets().items() if corpus.loadable))
def test_presets_stream_the_datasets_that_they_name(online, preset, tmp_path):
    online.make(load_presets()[preset].hub)
    rows = [row for _, row in read_rows(resolve_preset(PresetSource(preset=preset)), tmp_path)]
    assert len(rows) >= fixtures.ROWS - 1
