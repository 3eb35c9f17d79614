"""Known benchmarks, and how every configured one is brought here from wherever it is.

Two runs that name the same origin get the same bytes. So the hub needs a commit, and a URL a checksum for each
file. An address with a commit in it names the same bytes forever, as far as one trusts the host; a checksum
needs no trust. XQuAD-R has both. MLQA-R and MIRACL are pinned by commit alone: `collect` prints the checksums
of what it downloads and keeps them in its summary, and `sha256:` next to `preset:` pins them from then on.

Downloads stay in `cache.cache_root()/benchmarks`, a folder an origin, so neither a rerun nor a failure of
another benchmark fetches them again. To add a benchmark, add an entry to `PRESETS`.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from hexapla.benchmarks import lareqa, miracl
from hexapla.config import Benchmark, FolderBenchmark, HubBenchmark, PresetBenchmark, UrlBenchmark
from hexapla.io import cache, download, hashing
from hexapla.schema import UserError, suggest

_log = logging.getLogger(__name__)


class BenchmarkPreset(NamedTuple):
    """A public benchmark: its address, its commit and its license."""

    format: str
    """`lareqa` or `miracl`."""
    languages: tuple[str, ...]
    license: str
    paper: str
    megabytes: int
    """Roughly, to download."""
    url: str = ""
    """The address of one language's file, with `{lang}`; or empty."""
    hub: str = ""
    """A dataset of the hub, in MTEB's layout; or empty."""
    revision: str = ""
    sha256: Mapping[str, str] = {}
    """Checksums by language."""


_LAREQA = "https://raw.githubusercontent.com/google-research-datasets/lareqa"

_XQUAD_R = BenchmarkPreset(
    format="lareqa",
    languages=("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"),
    license="CC BY-SA 4.0",
    paper="arXiv 2004.05484",
    megabytes=18,
    url=f"{_LAREQA}/5405d2a77e83d5ccb47623a3f9e5604c3f103193/xquad-r/{{lang}}.json",
    sha256={
        "ar": "c52922d3b8ac1ae03ed5ac38647ad59870dca3dda2beefe18ecdc30729acb69d",
        "de": "16fb0f4bf4916154b585a20c24c66074591c9718a1affe764ff4697572328949",
        "el": "163fd43ee785a30eb534ae2061e9eaa766a7ee4e8ffce5e4b422480c150f64b6",
        "en": "7b0954f39297c27a31fef610f0883337dd2907fa8699151dc922afdd0fa12ffe",
        "es": "f8e836b2d91009c4363e04315f7ede363eedbbb49c67dda60de6c4aa782f58de",
        "hi": "ea45ba8ae4513d1533b222bebdc02a90bc319c055d3aeea68584a053d2e92872",
        "ru": "7f4dff853538b9a5fcc28c070b8bb983a5c5d190ac747b8e005a1ada9cab18f1",
        "th": "c3a041864c3a9fb0b4dd91cfdf99cf36b411b3e704c58a303c97bc6dc786cfe4",
        "tr": "f3e8c13002bbce154a4578f535f7533cb70f3da08840e6b62735935baec7bd94",
        "vi": "e35926bf5cc6fc6ecbdfca49467aabeb454f08d152d7818143a906bd31dde995",
        "zh": "80c2cde7b9c2fb134c303cbb52f2ba396ead9eb0014aec43993543d2ba9e93ed",
    },
)

_MLQA_R = BenchmarkPreset(
    format="lareqa",
    languages=("ar", "de", "en", "es", "hi", "vi", "zh"),
    license="CC BY-NC 4.0",
    paper="arXiv 2004.05484",
    megabytes=14,
    url=f"{_LAREQA}/354d67d1cd066854cdfbf5ad0e6105528976141d/mlqa-r/{{lang}}.json",
)

# Megabytes of Parquet for each language: the whole Wikipedia (from the dataset's card), and the passages that
# BM25 and two dense retrievers rank highest (Enevoldsen et al. 2025, arXiv 2502.13595; estimated by number).
# The latter have at most 1,000 queries a language, and bn, sw and yo keep their whole corpora.
_MIRACL = {
    "ar": (548, 51), "bn": (111, 111), "de": (4155, 19), "en": (7975, 43), "es": (2570, 36), "fa": (474, 29),
    "fi": (439, 45), "fr": (3091, 16), "hi": (176, 22), "id": (271, 31), "ja": (1667, 44), "ko": (361, 10),
    "ru": (2768, 64), "sw": (17, 17), "te": (150, 30), "th": (202, 44), "yo": (5, 5), "zh": (1092, 18),
}  # fmt: skip


def _miracl(languages: tuple[str, ...]) -> BenchmarkPreset:
    return BenchmarkPreset(
        format="miracl",
        languages=languages,
        license="CC BY-SA 4.0",
        paper="arXiv 2210.09984",
        megabytes=sum(_MIRACL[lang][0] for lang in languages),
        hub="mteb/MIRACLRetrieval",
        revision="9c09abc13478308c27598f350e31d8f06b9b5481",
    )


def _miracl_hard(languages: tuple[str, ...]) -> BenchmarkPreset:
    return _miracl(languages)._replace(
        megabytes=sum(_MIRACL[lang][1] for lang in languages),
        hub="mteb/MIRACLRetrievalHardNegatives",
        revision="332a9acb49f5e83d5397683f79d23e588f685916",
    )


PRESETS: dict[str, BenchmarkPreset] = {
    "xquad-r": _XQUAD_R,
    "mlqa-r": _MLQA_R,
    "miracl": _miracl(tuple(_MIRACL)),
    **{f"miracl-{lang}": _miracl((lang,)) for lang in _MIRACL},
    "miracl-hard": _miracl_hard(tuple(_MIRACL)),
    **{f"miracl-hard-{lang}": _miracl_hard((lang,)) for lang in _MIRACL},
}
"""MIRACL has 18 languages with a corpus each, so they can be taken together or one by one."""

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


class Origin(NamedTuple):
    """Where a benchmark's files come from: one of `path`, `url` and `hub` is not empty."""

    path: str = ""
    url: str = ""
    """The address of one language's file, with `{lang}`."""
    hub: str = ""
    revision: str = ""
    branch: str = ""
    """The branch or tag that was named in place of a commit."""
    format: str = "auto"
    """`lareqa`, `miracl`, or `auto`: recognized by what the folder holds."""
    languages: tuple[str, ...] = ()
    """The languages to fetch; () is all. LAReQA format always brings all, since `validate` looks for each."""
    sha256: Mapping[str, str] = {}
    """Checksums by language, or by the file's path within the benchmark."""
    license: str = ""

    def __str__(self) -> str:
        return f"{self.hub}@{self.revision}" if self.hub else download.shown(self.url) or self.path


class LocalBenchmark(NamedTuple):
    """A benchmark on this machine."""

    name: str
    folder: Path
    """The user's own, or one in the cache: not to be changed."""
    format: str
    """`lareqa` or `miracl`."""
    languages: tuple[str, ...]
    """The languages to evaluate."""
    passage_unit: str
    files: tuple[str, ...]
    """Paths within the folder; in LAReQA format those of all languages."""
    origin: Origin


class CopiedFile(NamedTuple):
    sha256: str
    bytes: int


# --- from names to origins ------------------------------------------------------------------------


def look_up(text: str, configured: Sequence[Benchmark]) -> LocalBenchmark:
    """Fetch what a person means by `text`: a configured benchmark's name, else a preset, else a folder.

    Raises:
        UserError: it is none of them, and the message lists the choices; or as for `fetch`.
    """
    for benchmark in configured:
        if benchmark.name == text:
            return fetch(benchmark)
    if text in PRESETS:
        return fetch(PresetBenchmark(preset=text))
    if text and Path(text).is_dir():
        name = re.sub(r"[^0-9A-Za-z_-]+", "-", Path(text).resolve().name).strip("-")
        return fetch(FolderBenchmark(name=name or "folder", path=text))
    names = [benchmark.name for benchmark in configured]
    hint = suggest(text, [*names, *PRESETS])
    hint = f"{hint} " if hint.startswith("did") else ""
    raise UserError(
        f"benchmark '{text}': no such folder or name; {hint}"
        f"params.yaml has {', '.join(names) or 'none'}; presets are xquad-r, mlqa-r, miracl and miracl-hard, "
        "the last two also with a language: miracl-sw"
    )


def origin(benchmark: Benchmark) -> Origin:
    """Where the benchmark comes from, with a preset looked up.

    Raises:
        UserError: the preset is unknown, or what is given does not pin the files.
    """
    try:
        match benchmark:
            case PresetBenchmark():
                return _preset_origin(benchmark)
            case UrlBenchmark():
                return _url_origin(benchmark)
            case HubBenchmark():
                return Origin(
                    hub=benchmark.hub, revision=benchmark.revision, format=benchmark.format,
                    languages=benchmark.languages, sha256=benchmark.sha256,
                )  # fmt: skip
            case FolderBenchmark():
                return Origin(
                    path=benchmark.path, format=benchmark.format, languages=benchmark.languages,
                    sha256=benchmark.sha256,
                )  # fmt: skip
    except ValueError as error:
        raise UserError(f"benchmark '{benchmark.name}': {error}") from None
    raise TypeError(benchmark)


def _preset_origin(benchmark: PresetBenchmark) -> Origin:
    name = benchmark.preset
    if not (known := PRESETS.get(name)):
        raise ValueError(f"preset: there is no '{name}'; {suggest(name, PRESETS)}")
    for lang in benchmark.languages:
        if lang not in known.languages:
            raise ValueError(f"languages: '{lang}' is not in {name}, which has {', '.join(known.languages)}")
    for key, digest in benchmark.sha256.items():
        if known.sha256.get(_lang(key), digest) != digest:
            raise ValueError(f"sha256.{key}: the preset has another one; leave it out")
        if known.url and _lang(key) not in known.languages:
            raise ValueError(f"sha256.{key}: no such file; languages are {', '.join(known.languages)}")
    chosen = benchmark.languages if known.format == "miracl" and benchmark.languages else known.languages
    return Origin(
        url=known.url, hub=known.hub, revision=known.revision, format=known.format, languages=chosen,
        sha256={**known.sha256, **benchmark.sha256}, license=known.license,
    )  # fmt: skip


def _url_origin(benchmark: UrlBenchmark) -> Origin:
    if benchmark.url.count("{lang}") != 1:
        raise ValueError("url: wants {lang} once, in place of the language: https://…/{lang}.json")
    if not download.fetchable(benchmark.url):
        raise ValueError("url: wants https://…; for files on this machine give `path:`")
    if "@" in urlsplit(benchmark.url).netloc:
        raise ValueError("url: holds a user or a password; fetch the files yourself and give `path:`")
    languages = tuple(dict.fromkeys(map(_lang, benchmark.sha256)))
    missing = [lang for lang in benchmark.languages if lang not in languages]
    if missing or not languages:
        lacking = ", ".join(missing) or "every language"
        raise ValueError(
            f"sha256: a url needs one for each language, against other bytes; missing: {lacking}"
        )
    return Origin(url=benchmark.url, format="lareqa", languages=languages, sha256=benchmark.sha256)


def _lang(key: str) -> str:
    """Checksums may be given by language or by file name."""
    return key.removesuffix(".json")


# --- from origins to files ------------------------------------------------------------------------


def fetch(benchmark: Benchmark) -> LocalBenchmark:
    """The benchmark's folder, fetched if it is not here yet.

    Raises:
        UserError: it can't be fetched, or has another checksum; or it lacks a language or a file.
    """
    source, name = _pin(origin(benchmark)), benchmark.name
    folder = Path(source.path) if source.path else _fetch_into_cache(name, source)
    kind = lareqa.detect(folder)
    if source.format not in ("auto", kind):
        raise UserError(f"{folder}: in {kind} format, not {source.format}; mend `format:` or leave it out")
    if kind == "miracl" and benchmark.passage_unit != "sentence":
        raise UserError(
            f"benchmark '{name}': passage_unit: passages in MIRACL format have no context; leave it out"
        )
    held = lareqa.files(folder) if kind == "lareqa" else dict.fromkeys(miracl.languages(folder))
    languages = benchmark.languages or tuple(held)
    for lang in languages:
        if lang not in held:
            raise UserError(f"{folder}: language '{lang}' is missing; it holds {', '.join(held)}")
    files = tuple(_matching(folder, _patterns("miracl", languages)))
    if kind == "lareqa":
        files = tuple(f"{lang}.json" for lang in held)
    _refuse_gaps(folder, files)
    if source.path or source.hub:
        _verify(folder, files, source)
    return LocalBenchmark(name, folder, kind, languages, benchmark.passage_unit, files, source)


def _pin(origin: Origin) -> Origin:
    """Find the commit of a branch or tag, which the benchmark allows, so that what is cached is what was named."""
    if not origin.hub or download.is_commit(origin.revision):
        return origin
    commit = download.find_commit("dataset", origin.hub, origin.revision)
    return origin._replace(revision=commit, branch=origin.revision)


def copy(benchmark: LocalBenchmark, out: Path) -> dict[str, CopiedFile]:
    """Copy the benchmark's files to the folder `out`; no links, so that an edit there changes no cache.

    Raises:
        UserError: a file changed meanwhile.
    """
    copied = {}
    for name in benchmark.files:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(benchmark.folder / name, target)
        copied[name] = CopiedFile(hashing.sha256(target), target.stat().st_size)
        if copied[name].sha256 != (_expected(benchmark.origin, name) or copied[name].sha256):
            raise UserError(f"{benchmark.folder / name}: changed while it was read; run this again")
    return copied


def _fetch_into_cache(name: str, origin: Origin) -> Path:
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
                _link_or_copy(snapshot / file, scratch / file)
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


def _link_or_copy(source: Path, target: Path) -> None:
    """From the hub's cache into ours, which nobody edits either; a corpus may have gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


# --- files ---------------------------------------------------------------------------------------


def _patterns(kind: str, languages: Sequence[str]) -> list[str]:
    """Patterns of the files to take; in LAReQA format those of all languages."""
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
