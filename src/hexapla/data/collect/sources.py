"""Sources of question-passage pairs: each kind reads its rows, with a place to name when one is wrong.

A new kind of source is one function that yields rows and one entry in `READERS`. Memory does not grow with a
source, except for SQuAD's JSON, which is one value. Public corpora have names, which `presets.yaml` lists.
"""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hexapla.config import (
    FilesSource,
    HubSource,
    PresetSource,
    SampleSource,
    Source,
    SqlSource,
    TmxSource,
)  # fmt: skip
from hexapla.config.reading import fields
from hexapla.data.collect import databases
from hexapla.data.collect.rows import FORMAT
from hexapla.io import download, hashing, readers
from hexapla.io.readers import Row, Skip
from hexapla.schema import SOURCE_LANGUAGE, UserError, first_line, suggest
from hexapla.text import sentences

# --- presets -------------------------------------------------------------------------------------


class CorpusPreset(NamedTuple):
    """A public corpus; `presets.yaml` explains the fields."""

    license: str
    note: str
    hub: str = ""
    config: str = ""
    revision: str = ""
    split: str = "train"
    path: str = ""
    columns: Mapping[str, str] = {}
    where: Mapping[str, str] = {}
    rows: int = 0
    """Pairs of the split, roughly; 0 where the number is not known."""
    megabytes: int = 0
    languages: tuple[str, ...] = (SOURCE_LANGUAGE,)
    loadable: bool = True


@cache
def load_presets() -> dict[str, CorpusPreset]:
    """Return the public corpora by the names that `preset:` takes."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text())
    return {
        name: CorpusPreset(**{**entry, "languages": tuple(entry.get("languages", (SOURCE_LANGUAGE,)))})
        for name, entry in entries.items()
    }


def resolve_preset(source: Source) -> Source:
    """Return the source itself, or, for a preset, the hub's dataset with the settings that the user added.

    Raises:
        UserError: the name is unknown, or its corpus can't be loaded; the message says what to do instead.
    """
    if not isinstance(source, PresetSource):
        return source
    name = source.preset
    presets = load_presets()
    if name not in presets:
        raise UserError(f"collect.sources: preset '{name}' is unknown; {suggest(name, presets)}")
    preset = presets[name]
    if not preset.loadable:
        raise UserError(f"collect.sources: preset '{name}' can't be loaded: {preset.note}")
    if not preset.revision:
        raise UserError(
            f"collect.sources: no commit is known of preset '{name}'; take kind 'hub' with dataset "
            f"{preset.hub} and a `revision` of https://huggingface.co/datasets/{preset.hub}/commits/main"
        )
    split = source.split if source.split != "train" else preset.split
    settings = {key: getattr(source, key) for key in fields(Source)}
    settings |= {
        "name": source.title,
        "columns": {**preset.columns, **source.columns},
        "where": {**preset.where, **source.where},
        "languages": source.languages or (() if preset.languages == (SOURCE_LANGUAGE,) else preset.languages),
    }
    return HubSource(
        dataset=preset.hub,
        config=source.config or preset.config,
        revision=preset.revision,
        split=split,
        path=preset.path.replace("{split}", split),
        **settings,
    )


def pin_revision(source: Source) -> Source:
    """Return the source itself, or, for a branch or tag that may be read, the source with its commit of now.

    Raises:
        UserError: a dataset of the hub has no commit, and the source does not allow that; or the hub does not tell.
    """
    if not isinstance(source, HubSource) or _is_folder(source.dataset) or download.is_commit(source.revision):
        return source
    if not source.allow_unpinned:
        advice = download.advise_commit("dataset", source.dataset, source.revision)
        raise UserError(
            f"collect.sources: '{source.title}': revision: {advice}, or say `allow_unpinned: true`, which the "
            "summary then tells"
        )
    commit = download.find_commit("dataset", source.dataset, source.revision)
    return dataclasses.replace(source, revision=commit)


# --- any source ----------------------------------------------------------------------------------


def read_rows(source: Source, sample: Path, skip: int = 0) -> Iterator[Row]:
    """Yield the source's raw rows after the first `skip`, each with the place to name when it is wrong.

    Args:
        source: no preset; `resolve_preset` turns that into a dataset of the hub.
        sample: the folder of the shipped sample.
        skip: the number of rows to pass over, as cheaply as the source allows.

    Raises:
        UserError: nothing is there, or it can't be read; the message names file and row.
    """
    return READERS[type(source)](source, sample, skip)


def fingerprint(source: Source, sample: Path) -> str | None:
    """Return a hash (64 hex digits) that changes when the source may give other pairs; None if nobody can tell.

    Databases may change at any time, and so may a branch or a tag on the hub: only a commit stays.
    """
    if isinstance(source, SqlSource):
        return None
    if isinstance(source, HubSource) and not _is_folder(source.dataset):
        if not download.is_commit(source.revision):
            return None
        content = ""
    elif isinstance(source, HubSource):
        content = hashing.sha256(Path(source.dataset).expanduser())
    else:
        paths = (
            find_files(source.path) if isinstance(source, FilesSource | TmxSource) else [_sample_file(sample)]
        )
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path}: not found")
        content = " ".join(map(hashing.sha256, paths))
    settings = dataclasses.asdict(source)
    if not isinstance(source, HubSource):
        settings.pop("path", None)  # the same files may be in another place
    settings.pop("allow_unpinned", None)  # it says nothing of the pairs
    settings |= {"name": source.title, "content": content, "format": FORMAT}
    settings["unicode"] = unicodedata.unidata_version
    if source.cut_passages:
        settings["sentences"] = sentences.identity()
    return hashing.key(settings)


def find_files(path: str) -> list[Path]:
    """Return one file, or all that a glob pattern matches, in order of name; raise UserError if there are none."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{path}: is a folder; name a file, or a pattern such as {path.rstrip('/')}/*.jsonl")
    if file.is_file() or not set(path) & set("*?["):
        return [file]
    anchor = Path(file.anchor)
    matches = sorted(match for match in anchor.glob(str(file.relative_to(anchor))) if match.is_file())
    if not matches:
        raise UserError(f"{path}: no file matches this pattern")
    return matches


# --- the sample, files, the hub ------------------------------------------------------------------


def _read_sample(source: SampleSource, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - every kind has this signature
    """Yield the English rows of a parallel sample, `<folder>/pairs/en.jsonl`."""
    return readers.read_rows(_sample_file(sample), "jsonl", Skip(skip))


def _sample_file(sample: Path) -> Path:
    return sample / "pairs" / f"{SOURCE_LANGUAGE}.jsonl"


def _read_files(source: FilesSource, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    left = Skip(skip)
    for file in find_files(source.path):
        kind = readers.format_of(file) if source.format == "auto" else source.format
        if kind == "squad" and source.columns:
            raise UserError(f"{file}: SQuAD's JSON has its own names; leave `columns` out for it")
        yield from readers.read_rows(file, kind, left)


def _read_hub(source: HubSource, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    """Stream a dataset of the hub, or a local folder in the hub's layout.

    No code of the dataset runs, because `datasets` 4 and later reads data files only. `path` names the files to
    read where the dataset does not say so itself.
    """
    dataset = source.dataset
    if _is_folder(dataset):
        dataset = str(Path(dataset).expanduser())
        if not Path(dataset).is_dir():
            raise UserError(f"dataset '{source.dataset}': no such folder")
    import datasets

    def open_stream() -> Any:
        return datasets.load_dataset(
            dataset,
            source.config or None,
            revision=source.revision,
            split=source.split,
            streaming=True,
            **({"data_files": {source.split: source.path}} if source.path else {}),
        )

    where = f"dataset '{source.dataset}', split '{source.split}'"
    try:
        try:
            stream = open_stream()
        except Exception as error:
            if _is_folder(source.dataset) or not download.explain_failure(error, "dataset", dataset).passing:
                raise
            stream = download.ask_hub(open_stream, where, "dataset", source.dataset)
        for number, row in enumerate(stream.skip(skip) if skip else stream, skip + 1):
            yield f"{source.dataset} ({source.split}), row {number}", row
    # A network, a hub and a dozen file readers may raise anything; none of our own code runs in this block.
    except UserError:
        raise
    except Exception as error:
        failure = download.explain_failure(error, "dataset", source.dataset)
        if failure.cure and not _is_folder(source.dataset):
            raise UserError(f"{where}: can't be read ({failure.reason}); {failure.cure}") from None
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{where}: can't be read ({why}); check dataset, config, revision, split and network"
        ) from None


def _is_folder(dataset: str) -> bool:
    return dataset.startswith((".", "/", "~"))


# --- translation memories ------------------------------------------------------------------------

_TMX_PARTS = ("question", "passage", "answer")


def _read_tmx(source: TmxSource, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    """Yield a row a language, English first, from TMX files whose units are named after the parts of a pair.

    `tuid` is `<id>/question`, `<id>/passage` or, where there is one, `<id>/answer`; the units of an id follow
    one another.
    """
    return islice(_read_all_tmx(source.path), skip, None)


def _read_all_tmx(path: str) -> Iterator[Row]:
    for file in find_files(path):
        for own, units in groupby(map(_parse_unit, readers.read_units(file)), key=lambda unit: unit[1]):
            rows: dict[str, dict[str, str]] = {}
            where = str(file)
            for place, _, part, texts in units:
                where = place
                for lang, text in texts.items():
                    rows.setdefault(lang, {})[part] = text
            complete = [lang for lang, row in rows.items() if row.keys() >= {"question", "passage"}]
            if SOURCE_LANGUAGE not in complete:
                raise UserError(
                    f"{where}: '{own}' has no English question and passage side by side; bring the units of "
                    "an id together"
                )
            for lang in sorted(complete, key=lambda lang: lang != SOURCE_LANGUAGE):
                yield where, {"id": own, "lang": lang, "answer": "", **rows[lang]}


def _parse_unit(unit: tuple[str, str, dict[str, str]]) -> tuple[str, str, str, dict[str, str]]:
    """Return a unit's place, its pair's id, its part of the pair, and its texts by language."""
    where, name, texts = unit
    own, _, part = name.rpartition("/")
    if not own or part not in _TMX_PARTS:
        raise UserError(f"{where}: tuid is '{name}', wants <id>/question, <id>/passage or <id>/answer")
    return where, own, part, texts


# --- databases -----------------------------------------------------------------------------------


def _read_sql(source: SqlSource, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    address = databases.find_address(source)
    return islice(databases.read_database(address, source.query, source.title), skip, None)


READERS: dict[type[Source], Callable[[Any, Path, int], Iterator[Row]]] = {
    SampleSource: _read_sample,
    FilesSource: _read_files,
    HubSource: _read_hub,
    SqlSource: _read_sql,
    TmxSource: _read_tmx,
}
