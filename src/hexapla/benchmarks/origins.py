"""Where a benchmark's files come from: a folder, a URL or the hub, with presets looked up.

Two runs that name the same origin get the same bytes. So the hub wants a commit, and a URL a checksum for
each file; what does not fit is refused by its key in `params.yaml`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from hexapla.benchmarks.presets import PRESETS
from hexapla.strict import hint


class Origin(NamedTuple):
    """One of `path`, `url` and `hub` is not empty."""

    path: str = ""
    url: str = ""
    """Of one language's file, with `{lang}`."""
    hub: str = ""
    revision: str = ""
    format: str = "auto"
    """`lareqa`, `miracl`, or `auto`: told by what the folder holds."""
    languages: tuple[str, ...] = ()
    """What to bring; () is all. In LAReQA format all always come, since `validate` looks for each."""
    sha256: Mapping[str, str] = {}
    """By language, or by the file's path within the benchmark."""
    licence: str = ""

    def __str__(self) -> str:
        return f"{self.hub}@{self.revision}" if self.hub else shown(self.url) or self.path


def shown(url: str) -> str:
    """An address fit for logs and messages: without user, password and query, where secrets stand."""
    address = urlsplit(url)
    return address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()


def checked(preset: str, origin: Origin) -> Origin:
    """`origin` as `params.yaml` has it, with the preset's fields filled in.

    Raises:
        ValueError: "key: why" for what does not fit.
    """
    given = {"preset": preset, "path": origin.path, "url": origin.url, "hub": origin.hub}
    kinds = [key for key, value in given.items() if value]
    if len(kinds) != 1:
        got = " and ".join(kinds) if kinds else "none"
        raise ValueError(f"{kinds[-1] if kinds else 'path'}: wants one of {', '.join(given)}; got {got}")
    for key, digest in origin.sha256.items():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"sha256.{key}: wants 64 hexadecimal digits, as `sha256sum` prints them")
    if preset:
        return _preset(preset, origin)
    return _CHECKS[kinds[0]](origin)


def _preset(name: str, origin: Origin) -> Origin:
    if not (known := PRESETS.get(name)):
        raise ValueError(f"preset: there is no '{name}'; {hint(name, PRESETS)}")
    for key in ("revision", "format"):
        if getattr(origin, key) not in ("", "auto"):
            raise ValueError(f"{key}: the preset brings its own; leave it out")
    for lang in origin.languages:
        if lang not in known.languages:
            raise ValueError(f"languages: '{lang}' is not in {name}, which has {', '.join(known.languages)}")
    for key, digest in origin.sha256.items():
        if known.sha256.get(_lang(key), digest) != digest:
            raise ValueError(f"sha256.{key}: the preset has another one; leave it out")
    if known.url:
        _refuse_strangers(origin.sha256, known.languages)
    chosen = origin.languages if known.format == "miracl" and origin.languages else known.languages
    return origin._replace(
        url=known.url, hub=known.hub, revision=known.revision, format=known.format, languages=chosen,
        sha256={**known.sha256, **origin.sha256}, licence=known.licence,
    )  # fmt: skip


def _path(origin: Origin) -> Origin:
    if origin.revision:
        raise ValueError("revision: only what comes from the hub has one; leave it out")
    return origin


def _url(origin: Origin) -> Origin:
    if origin.revision or origin.format == "miracl":
        key = "revision" if origin.revision else "format"
        raise ValueError(f"{key}: a url brings <lang>.json files in LAReQA format; leave it out")
    if origin.url.count("{lang}") != 1:
        raise ValueError("url: wants {lang} once, where the language stands: https://…/{lang}.json")
    if not fetchable(origin.url):
        raise ValueError("url: wants https://…; for files on this machine give `path:`")
    if "@" in urlsplit(origin.url).netloc:
        raise ValueError("url: holds a user or a password; fetch the files yourself and give `path:`")
    languages = tuple(dict.fromkeys(map(_lang, origin.sha256)))
    missing = [lang for lang in origin.languages if lang not in languages]
    if missing or not languages:
        lacking = ", ".join(missing) or "every language"
        raise ValueError(
            f"sha256: a url needs one for each language, against other bytes; missing: {lacking}"
        )
    return origin._replace(format="lareqa", languages=languages)


def fetchable(url: str) -> bool:
    """Whether by https, or by http on this machine, where nobody listens in."""
    address = urlsplit(url)
    return address.scheme == "https" or (
        address.scheme == "http" and address.hostname in ("127.0.0.1", "localhost")
    )


def _hub(origin: Origin) -> Origin:
    if origin.hub.count("/") != 1:
        raise ValueError(f"hub: wants a dataset's id, owner/name; got '{origin.hub}'")
    if not re.fullmatch("[0-9a-f]{40}", origin.revision):
        got = (
            f"got '{origin.revision}', which may move"
            if origin.revision
            else "without it the data may change"
        )
        raise ValueError(f"revision: wants a commit (40 hexadecimal digits); {got}")
    return origin


_CHECKS: dict[str, Callable[[Origin], Origin]] = {"path": _path, "url": _url, "hub": _hub}


def _lang(key: str) -> str:
    """Checksums may be given by language or by file name."""
    return key.removesuffix(".json")


def _refuse_strangers(sha256: Mapping[str, str], languages: Sequence[str]) -> None:
    for key in sha256:
        if _lang(key) not in languages:
            raise ValueError(f"sha256.{key}: no such file; languages are {', '.join(languages)}")
