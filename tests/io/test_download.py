import hashlib
import socket

import pytest
from huggingface_hub import errors
from hypothesis import given
from hypothesis import strategies as st

from hexapla.io import download
from hexapla.schema import UserError
from stand_ins import serving

BODY = b"of any length" * 9999
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0, 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("sha256", ["", DIGEST])
def test_a_file_arrives_whole_with_its_checksum(tmp_path, sha256):
    with serving({"/de.json": [BODY]}) as (address, asked):
        assert download.download(f"{address}/de.json", tmp_path / "new" / "de.json", sha256=sha256) == DIGEST
    assert (tmp_path / "new" / "de.json").read_bytes() == BODY
    assert asked == ["/de.json"]


@pytest.mark.parametrize(
    "hiccup",
    [(503, {}, b"busy"), (429, {}, b""), (200, {"Content-Length": str(len(BODY))}, BODY[:500])],
    ids=["down", "too many", "cut off"],
)
def test_it_is_asked_for_again_when_that_may_help(tmp_path, hiccup):
    with serving({"/f": [hiccup, hiccup, BODY]}) as (address, asked):
        download.download(f"{address}/f", tmp_path / "f", sha256=DIGEST)
    assert len(asked) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("answer", "message", "times"),
    [
        ((404, {}, b"<html>"), "can't be fetched (HTTP 404); do so", 1),
        ((500, {}, b""), "can't be fetched (HTTP 500); do so", 3),
        (
            (200, {"Content-Length": "99"}, b"short"),
            "can't be fetched (cut off after 5 of 99 bytes); do so",
            3,
        ),
        (b"other", f"has sha256 {hashlib.sha256(b'other').hexdigest()}, not {DIGEST}; nothing was kept", 1),
        ((302, {"Location": "ftp://127.0.0.1/f"}, b""), "can't be fetched", 3),
    ],
    ids=["absent", "down", "cut off", "changed", "astray"],
)
def test_what_fails_leaves_nothing_and_says_what_to_do(tmp_path, answer, message, times):
    with (
        serving({"/f?key=secret": [answer]}) as (address, asked),
        pytest.raises(UserError) as caught,
    ):
        download.download(f"{address}/f?key=secret", tmp_path / "f", sha256=DIGEST, advice="do so")
    assert str(caught.value).startswith(f"{address}/f: ")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(asked) == times
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_outlives_a_failure(tmp_path):
    (tmp_path / "f").write_text("earlier")
    with serving({"/f": [b"other"]}) as (address, _), pytest.raises(UserError, match="nothing was kept"):
        download.download(f"{address}/f", tmp_path / "f", sha256=DIGEST)
    assert (tmp_path / "f").read_text() == "earlier"


def test_nobody_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(
        UserError, match=r"can't be fetched \(Connection refused\); check address and network"
    ):
        download.download(f"http://127.0.0.1:{port}/f", tmp_path / "f")


def test_a_proxy_of_the_environment_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving({"http://localhost/f": [BODY]}) as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        download.download("http://localhost/f", tmp_path / "f", sha256=DIGEST)
    assert asked == ["http://localhost/f"]


def test_only_https_beyond_this_machine(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="wants https"):
        download.download("file:///etc/passwd", tmp_path / "f")
    answers = {
        "http://localhost/f": [(302, {"Location": "http://example.org/f"}, b"")],
        "http://example.org/f": [BODY],
    }
    monkeypatch.delenv("NO_PROXY")
    with (
        serving(answers) as (address, _),
        pytest.raises(UserError, match=r"to http://example\.org/f, which is not"),
    ):
        monkeypatch.setenv("http_proxy", address)
        download.download("http://localhost/f", tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_is_asked_for_a_revision_of_a_dataset(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *a, **k: calls.append((a, k)) or str(tmp_path)
    )
    assert download.snapshot("own/er", "a" * 40, ["de.json"]) == tmp_path
    assert calls == [
        (("own/er",), {"repo_type": "dataset", "revision": "a" * 40, "allow_patterns": ["de.json"]})
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.LocalEntryNotFoundError("https://x?token=secret"), "not in the local cache; the hub can't"),
        (errors.OfflineModeIsEnabled("secret"), "HF_HUB_OFFLINE is set"),
        (TimeoutError("secret"), "TimeoutError"),
    ],
)
def test_a_hub_that_fails_is_one_line_without_secrets(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError) as caught:
        download.snapshot("own/er", "a" * 40, [], advice="do so")
    assert str(caught.value).startswith(f"own/er@{'a' * 40}: can't be fetched from the hub ({message}")
    assert str(caught.value).endswith("; do so")
    assert "secret" not in str(caught.value)


def test_offline_the_real_hub_client_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"\(not in the local cache; the hub can't be reached, or HF_HUB_OFFLINE"
    ):
        download.snapshot("own/er", "a" * 40, ["de.json"])


@given(st.text("abc:@/?#%", min_size=1))
def test_what_is_shown_of_an_address_has_no_user_password_or_query(middle):
    shown = download.shown(f"https://me:secret@x.org/{middle}?token=secret#secret")
    assert shown.startswith("https://x.org/")
    assert "secret" not in shown


def test_only_this_machine_may_be_asked_without_tls():
    assert download.fetchable("http://localhost:80/x")
    assert download.fetchable("https://x.org")
    assert not download.fetchable("http://localhost.x.org/")
    assert not download.fetchable("http://127.0.0.1@x.org/")
