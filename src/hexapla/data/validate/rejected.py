"""Rows to look at: those that validation rejected, and those that it nearly did, each with its English row.

Tables are read some thousand rows at a time, and only the rows that are shown become Python objects.
"""

import difflib
import heapq
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.config import Validate
from hexapla.io import tables
from hexapla.schema import SOURCE_LANGUAGE, UserError

MEASURES: Mapping[str, tuple[str, ...]] = {
    "length_ratio": ("min_length_ratio", "max_length_ratio"),
    "copy_share": ("max_copy_share",),
    "numbers_kept": ("min_numbers_kept",),
    "cosine": ("min_cosine",),
}
"""The measures of a translation that have bounds, with the names of these in `Validate`."""


class InspectedRow(NamedTuple):
    """A row to look at."""

    row: Mapping[str, Any]
    """By column: the pair, its quality and, when it was rejected, `reasons` and `match`."""
    english: Mapping[str, Any] | None
    """The English row with the same id; None when there is none."""
    distance: float | None = None
    """The distance from the nearest bound, for a row that was kept."""


class InspectedRows(NamedTuple):
    """Some rows to look at."""

    rows: list[InspectedRow]
    total: int
    """How many rows there are, with those that are not shown."""


class RowFilter(NamedTuple):
    """Which rows to look at; '' means any."""

    check: str = ""
    lang: str = ""
    source: str = ""

    def fits(self, lang: str | None, source: str | None) -> bool:
        """Return whether a row's language and source are wanted."""
        return self.lang in ("", lang) and self.source in ("", source)


def list_rejected(path: Path, pairs: Path, wanted: RowFilter, limit: int) -> InspectedRows:
    """Return the first rejected rows that are wanted.

    Args:
        path: the table of rejected rows.
        pairs: the table that was validated, for the English rows.
        wanted: the filter; `check` is a name that occurs in the column `reasons`.
        limit: the greatest number of rows to return.

    Raises:
        UserError: no row was rejected by such a check, or none has the language or the source, and the message
            lists what there is; or a table is missing or broken.
    """
    if "reasons" not in tables.schema(path).names:
        raise UserError(f"{path}: column 'reasons' is missing; give the quarantine that `validate` wrote")
    rows: list[dict[str, Any]] = []
    total = 0
    checks, languages, sources = Counter[str](), set[str](), set[str]()
    for batch in tables.stream_batches(path):
        for place, row in enumerate(batch.select(["lang", "source", "reasons"]).to_pylist()):
            # A reason is the name of a check and, after a colon, what explains it.
            reasons = row["reasons"].split("; ") if row["reasons"] else []
            failed = [reason.partition(": ")[0] for reason in reasons]
            checks.update(failed)
            languages.add(row["lang"] or "")
            sources.add(row["source"] or "")
            if wanted.fits(row["lang"], row["source"]) and (not wanted.check or wanted.check in failed):
                total += 1
                if len(rows) < limit:
                    rows += batch.slice(place, 1).to_pylist()
    if checks and wanted.check and wanted.check not in checks:
        raise UserError(_describe_unknown(wanted.check, checks))
    for flag, name, known in (("--lang", wanted.lang, languages), ("--source", wanted.source, sources)):
        if known and name and name not in known:
            raise UserError(
                f"{flag}: no row of '{name}' is here; there are rows of {', '.join(sorted(known))}"
            )
    english = find_english(pairs, rows)
    return InspectedRows([InspectedRow(row, english.get(row["id"])) for row in rows], total)


def _describe_unknown(check: str, known: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(check, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    counts = ", ".join(f"{name} ({count:,})" for name, count in sorted(known.items()))
    return f"--check: no row was rejected by '{check}'; {hint}rows were by {counts}"


def list_borderline(
    path: Path, pairs: Path, wanted: RowFilter, limit: int, measure: str, validate: Validate
) -> InspectedRows:
    """Return the kept rows that are nearest to a bound of the measure, nearest first, of equals the earlier.

    Args:
        path: the table of kept rows.
        pairs: the table that was validated, for the English rows.
        wanted: the filter; its `check` does not count.
        limit: the greatest number of rows to return.
        measure: one of `MEASURES`.
        validate: the bounds.

    Raises:
        UserError: a table is missing or broken, or does not have the column.
    """
    if measure not in tables.schema(path).names:
        raise UserError(f"{path}: column '{measure}' is missing; run `dvc repro`, which makes it")
    bounds_of = cache(validate.bounds)
    nearest: list[tuple[float, int, dict[str, Any]]] = []  # a heap with the farthest row on top
    total = 0
    for batch in tables.stream_batches(path):
        for place, row in enumerate(batch.select(["lang", "source", measure]).to_pylist()):
            if row[measure] is None or not wanted.fits(row["lang"], row["source"]):
                continue
            total += 1
            bounds = bounds_of(row["lang"], row["source"])
            distance = min(abs(row[measure] - bounds[key]) for key in MEASURES[measure])
            if len(nearest) < limit or distance < -nearest[0][0]:
                # Among equal distances the earlier row is the greater one here, and so stays.
                heapq.heappush(nearest, (-distance, -total, batch.slice(place, 1).to_pylist()[0]))
                if len(nearest) > limit:
                    heapq.heappop(nearest)
    ordered = sorted(nearest, key=lambda each: (-each[0], -each[1]))
    english = find_english(pairs, [row for _, _, row in ordered])
    rows = [InspectedRow(row, english.get(row["id"]), -negative) for negative, _, row in ordered]
    return InspectedRows(rows, total)


def find_english(pairs: Path, rows: Collection[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the English rows with the same ids by id, as far as there are any; reads no further than needed."""
    missing = {row["id"] for row in rows if row["id"]}
    found: dict[str, dict[str, Any]] = {}
    if not missing:
        return found
    for file in _order_files(pairs, {str(row["source"]) for row in rows}):
        for batch in tables.stream_batches(file):
            for place, row in enumerate(batch.select(["id", "lang"]).to_pylist()):
                if row["lang"] == SOURCE_LANGUAGE and row["id"] in missing:
                    found[row["id"]] = batch.slice(place, 1).to_pylist()[0]
                    missing.discard(row["id"])
            if not missing:
                return found
    return found


def _order_files(pairs: Path, sources: Collection[str]) -> list[Path]:
    """Return the files that may hold English rows, those of the sources first."""
    files = tables.table_files(pairs)
    english = [file for file in files if file.name.startswith(f"00-{SOURCE_LANGUAGE}-")] or files
    return sorted(english, key=lambda file: not any(f"-{name}-" in file.name for name in sources))
