"""Files over the network, from a URL or the hub: checked before they take their place, whole or not there."""

import hashlib
import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from hexapla.io import cache
from hexapla.schema import UserError

_log = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]
"""What a repository of the hub holds."""

TIMEOUT = 30.0
"""Seconds without a byte."""

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try."""

_CHUNK = 1 << 16
_BUSY = (408, 425, 429)
"""Statuses after which it is tried again, as after those from 500 on."""

_HUB = {
    "LocalEntryNotFoundError": "not in the local cache; the hub can't be reached, or HF_HUB_OFFLINE is set",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "IncompleteSnapshotError": "in the local cache in part only, and the hub can't be reached",
    "RepositoryNotFoundError": "no such dataset, or it needs a login",
    "GatedRepoError": "its owner asks for a login and consent first",
    "RevisionNotFoundError": "no such revision",
}


def download(url: str, path: Path, *, sha256: str = "", advice: str = "") -> str:
    """Fetch `url` to `path`, in three tries; proxies of the environment are used.

    Args:
        url: https, or http on this machine.
        path: where the file goes, once it is whole and has its checksum.
        sha256: what it has to have; empty when that is not known.
        advice: what the user can do when this fails.

    Returns:
        The file's sha256.

    Raises:
        UserError: it can't be reached, is not there, or has another checksum.
    """
    for number in range(len(PAUSES) + 1):
        try:
            return _stream(url, path, sha256)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code}"
            if error.code < 500 and error.code not in _BUSY:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
        if number < len(PAUSES):
            _log.info("%s: %s; trying again", shown(url), reason)
            time.sleep(PAUSES[number])
    raise UserError(f"{shown(url)}: can't be fetched ({reason}); {advice or 'check address and network'}")


def _stream(url: str, path: Path, sha256: str) -> str:
    if not fetchable(url):
        raise UserError(f"{shown(url)}: wants https://…")
    request = urllib.request.Request(url, headers={"User-Agent": "hexapla"})  # noqa: S310 - just checked
    digest = hashlib.sha256()
    # Not `urlopen`, which reads the proxies once and for all.
    with (
        urllib.request.build_opener().open(request, timeout=TIMEOUT) as answer,
        cache.atomic_file(path) as new,
    ):
        if not fetchable(answer.url):
            raise UserError(f"{shown(url)}: leads to {shown(answer.url)}, which is not https")
        length = int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(total=length or None, desc=path.name, unit="B", unit_scale=True, disable=None)
        with bar, new.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
            got = file.tell()
        if length and got != length:
            raise http.client.HTTPException(f"cut off after {got:,} of {length:,} bytes")
        if sha256 and digest.hexdigest() != sha256:
            raise UserError(
                f"{shown(url)}: has sha256 {digest.hexdigest()}, not {sha256}; nothing was kept, since it is "
                "another file than the one that was meant"
            )
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    inner: Any = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)


def snapshot(dataset: str, revision: str, patterns: Sequence[str], *, advice: str = "") -> Path:
    """The hub's cache folder that holds the files of a dataset which fit `patterns`, fetched if need be.

    Raises:
        UserError: the hub can't be reached, or dataset or revision is unknown.
    """
    from huggingface_hub import snapshot_download  # takes a while, and few need it

    try:
        return Path(
            snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
        )
    # Whatever a network and a hub may raise; nothing of ours runs in this block. Only its kind is shown:
    # messages may quote addresses with signatures in them.
    except Exception as error:
        kind = type(error).__name__
        raise UserError(
            f"{dataset}@{revision}: can't be fetched from the hub ({_HUB.get(kind, kind)}); "
            f"{advice or 'check id, revision and network'}"
        ) from None


# --- commits -------------------------------------------------------------------------------------


def is_commit(revision: str) -> bool:
    """Tell whether a revision names the same files for ever; branches, tags and pull requests may move."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def advise_commit(kind: Kind, repository: str, revision: str, commit: str = "") -> str:
    """Say what to name in place of a revision that may move, and its `commit` where that is known."""
    if commit:
        return f"'{revision}' may move; take the commit that it points to now, {commit}"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    return f"'{revision}' may move; take a commit (40 hexadecimal digits) from {page}/commits/{quote(revision, '')}"


def find_commit(kind: Kind, repository: str, revision: str) -> str:
    """Ask the hub which commit a branch, a tag or a pull request points to now.

    Raises:
        UserError: the hub can't be reached, or knows no such repository or revision.
    """
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=TIMEOUT)
    except Exception as error:  # as in `snapshot`
        name = type(error).__name__
        raise UserError(
            f"{repository}@{revision}: the hub does not tell its commit ({_HUB.get(name, name)})"
        ) from None
    return str(info.sha)


def require_commit(label: str, kind: Kind, repository: str, revision: str) -> None:
    """Raise UserError, which names the commit where the hub tells it, if `revision` may move."""
    if is_commit(revision):
        return
    try:
        commit = find_commit(kind, repository, revision)
    except UserError:
        commit = ""
    raise UserError(f"{label}: {advise_commit(kind, repository, revision, commit)}")


# --- addresses -----------------------------------------------------------------------------------


def fetchable(url: str) -> bool:
    """Whether by https, or by http on this machine, where nobody listens in."""
    address = urlsplit(url)
    return address.scheme == "https" or (
        address.scheme == "http" and address.hostname in ("127.0.0.1", "localhost")
    )


def shown(url: str) -> str:
    """An address fit for logs and messages: without user, password and query, which may hold secrets."""
    address = urlsplit(url)
    return address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()
