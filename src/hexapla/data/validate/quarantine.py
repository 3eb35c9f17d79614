"""Rows that validation rejected, or nearly did, each beside its English; streamed, a few rows held."""

import difflib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.config_data import Validate
from hexapla.io import tables
from hexapla.schema import SOURCE_LANGUAGE, UserError

MEASURES: Mapping[str, tuple[str, ...]] = {
    "length_ratio": ("min_length_ratio", "max_length_ratio"),
    "copy_share": ("max_copy_share",),
    "numbers_kept": ("min_numbers_kept",),
    "cosine": ("min_cosine",),
}
"""What of a row's quality has bounds, with their keys in `validate`."""


class Entry(NamedTuple):
    """A row to look at."""

    row: Mapping[str, Any]
    """By column: the pair, its quality and, when it was rejected, `reasons` and `match`."""
    english: Mapping[str, Any] | None
    """The English row of its id; None when there is none."""
    distance: float | None = None
    """From the bound, for one that was kept: 0 stands on it."""


class Found(NamedTuple):
    """Some entries, and how many there are in all."""

    entries: list[Entry]
    total: int


class Wanted(NamedTuple):
    """Which rows; an empty text is any."""

    check: str = ""
    lang: str = ""
    source: str = ""

    def fits(self, lang: str | None, source: str | None) -> bool:
        return self.lang in ("", lang) and self.source in ("", source)


def rejected(path: Path, pairs: Path, wanted: Wanted, limit: int) -> Found:
    """The first rows in quarantine that are wanted.

    Args:
        path: the quarantine.
        pairs: the table that was validated, with the English rows.
        wanted: `check` is one of the names that stand in the column `reasons`.
        limit: most rows to give.

    Raises:
        UserError: no row was rejected by such a check, and the message lists those by which some were; or a
            table is missing or broken.
    """
    if "reasons" not in tables.schema(path).names:
        raise UserError(f"{path}: column 'reasons' is missing; give the quarantine that `validate` wrote")
    rows: list[dict[str, Any]] = []
    total, known = 0, Counter[str]()
    there: tuple[set[str], set[str]] = set(), set()
    for batch in tables.stream_batches(path):
        told = batch.select(["lang", "source", "reasons"]).to_pylist()
        for place, row in enumerate(told):
            # A reason is a check's name, and what explains it after a colon.
            told_of = row["reasons"].split("; ") if row["reasons"] else []
            reasons = [reason.partition(": ")[0] for reason in told_of]
            known.update(reasons)
            there[0].add(row["lang"] or "")
            there[1].add(row["source"] or "")
            if wanted.fits(row["lang"], row["source"]) and (not wanted.check or wanted.check in reasons):
                total += 1
                if len(rows) < limit:
                    rows += batch.slice(place, 1).to_pylist()
    if known and wanted.check and wanted.check not in known:
        raise UserError(_unknown(wanted.check, known))
    _refuse_absent(wanted, *there)
    english = originals(pairs, rows)
    return Found([Entry(row, english.get(row["id"])) for row in rows], total)


def _refuse_absent(wanted: Wanted, languages: Collection[str], sources: Collection[str]) -> None:
    for flag, asked, held in (("--lang", wanted.lang, languages), ("--source", wanted.source, sources)):
        if held and asked and asked not in held:
            raise UserError(
                f"{flag}: no row of '{asked}' is here; there are rows of {', '.join(sorted(held))}"
            )


def _unknown(check: str, known: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(check, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    counts = ", ".join(f"{name} ({count:,})" for name, count in sorted(known.items()))
    return f"--check: no row was rejected by '{check}'; {hint}rows were by {counts}"


def nearest(path: Path, pairs: Path, wanted: Wanted, limit: int, measure: str, validate: Validate) -> Found:
    """The rows that were kept and are nearest to a bound of the measure, nearest first.

    Args:
        path: the table of what was kept.
        pairs: the table that was validated, with the English rows.
        wanted: of which language and source.
        limit: most rows to give.
        measure: one of `MEASURES`.
        validate: the bounds.

    Raises:
        UserError: a table is missing or broken, or has no such column.
    """
    if measure not in tables.schema(path).names:
        raise UserError(f"{path}: column '{measure}' is missing; run `dvc repro`, which makes it")
    bounds_of = cache(validate.bounds)
    heap: list[tuple[float, int, dict[str, Any]]] = []  # a heap, the farthest first
    total = 0
    for batch in tables.stream_batches(path):
        told = batch.select(["lang", "source", measure]).to_pylist()
        for place, row in enumerate(told):
            if row[measure] is None or not wanted.fits(row["lang"], row["source"]):
                continue
            total += 1
            bounds = bounds_of(row["lang"], row["source"])
            far = min(abs(row[measure] - bounds[key]) for key in MEASURES[measure])
            if len(heap) < limit or far < -heap[0][0]:
                # Of rows equally far the earlier one stays, as -total is smaller the later it comes.
                heapq.heappush(heap, (-far, -total, batch.slice(place, 1).to_pylist()[0]))
                if len(heap) > limit:
                    heapq.heappop(heap)
    ordered = sorted(heap, key=lambda each: (-each[0], -each[1]))
    english = originals(pairs, [row for _, _, row in ordered])
    return Found([Entry(row, english.get(row["id"]), -far) for far, _, row in ordered], total)


def originals(pairs: Path, rows: Collection[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The English rows of some rows' ids, as far as the table has them; read no further than needed."""
    missing = {row["id"] for row in rows if row["id"]}
    found: dict[str, dict[str, Any]] = {}
    if not missing:
        return found
    for file in _english(pairs, {str(row["source"]) for row in rows}):
        for batch in tables.stream_batches(file):
            for place, row in enumerate(batch.select(["id", "lang"]).to_pylist()):
                if row["lang"] == SOURCE_LANGUAGE and row["id"] in missing:
                    found[row["id"]] = batch.slice(place, 1).to_pylist()[0]
                    missing.discard(row["id"])
            if not missing:
                return found
    return found


def _english(pairs: Path, sources: Collection[str]) -> Iterator[Path]:
    """The files to look into: of a folder the English parts, those of the wanted sources first."""
    files = tables.table_files(pairs)
    english = [file for file in files if file.name.startswith(f"00-{SOURCE_LANGUAGE}-")] or files
    yield from sorted(english, key=lambda file: not any(f"-{name}-" in file.name for name in sources))
