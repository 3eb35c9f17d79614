"""English question-passage pairs from every configured source into one table."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from hexapla import cli, sources, store
from hexapla.params import Collect, Source
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


def collect(collect: Collect, *, sample: Path, out: Path, summary: Path) -> None:
    """Write the pairs of all sources to `out`, without exact duplicates, and counts to `summary`."""
    tallies = {source.name or source.kind: Tally() for source in collect.sources}
    count = store.write_pairs(
        out, tqdm(_all(collect, sample, tallies), "collect", unit=" pairs", disable=None)
    )
    card = {
        "sources": {name: dataclasses.asdict(tally) for name, tally in tallies.items()},
        "pairs": count,
        "duplicates": sum(tally.duplicates for tally in tallies.values()),
    }
    store.write_json(summary, card)
    _log.info("collected %s pairs; %s exact duplicates left out", f"{count:,}", f"{card['duplicates']:,}")


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
