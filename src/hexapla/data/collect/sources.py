"""Named sources, each a stream of rows with a place to name; `pairs` turns rows into pairs.

A new kind of source is one function that yields rows, and one entry. Memory does not grow with a source,
but for SQuAD's JSON, which is one value.
"""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path

from hexapla import schema
from hexapla.config_data import Source
from hexapla.data.collect import cells, cutting, databases
from hexapla.data.collect import rows as rows_
from hexapla.data.collect.rows import Tally as Tally
from hexapla.data.collect.rows import content_digest as content_digest
from hexapla.data.collect.rows import pairs as pairs
from hexapla.io import cache, hashing, readers, tables
from hexapla.io.readers import Row, Skip
from hexapla.schema import SOURCE_LANGUAGE, UserError
from hexapla.text import languages, sentences

_TMX_PARTS = ("question", "passage", "answer")


def rows(source: Source, sample: Path, skip: int = 0) -> Iterator[Row]:
    """The source's rows but the first `skip`, as they are, each with the place to name when it is wrong.

    Args:
        source: one with a kind; `corpora.resolve` makes one of a preset.
        sample: the folder of the shipped sample.
        skip: rows to pass over, as cheaply as the source allows.

    Raises:
        UserError: nothing is there, or it can't be read; the message names file and row.
    """
    return READERS[source.kind](source, sample, skip)


def fingerprint(source: Source, sample: Path) -> str | None:
    """The same as long as the source gives the same pairs, 64 hex digits; None when that can't be known.

    Databases may change at any time, and so may a branch or a tag of the hub: only a commit stays.
    """
    if source.kind == "sql":
        return None
    if source.kind == "hub" and not _is_folder(source.dataset):
        if not re.fullmatch(r"[0-9a-f]{40}", source.revision):
            return None
        content = ""
    elif source.kind == "hub":
        content = hashing.sha256(Path(source.dataset).expanduser())
    else:
        paths = [_sample_file(sample)] if source.kind == "sample" else files(source.path)
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path}: not found")
        content = " ".join(map(hashing.sha256, paths))
    settings = dataclasses.asdict(source)
    if source.kind != "hub":
        del settings["path"]  # the same files may lie elsewhere
    settings |= {"name": source.title, "content": content, "code": _code()}
    if source.cut_passages:
        settings["sentences"] = sentences.identity()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """What rows become depends on it: other code makes all old that was kept of them."""
    own = sys.modules[__name__]
    modules = (own, rows_, cells, cutting, languages, readers, sentences, tables, schema, cache)
    return cache.code(*modules)


def files(path: str) -> list[Path]:
    """One file, or all that a glob pattern matches, in order of name; UserError when those are none."""
    one = Path(path).expanduser()
    if one.is_dir():
        raise UserError(f"{path}: is a folder; name a file, or a pattern such as {path.rstrip('/')}/*.jsonl")
    if one.is_file() or not set(path) & set("*?["):
        return [one]
    anchor = Path(one.anchor)
    found = sorted(file for file in anchor.glob(str(one.relative_to(anchor))) if file.is_file())
    if not found:
        raise UserError(f"{path}: no file matches this pattern")
    return found


def _sample_rows(source: Source, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - all kinds' signature
    """The English column of a parallel sample, `<folder>/pairs/en.jsonl`."""
    return readers.read_rows(_sample_file(sample), "jsonl", Skip(skip))


def _sample_file(sample: Path) -> Path:
    return sample / "pairs" / f"{SOURCE_LANGUAGE}.jsonl"


def _file_rows(source: Source, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    left = Skip(skip)
    for file in files(source.path):
        kind = readers.format_of(file) if source.format == "auto" else source.format
        if kind == "squad" and source.columns:
            raise UserError(f"{file}: SQuAD's JSON has its own names; leave `columns` out for it")
        yield from readers.read_rows(file, kind, left)


def _hub_rows(source: Source, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    """Streamed from a dataset of the hub, or from a local folder in the hub's layout.

    No code of the dataset's is run: `datasets` 4 and later reads data files only. `path` names those to
    read, where the dataset does not say it itself.
    """
    dataset = source.dataset
    if _is_folder(dataset):
        dataset = str(Path(dataset).expanduser())
        if not Path(dataset).is_dir():
            raise UserError(f"dataset '{source.dataset}': no such folder")
    import datasets  # takes seconds; only this source needs it

    try:
        stream = datasets.load_dataset(
            dataset,
            source.config or None,
            revision=source.revision,
            split=source.split,
            streaming=True,
            **({"data_files": {source.split: source.path}} if source.path else {}),
        )
        for number, row in enumerate(stream.skip(skip) if skip else stream, skip + 1):
            yield f"{source.dataset} ({source.split}), row {number}", row
    # Whatever a network, a hub and a dozen readers may raise; nothing of ours runs in this block.
    except Exception as error:
        why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
        raise UserError(
            f"dataset '{source.dataset}', split '{source.split}': can't be read ({why}); "
            "check dataset, config, revision, split and network"
        ) from None


def _is_folder(dataset: str) -> bool:
    return dataset.startswith((".", "/", "~"))


def _sql_rows(source: Source, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    return islice(databases.read(source.url, source.query, source.title), skip, None)


def _tmx_rows(source: Source, sample: Path, skip: int) -> Iterator[Row]:  # noqa: ARG001 - as above
    """A row a language, English first, of a TMX file whose units are named for what they are of a pair.

    `tuid` is `<id>/question`, `<id>/passage` or, where there is one, `<id>/answer`; the units of an id
    stand side by side.
    """
    return islice(_tmx_all(source.path), skip, None)


def _tmx_all(path: str) -> Iterator[Row]:
    for file in files(path):
        for own, units in groupby(map(_tmx_part, readers.read_units(file)), key=lambda unit: unit[1]):
            held: dict[str, dict[str, str]] = {}
            where = str(file)
            for place, _, part, texts in units:
                where = place
                for lang, text in texts.items():
                    held.setdefault(lang, {})[part] = text
            whole = [lang for lang, row in held.items() if row.keys() >= {"question", "passage"}]
            if SOURCE_LANGUAGE not in whole:
                raise UserError(
                    f"{where}: '{own}' has no English question and passage side by side; bring the units of "
                    "an id together"
                )
            for lang in sorted(whole, key=lambda lang: lang != SOURCE_LANGUAGE):
                yield where, {"id": own, "lang": lang, "answer": "", **held[lang]}


def _tmx_part(unit: tuple[str, str, dict[str, str]]) -> tuple[str, str, str, dict[str, str]]:
    where, name, texts = unit
    own, _, part = name.rpartition("/")
    if not own or part not in _TMX_PARTS:
        raise UserError(f"{where}: tuid is '{name}', wants <id>/question, <id>/passage or <id>/answer")
    return where, own, part, texts


READERS: dict[str, Callable[[Source, Path, int], Iterator[Row]]] = {
    "sample": _sample_rows,
    "files": _file_rows,
    "hub": _hub_rows,
    "sql": _sql_rows,
    "tmx": _tmx_rows,
}
