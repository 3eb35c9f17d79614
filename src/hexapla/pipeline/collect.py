"""Pairs from every configured source into one table; every configured benchmark into one folder."""

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
from hexapla.benchmarks.registry import Found
from hexapla.config import Benchmark
from hexapla.config_data import Collect, Source
from hexapla.data.collect import corpora, distinct, gathering, grouping, sources
from hexapla.data.collect.distinct import Verdicts
from hexapla.data.collect.gathering import Gathered
from hexapla.io import cache, tables
from hexapla.schema import SOURCE_LANGUAGE, UserError

_log = logging.getLogger(__name__)
_NO_NAME = re.compile(r"[^\w.-]+")
"""What a source's name may hold and a file's should not."""


def collect(
    collect: Collect,
    benchmarks: tuple[Benchmark, ...],
    *,
    sample: Path,
    out: Path,
    benchmarks_out: Path,
    summary: Path,
) -> None:
    """Write the pairs of all sources to `out`, without exact and near duplicates; counts to `summary`.

    Of duplicates the first stays, in order of the sources, with what it has in other languages. `out` is a
    folder, with parts of each source. Each benchmark becomes a folder of its name in `benchmarks_out`, where
    the later stages read it.
    """
    tables.refuse_other(out)
    _refuse_own(benchmarks, benchmarks_out)
    resolved = [corpora.resolve(source) for source in collect.sources]
    _refuse_sources(resolved, out, benchmarks_out)
    folders = [gathering.folder(source, sample) for source in resolved]
    # First, since a mistake in them shows soon; what was fetched is kept, whatever fails after it.
    found = [registry.find(benchmark) for benchmark in benchmarks]
    counts = [_counts(one) for one in found]
    with cache.scratch_folder("collect") as work:
        read = [
            gathering.read(source, sample, folder or work / f"source-{number}")
            for number, (source, folder) in enumerate(zip(resolved, folders, strict=True))
        ]
        verdicts = _judged(read, collect.near_duplicates, sample, work)
        languages = _written(read, verdicts, out, work)
    card = {
        "sources": {one.source.title: vars(one.tally) for one in read},
        "pairs": languages[SOURCE_LANGUAGE],
        "duplicates": sum(one.tally.duplicates for one in read),
        "near_duplicates": sum(one.tally.near_duplicates for one in read),
        "languages": dict(sorted(languages.items())),
        "benchmarks": _bring(found, counts, benchmarks_out),
    }
    cache.write_json(summary, card)
    _log.info(
        "collected %s pairs; %s exact and %s near duplicates left out",
        *(f"{card[name]:,}" for name in ("pairs", "duplicates", "near_duplicates")),
    )


def _judged(read: Sequence[Gathered], threshold: float, sample: Path, work: Path) -> list[Verdicts]:
    """Of each source's rows; its tally is told as well."""
    parts = [part for one in read for part in one.parts]
    verdicts = distinct.judge(parts, threshold, work, partial(gathering.clash, read, sample))
    split, start = [], 0
    for one in read:
        end = start + sum(map(tables.count_rows, one.parts))
        fates, owners = verdicts.fates[start:end], verdicts.owners[start:end]
        split.append(Verdicts(fates, np.where(owners < 0, owners, owners - start)))
        _tell(one, split[-1])
        start = end
    return split


def _tell(one: Gathered, verdicts: Verdicts) -> None:
    """Into the source's tally what became of its English rows, and of rows whose English one is not there.

    Why it is not is not known of a row: nobody remembers the ids of those that were left out.
    """
    english = verdicts.owners == np.arange(len(verdicts.owners))
    fates = np.bincount(verdicts.fates[english], minlength=distinct.WITHOUT_ENGLISH + 1)
    one.tally.kept = int(fates[distinct.KEPT])
    one.tally.duplicates = int(fates[distinct.DUPLICATE])
    one.tally.near_duplicates = int(fates[distinct.NEAR_DUPLICATE])
    alone = int((verdicts.fates == distinct.WITHOUT_ENGLISH).sum())
    one.tally.without_english += alone
    # With an English row that was left out its translations were, too.
    lost = ~np.isin(verdicts.fates, (distinct.KEPT, distinct.WITHOUT_ENGLISH)) & ~english
    one.tally.translations -= alone + int(lost.sum())


def _written(read: Sequence[Gathered], verdicts: Sequence[Verdicts], out: Path, work: Path) -> Counter[str]:
    """The table; returns its rows by language."""
    languages: Counter[str] = Counter()
    with cache.atomic_folder(out) as folder:
        for number, (one, fates) in enumerate(zip(read, verdicts, strict=True)):
            prefix = f"{number:02d}-{_NO_NAME.sub('-', one.source.title)}"
            groups = grouping.groups(one.parts, fates, work / f"dealt-{number}")
            languages += grouping.write(folder, prefix, groups, tables.PART_ROWS)
    return languages


def _refuse_own(benchmarks: Sequence[Benchmark], out: Path) -> None:
    for benchmark in benchmarks:
        folder = Path(benchmark.path).resolve()
        if benchmark.path and out.resolve() in (folder, *folder.parents):
            raise UserError(
                f"benchmarks: '{benchmark.name}' lies in {out}, which `collect` replaces; put it elsewhere"
            )


def _refuse_sources(read: Sequence[Source], *outs: Path) -> None:
    for source in read:
        for file in sources.files(source.path) if source.kind in ("files", "tmx") else ():
            for out in outs:
                if out.resolve() in (file.resolve(), *file.resolve().parents):
                    raise UserError(f"{file}: lies in {out}, which `collect` replaces; put it elsewhere")


def _bring(found: Sequence[Found], counts: Sequence[dict[str, int]], out: Path) -> dict[str, dict[str, Any]]:
    """All into the folder `out`, or none; returns what to note of each."""
    cards = {}
    with cache.atomic_folder(out) as scratch:
        for one, count in zip(found, counts, strict=True):
            files = registry.place(one, scratch / one.name)
            cards[one.name] = {
                "origin": str(one.origin),
                "licence": one.origin.licence,
                "format": one.format,
                "languages": list(one.languages),
                **count,
                "files": {name: file._asdict() for name, file in files.items()},
            }
            size = sum(file.bytes for file in files.values()) / 1e6
            _log.info("benchmark %s: %d files, %.1f MB", one.name, len(files), size)
    return cards


def _counts(found: Found) -> dict[str, int]:
    """Reads the benchmark, so that a broken one fails here, and not after hours of training.

    Of a MIRACL corpus, which may have gigabytes, only the topics and judgements are read.
    """
    if found.format == "miracl":
        return {"questions": sum(len(miracl.load(found.folder, lang).topics) for lang in found.languages)}
    # All languages: `validate` looks for each in the training data.
    read = suites.load(found.folder, candidate_text=found.candidate_text)
    return {
        "questions": sum(question.lang in found.languages for question in read.questions),
        "candidates": sum(candidate.lang in found.languages for candidate in read.candidates),
    }
