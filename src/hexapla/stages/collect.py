"""English pairs from every configured source into one table; every configured benchmark into one folder."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hexapla import benchmarks as suites
from hexapla import cli, downloads, miracl, sources, store
from hexapla.downloads import Found
from hexapla.params import Benchmark, Collect, Source
from hexapla.records import Mistake, Pair
from hexapla.sources import Tally

_log = logging.getLogger(__name__)


def _sample(source: Source, name: str, sample: Path, tally: Tally) -> Iterator[Pair]:  # noqa: ARG001 - all readers' signature
    return sources.sample_pairs(sample, name=name, tally=tally)


def _files(source: Source, name: str, sample: Path, tally: Tally) -> Iterator[Pair]:  # noqa: ARG001 - as above
    return sources.file_pairs(
        source.path, name=name, format=source.format, columns=source.columns, tally=tally
    )


def _hub(source: Source, name: str, sample: Path, tally: Tally) -> Iterator[Pair]:  # noqa: ARG001 - as above
    return sources.hub_pairs(
        source.dataset,
        name=name,
        revision=source.revision,
        config=source.config,
        split=source.split,
        columns=source.columns,
        tally=tally,
    )


READERS: dict[str, Callable[[Source, str, Path, Tally], Iterator[Pair]]] = {
    "sample": _sample,
    "files": _files,
    "hub": _hub,
}


def collect(
    collect: Collect,
    benchmarks: tuple[Benchmark, ...],
    *,
    sample: Path,
    out: Path,
    benchmarks_out: Path,
    summary: Path,
) -> None:
    """Write the pairs of all sources to `out`, without exact duplicates; counts to `summary`.

    Each benchmark becomes a folder of its name in `benchmarks_out`, where the later stages read it.
    """
    _refuse_own(benchmarks, benchmarks_out)
    # First, since a mistake in them shows soon; what was fetched is kept, whatever fails after it.
    found = [downloads.find(benchmark) for benchmark in benchmarks]
    counts = [_counts(one) for one in found]
    tallies = {source.name or source.kind: Tally() for source in collect.sources}
    count = store.write_pairs(
        out, tqdm(_all(collect, sample, tallies), "collect", unit=" pairs", disable=None)
    )
    card = {
        "sources": {name: dataclasses.asdict(tally) for name, tally in tallies.items()},
        "pairs": count,
        "duplicates": sum(tally.duplicates for tally in tallies.values()),
        "benchmarks": _bring(found, counts, benchmarks_out),
    }
    store.write_json(summary, card)
    _log.info("collected %s pairs; %s exact duplicates left out", f"{count:,}", f"{card['duplicates']:,}")


def _refuse_own(benchmarks: Sequence[Benchmark], out: Path) -> None:
    for benchmark in benchmarks:
        folder = Path(benchmark.path).resolve()
        if benchmark.path and out.resolve() in (folder, *folder.parents):
            raise Mistake(
                f"benchmarks: '{benchmark.name}' lies in {out}, which `collect` replaces; put it elsewhere"
            )


def _bring(found: Sequence[Found], counts: Sequence[dict[str, int]], out: Path) -> dict[str, dict[str, Any]]:
    """All into the folder `out`, or none; returns what to note of each."""
    cards = {}
    with store.whole_folder(out) as scratch:
        for one, count in zip(found, counts, strict=True):
            files = downloads.place(one, scratch / one.name)
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


def _all(collect: Collect, sample: Path, tallies: dict[str, Tally]) -> Iterator[Pair]:
    seen: set[bytes] = set()
    for source, (name, tally) in zip(collect.sources, tallies.items(), strict=True):
        pairs = islice(READERS[source.kind](source, name, sample, tally), source.limit)
        yield from sources.distinct(pairs, seen, tally)
        if not tally.read:
            raise Mistake(
                f"collect.sources: no pairs in '{name}' ({tally.skipped} questions without an answer were "
                "skipped); mend the source or take it off the list"
            )


if __name__ == "__main__":
    cli.run(collect)
