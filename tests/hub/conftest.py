"""A hub for a test, and clients that ask it: the real ones, whose settings are those of another process."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from conftest import ROOT
from hub import fixtures
from hub.hub_server import Hub


@pytest.fixture(scope="session")
def repositories(tmp_path_factory):
    """The folder of the repositories, to which each test adds what it needs with `fixtures.make`."""
    return tmp_path_factory.mktemp("hub")


class LazyHub(Hub):
    """A hub that builds its repositories when a test names them."""

    def make(self, *names):
        for name in names:
            fixtures.make(self.folder, name)


@pytest.fixture
def hub(repositories):
    with LazyHub(repositories, page=5) as hub:
        yield hub


@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    """Let the clients of this process ask the stand-in, with an empty cache and without long waits.

    They read the environment once, when they are imported, so what they read is replaced.
    """
    import datasets
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "HF_HUB_DOWNLOAD_TIMEOUT": 2,
        "HF_HUB_ETAG_TIMEOUT": 2,
        "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
        "HF_DATASETS_CACHE": tmp_path / "hf" / "datasets",
    }.items():
        monkeypatch.setattr(datasets.config, name, value)
    for module in (_http, file_download):  # the stand-in itself may want to sleep
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    _http.close_session()
    yield hub
    _http.close_session()


@pytest.fixture
def process(hub, tmp_path):
    """Run Python in a process of its own, where the environment says where the hub is; give what it did."""

    def run(*arguments, **variables):
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )

    return run
