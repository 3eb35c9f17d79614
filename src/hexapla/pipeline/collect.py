"""Collect the pairs of every configured source into one table, and every configured benchmark into one folder."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hexapla.benchmarks import lareqa as suites
from hexapla.benchmarks import miracl, registry
from hexapla.benchmarks.registry import LocalBenchmark
from hexapla.config import (
    Benchmark,
    Collect,
    FilesSource,
    FolderBenchmark,
    HubSource,
    Source,
    SqlSource,
    TmxSource,
)
from hexapla.data.collect import databases, dedup, shards, sources
from hexapla.data.collect.dedup import RowFates
from hexapla.data.collect.shards import SourceShards
from hexapla.io import cache, tables
from hexapla.schema import SOURCE_LANGUAGE, UserError

_log = logging.getLogger(__name__)
_UNSAFE = re.compile(r"[^\w.-]+")
"""Characters that a source's name may have and a file's should not."""


def collect(
    collect: Collect,
    benchmarks: tuple[Benchmark, ...],
    *,
    sample: Path,
    out: Path,
    benchmarks_out: Path,
    summary: Path,
) -> None:
    """Write the pairs of all sources to one table, without exact and near duplicates, and bring every benchmark here.

    Of duplicates the first stays, in the order of the sources, with its rows in other languages.

    Args:
        collect: the section of params.yaml.
        benchmarks: the benchmarks of params.yaml.
        sample: the folder of the sample, which the source `sample` reads.
        out: the folder that gets the table, in parts of each source.
        benchmarks_out: the folder in which each benchmark becomes a folder of its name, for the later stages.
        summary: the JSON file that gets the counts.
    """
    _refuse_benchmarks_inside(benchmarks_out, benchmarks)
    resolved = [sources.resolve_preset(source) for source in collect.sources]
    _refuse_sources_inside((out, benchmarks_out), resolved)
    cache.check_outputs(out, benchmarks_out, summary)
    for source in resolved:
        if isinstance(source, SqlSource):
            databases.warn_of_password(source)
    named, resolved = resolved, [sources.pin_revision(source) for source in resolved]
    folders = [shards.find_folder(source, sample) for source in resolved]
    # Benchmarks come first, because mistakes in them show soon; what was fetched stays, whatever fails later.
    found = [registry.fetch(benchmark) for benchmark in benchmarks]
    sizes = [_count_texts(each) for each in found]
    with cache.scratch_folder("collect") as work:
        read = [
            shards.read_source(source, sample, folder or work / f"source-{number}")
            for number, (source, folder) in enumerate(zip(resolved, folders, strict=True))
        ]
        fates = _remove_duplicates(read, collect.near_duplicates, sample, work)
        languages = _write_pairs(read, fates, out, work)
    card = {
        "sources": {each.source.title: vars(each.counts) for each in read},
        "pairs": languages[SOURCE_LANGUAGE],
        "duplicates": sum(each.counts.duplicates for each in read),
        "near_duplicates": sum(each.counts.near_duplicates for each in read),
        "languages": dict(sorted(languages.items())),
        "benchmarks": _copy_benchmarks(found, sizes, benchmarks_out),
    }
    if unpinned := _describe_unpinned(named, resolved):
        card["unpinned"] = unpinned
    cache.write_json(summary, card)
    _log.info(
        "collected %s pairs; %s exact and %s near duplicates left out",
        *(f"{card[name]:,}" for name in ("pairs", "duplicates", "near_duplicates")),
    )


def _describe_unpinned(named: Sequence[Source], read: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Say of each source that was named by a branch or tag which commit of it was read."""
    return {
        source.title: {"dataset": source.dataset, "revision": source.revision, "commit": pinned.revision}
        for source, pinned in zip(named, read, strict=True)
        if isinstance(source, HubSource) and isinstance(pinned, HubSource) and source != pinned
    }


# --- pairs ---------------------------------------------------------------------------------------


def _remove_duplicates(
    read: Sequence[SourceShards], threshold: float, sample: Path, work: Path
) -> list[RowFates]:
    """Return the fates of each source's rows, and add them to its counts."""
    parts = [part for each in read for part in each.parts]
    fates = dedup.find_duplicates(parts, threshold, work, partial(shards.make_conflict_error, read, sample))
    by_source, start = [], 0
    for each in read:
        end = start + sum(map(tables.count_rows, each.parts))
        owners = fates.owners[start:end]
        own = RowFates(fates.fates[start:end], np.where(owners < 0, owners, owners - start))
        _count_fates(each, own)
        by_source.append(own)
        start = end
    return by_source


def _count_fates(read: SourceShards, fates: RowFates) -> None:
    """Add to the source's counts what became of its English rows, and of translations without one.

    Why a translation's English row is missing is not known, because nobody remembers the ids of rows that were left
    out.
    """
    english = fates.owners == np.arange(len(fates.owners))
    numbers = np.bincount(fates.fates[english], minlength=dedup.WITHOUT_ENGLISH + 1)
    read.counts.kept = int(numbers[dedup.KEPT])
    read.counts.duplicates = int(numbers[dedup.DUPLICATE])
    read.counts.near_duplicates = int(numbers[dedup.NEAR_DUPLICATE])
    alone = int((fates.fates == dedup.WITHOUT_ENGLISH).sum())
    read.counts.without_english += alone
    # An English row that was left out took its translations with it.
    lost = ~np.isin(fates.fates, (dedup.KEPT, dedup.WITHOUT_ENGLISH)) & ~english
    read.counts.translations -= alone + int(lost.sum())


def _write_pairs(
    read: Sequence[SourceShards], fates: Sequence[RowFates], out: Path, work: Path
) -> Counter[str]:
    """Write the table; return its rows by language."""
    languages: Counter[str] = Counter()
    with cache.atomic_folder(out) as folder:
        for number, (each, own) in enumerate(zip(read, fates, strict=True)):
            prefix = f"{number:02d}-{_UNSAFE.sub('-', each.source.title)}"
            groups = shards.group_by_id(each.parts, own, work / f"groups-{number}")
            languages += shards.write_table(folder, prefix, groups, tables.PART_ROWS)
    return languages


def _refuse_sources_inside(outs: Sequence[Path], resolved: Sequence[Source]) -> None:
    for source in resolved:
        for file in sources.find_files(source.path) if isinstance(source, FilesSource | TmxSource) else ():
            for out in outs:
                if out.resolve() in (file.resolve(), *file.resolve().parents):
                    raise UserError(f"{file}: is in {out}, which `collect` replaces; put it elsewhere")


# --- benchmarks ----------------------------------------------------------------------------------


def _refuse_benchmarks_inside(out: Path, benchmarks: Sequence[Benchmark]) -> None:
    for benchmark in benchmarks:
        if not isinstance(benchmark, FolderBenchmark):
            continue
        folder = Path(benchmark.path).resolve()
        if out.resolve() in (folder, *folder.parents):
            raise UserError(
                f"benchmarks: '{benchmark.name}' is in {out}, which `collect` replaces; put it elsewhere"
            )


def _count_texts(found: LocalBenchmark) -> dict[str, int]:
    """Read the benchmark, so that a broken one fails here and not after hours of training; return its size.

    Of a MIRACL corpus, which may have gigabytes, only the topics and judgements are read.
    """
    if found.format == "miracl":
        return {"queries": sum(len(miracl.load(found.folder, lang).topics) for lang in found.languages)}
    # All languages are read, because `validate` looks for each in the training data.
    read = suites.load(found.folder, passage_unit=found.passage_unit)
    return {
        "queries": sum(query.lang in found.languages for query in read.queries),
        "passages": sum(passage.lang in found.languages for passage in read.passages),
    }


def _copy_benchmarks(
    found: Sequence[LocalBenchmark], sizes: Sequence[dict[str, int]], out: Path
) -> dict[str, dict[str, Any]]:
    """Copy all benchmarks into the folder `out`, or none; return what the summary says of each."""
    cards = {}
    with cache.atomic_folder(out) as folder:
        for each, size in zip(found, sizes, strict=True):
            files = registry.copy(each, folder / each.name)
            cards[each.name] = {
                "origin": str(each.origin),
                **({"unpinned": each.origin.branch} if each.origin.branch else {}),
                "license": each.origin.license,
                "format": each.format,
                "languages": list(each.languages),
                **size,
                "files": {name: file._asdict() for name, file in files.items()},
            }
            megabytes = sum(file.bytes for file in files.values()) / 1e6
            _log.info("benchmark %s: %d files, %.1f MB", each.name, len(files), megabytes)
    return cards
