"""Files over the network, from a URL or the hub: checked before they take their place, whole or not there."""

import errno
import hashlib
import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from hexapla.io import cache, hashing
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

Result = TypeVar("Result")


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


# --- the hub -------------------------------------------------------------------------------------


class HubFailure(NamedTuple):
    """Why the hub did not give what it was asked for."""

    reason: str
    cure: str = ""
    """What the user can do; empty where only the general advice is known."""
    passing: bool = False
    """Whether it may work the next moment."""


def explain_failure(error: BaseException, kind: Kind, repository: str) -> HubFailure:
    """Find the real cause of an error of the hub's clients, which hide it behind their own.

    Only kinds of errors and statuses are told: messages may quote addresses with signatures in them.
    """
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    login = "`hf auth login` or HF_TOKEN"
    chain = _chain(error)
    names = [{base.__name__ for base in type(each).__mro__} for each in chain]
    known = {
        "GatedRepoError": HubFailure(
            "its owner asks for a login and consent first", f"agree at {page}, and log in by {login}"
        ),
        "RepositoryNotFoundError": HubFailure(
            f"no such {kind}, or it needs a login", f"check the id, or log in by {login}"
        ),
        "RevisionNotFoundError": HubFailure("no such revision", f"take a commit from {page}/commits/main"),
        "ProxyError": HubFailure("the proxy refuses", "check HTTPS_PROXY and NO_PROXY"),
        "TimeoutException": HubFailure(
            "no answer in time",
            "try again, or give it longer by HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT",
            passing=True,
        ),
        "ConnectError": HubFailure(
            "the hub can't be reached", "check the network and HF_ENDPOINT", passing=True
        ),
        "TransportError": HubFailure(
            "the connection was cut off", "run this again, and it goes on", passing=True
        ),
    }
    for each, kinds in zip(chain, names, strict=True):
        for name, failure in known.items():
            if name in kinds:
                return failure
        if "HfHubHTTPError" in kinds and (status := _status(each)):
            return _explain_status(status, login)
        if "Consistency check failed" in str(each):
            return HubFailure("a file was cut off", "run this again", passing=True)
        if isinstance(each, OSError) and each.errno == errno.ENOSPC:
            return HubFailure("no space left on the disk", "make room, or set HF_HOME to another disk")
    if any("DatasetNotFoundError" in kinds for kinds in names):
        # `datasets` does not tell the cause of this error, but words it.
        return known["GatedRepoError" if "is a gated dataset" in str(error) else "RepositoryNotFoundError"]
    if any("LocalEntryNotFoundError" in kinds for kinds in names):
        return HubFailure("not in the local cache; the hub can't be reached, or HF_HUB_OFFLINE is set")
    if any("OfflineModeIsEnabled" in kinds for kinds in names):
        return HubFailure("HF_HUB_OFFLINE is set")
    return HubFailure(type(error).__name__)


def _chain(error: BaseException) -> list[BaseException]:
    """List an error and what it was raised from, the outermost first."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    return chain


def _status(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _explain_status(status: int, login: str) -> HubFailure:
    reason = f"HTTP {status}"
    if status in (401, 403):
        return HubFailure(f"{reason}: access is refused", f"log in by {login}, with a token that may read it")
    if status == 429:
        return HubFailure(
            f"{reason}: too many requests", f"wait some minutes; with a login ({login}) more are allowed"
        )
    if status >= 500:
        return HubFailure(f"{reason}: the hub fails", "try again later", passing=True)
    return HubFailure(reason)


def ask_hub(
    function: Callable[[], Result], label: str, kind: Kind, repository: str, *, advice: str = ""
) -> Result:
    """Call `function`, which asks the hub, in three tries where another one may help.

    Args:
        function: calls a client of the hub, and runs nothing of ours that may fail.
        label: what messages call the thing that is fetched.
        kind: what the repository holds.
        repository: its id.
        advice: what else the user can do when it fails.

    Raises:
        UserError: it failed; one line tells cause and cure.
    """
    for pause in (*PAUSES, None):
        try:
            return function()
        except Exception as error:  # whatever a network and a hub may raise
            failure = explain_failure(error, kind, repository)
        if pause is None or not failure.passing:
            break
        _log.info("%s: %s; trying again", label, failure.reason)
        time.sleep(pause)
    cures = [cure for cure in (failure.cure, advice) if cure] or ["check id, revision and network"]
    raise UserError(f"{label}: can't be fetched from the hub ({failure.reason}); {'; '.join(cures)}")


def snapshot(
    repository: str,
    revision: str,
    patterns: Sequence[str],
    *,
    kind: Kind = "dataset",
    label: str = "",
    advice: str = "",
) -> Path:
    """The hub's cache folder that holds the files of a repository which fit `patterns`, fetched if need be.

    Files that were fetched just now are checked against the hashes that the hub tells.

    Raises:
        UserError: the hub can't be reached, or repository or revision is unknown, or files arrive broken.
    """
    from huggingface_hub import snapshot_download  # takes a while, and few need it

    label = label or f"{repository}@{revision}"

    def fetch() -> Path:
        return Path(
            snapshot_download(repository, repo_type=kind, revision=revision, allow_patterns=list(patterns))
        )

    for _ in range(len(PAUSES) + 1):
        # File systems may tell times in whole seconds.
        start = time.time() - 2
        folder = ask_hub(fetch, label, kind, repository, advice=advice)
        if not (broken := find_broken(folder, since=start)):
            return folder
        for file in broken:  # it came just now, and would be taken for good the next time
            file.unlink()
    raise UserError(
        f"{label}: arrives broken, since its hash is not the hub's, and was not kept ({broken[0].name}); try again "
        "later, or without the proxy"
    )


def find_broken(folder: Path, since: float = 0.0) -> list[Path]:
    """List the files of the hub's cache that a snapshot links to and whose hash is not the one that they are named by.

    They are called by SHA-256, or by Git's hash where the hub keeps a file in Git itself. Files that were written
    before `since` are not looked at.
    """
    broken = []
    for file in sorted(folder.rglob("*")):
        blob = file.resolve()
        if not file.is_file() or blob.parent.name != "blobs" or blob.stat().st_mtime < since:
            continue
        if len(blob.name) == 64:
            got = hashing.sha256(blob)
        else:
            data = blob.read_bytes()
            got = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if got != blob.name:
            broken.append(blob)
    return broken


@contextmanager
def blame_broken_files(folder: Path) -> Iterator[None]:
    """Say of a folder of the hub's cache that can't be read which of its files is broken, and what to do."""
    try:
        yield
    except UserError as error:
        if broken := find_broken(folder):
            raise UserError(f"{error}; delete {broken[0]}, which is broken, and run this again") from None
        raise


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

    def ask() -> Any:
        return HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=TIMEOUT).sha

    return str(ask_hub(ask, f"{repository}@{revision}", kind, repository))


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
