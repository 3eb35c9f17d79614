"""Benchmarks brought here from wherever they lie, and found by what a person calls them.

What was fetched stays in `store.cache_root()/benchmarks`, a folder an origin, so that neither a rerun nor a
failure of another benchmark fetches it again. Files from the hub are in the hub's own cache as well; they
are hard links to those where the file system can, since a corpus may have gigabytes.
"""

import difflib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hexapla.benchmarks import lareqa as benchmarks
from hexapla.benchmarks import miracl
from hexapla.benchmarks.origins import Origin
from hexapla.benchmarks.presets import PRESETS
from hexapla.config import Benchmark
from hexapla.io import cache, download, hashing
from hexapla.schema import UserError

_log = logging.getLogger(__name__)

_LAREQA_FILES = ("{lang}.json",)
_MIRACL_FILES = (
    "miracl-v1.0-{lang}/topics/*-dev.tsv",
    "miracl-v1.0-{lang}/qrels/*-dev.tsv",
    "miracl-corpus-v1.0-{lang}/docs-*.jsonl.gz",
    "{lang}-corpus/*.parquet",
    "{lang}-queries/dev*.parquet",
    "{lang}-qrels/dev*.parquet",
)
_SHARD = re.compile(r"(.*-)(\d+)-of-(\d+)(\..*)")


class File(NamedTuple):
    sha256: str
    bytes: int


class Found(NamedTuple):
    """A benchmark on this machine."""

    name: str
    folder: Path
    """The user's own, or one in the cache: not to be changed."""
    format: str
    """`lareqa` or `miracl`."""
    languages: tuple[str, ...]
    """To judge."""
    candidate_text: str
    files: tuple[str, ...]
    """Relative to the folder; in LAReQA format those of all languages."""
    origin: Origin


def resolve(text: str, configured: Sequence[Benchmark]) -> Found:
    """What a person means by `text`: a configured benchmark's name, else a preset, else a folder.

    Raises:
        UserError: it is none of them, and the message lists the choices; or as for `find`.
    """
    for benchmark in configured:
        if benchmark.name == text:
            return find(benchmark)
    if text in PRESETS:
        return find(Benchmark(preset=text))
    if text and Path(text).is_dir():
        name = re.sub(r"[^0-9A-Za-z_-]+", "-", Path(text).resolve().name).strip("-")
        return find(Benchmark(name=name or "folder", path=text))
    names = [benchmark.name for benchmark in configured]
    near = difflib.get_close_matches(text, [*names, *PRESETS], n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(
        f"benchmark '{text}': no such folder or name; {hint}"
        f"params.yaml has {', '.join(names) or 'none'}; presets are xquad-r, mlqa-r, miracl and miracl-hard, "
        "the last two also with a language: miracl-sw"
    )


def find(benchmark: Benchmark) -> Found:
    """The benchmark's folder, fetched if it is not here yet.

    Raises:
        UserError: it can't be fetched, or has another checksum; or it lacks a language or a file.
    """
    origin, name = benchmark.origin, benchmark.name
    folder = Path(origin.path) if origin.path else _cached(name, origin)
    kind = benchmarks.detect(folder)
    if origin.format not in ("auto", kind):
        raise UserError(f"{folder}: in {kind} format, not {origin.format}; mend `format:` or leave it out")
    held = benchmarks.files(folder) if kind == "lareqa" else dict.fromkeys(miracl.languages(folder))
    languages = benchmark.languages or tuple(held)
    for lang in languages:
        if lang not in held:
            raise UserError(f"{folder}: language '{lang}' is missing; it holds {', '.join(held)}")
    files = tuple(_matching(folder, _patterns("miracl", languages)))
    if kind == "lareqa":
        files = tuple(f"{lang}.json" for lang in held)
    _refuse_gaps(folder, files)
    if origin.path or origin.hub:
        _verify(folder, files, origin)
    return Found(name, folder, kind, languages, benchmark.candidate_text, files, origin)


def place(found: Found, out: Path) -> dict[str, File]:
    """Bring the benchmark's files to the folder `out`.

    Raises:
        UserError: a file changed meanwhile.
    """
    placed = {}
    for name in found.files:
        target = out / name
        _copy(found.folder / name, target, link=bool(found.origin.hub))
        placed[name] = File(hashing.sha256(target), target.stat().st_size)
        if placed[name].sha256 != (_expected(found.origin, name) or placed[name].sha256):
            raise UserError(f"{found.folder / name}: changed while it was read; run this again")
    return placed


# --- the cache -----------------------------------------------------------------------------------


def _cached(name: str, origin: Origin) -> Path:
    parts = [origin.url, origin.hub, origin.revision, origin.format, *sorted(origin.languages)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    folder = cache.cache_root() / "benchmarks" / f"{name}-{key}"
    advice = f"check the network, or put the files into data/benchmarks/{name} and give that as `path:`"
    if origin.url:
        for lang in origin.languages:
            _fetch(origin, lang, folder / f"{lang}.json", advice)
    elif not folder.is_dir():
        patterns = _patterns(origin.format, origin.languages)
        snapshot = download.snapshot(origin.hub, origin.revision, patterns, advice=advice)
        if not (files := _matching(snapshot, patterns)):
            what = "LAReQA or MIRACL" if origin.format == "auto" else origin.format
            raise UserError(f"{origin}: holds no files in {what} format, or of other languages; check both")
        _refuse_gaps(snapshot, files)
        with cache.atomic_folder(folder) as scratch:
            for file in files:
                _copy(snapshot / file, scratch / file, link=True)
    return folder


def _fetch(origin: Origin, lang: str, path: Path, advice: str) -> None:
    wanted = _expected(origin, path.name)
    if path.is_file() and (not wanted or hashing.sha256(path) == wanted):
        return
    address = origin.url.replace("{lang}", lang)
    got = download.download(address, path, sha256=wanted, advice=advice)
    if not wanted:
        _log.warning(
            "%s: pinned by its address alone; got sha256 %s, which `sha256:` can pin from now on",
            path.name, got,
        )  # fmt: skip


def _copy(source: Path, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            target.hardlink_to(source.resolve())
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)


# --- files ---------------------------------------------------------------------------------------


def _patterns(kind: str, languages: Sequence[str]) -> list[str]:
    """Of the files to take; in LAReQA format those of all languages."""
    lareqa = [pattern.format(lang="??") for pattern in _LAREQA_FILES]
    judged = [pattern.format(lang=lang) for lang in languages or ["??"] for pattern in _MIRACL_FILES]
    return {"lareqa": lareqa, "miracl": judged, "auto": [*lareqa, *judged]}[kind]


def _matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    return sorted(
        {file.relative_to(folder).as_posix() for pattern in patterns for file in folder.glob(pattern)}
    )


def _refuse_gaps(folder: Path, files: Sequence[str]) -> None:
    for match in filter(None, map(_SHARD.fullmatch, files)):
        stem, _, count, end = match.groups()
        for number in range(int(count)):
            if (shard := f"{stem}{number:0{len(count)}d}-of-{count}{end}") not in files:
                raise UserError(f"{folder / shard}: missing, of {int(count)} such files; fetch it again")


def _expected(origin: Origin, name: str) -> str:
    return origin.sha256.get(name) or origin.sha256.get(name.removesuffix(".json"), "")


def _verify(folder: Path, files: Sequence[str], origin: Origin) -> None:
    known = {key for name in files for key in (name, name.removesuffix(".json"))}
    for key in origin.sha256:
        if key not in known:
            raise UserError(f"{folder}: sha256 is given for '{key}', which is not among its files")
    for name in files:
        wanted = _expected(origin, name)
        if wanted and (got := hashing.sha256(folder / name)) != wanted:
            raise UserError(f"{folder / name}: has sha256 {got}, not {wanted}; put the right file there")
