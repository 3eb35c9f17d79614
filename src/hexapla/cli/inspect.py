"""Rejected and borderline rows, side by side with their English."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hexapla.cli import terminal
from hexapla.config_data import Validate
from hexapla.data.validate.quarantine import Entry, Wanted, nearest, rejected
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE, UserError

_LABEL = 10
"""Columns of the names at the left."""


def inspect(
    validate: Validate,
    *,
    check: str = "",
    lang: str = "",
    source: str = "",
    borderline: Literal["length_ratio", "copy_share", "numbers_kept", "cosine"] | None = None,
    limit: int = 10,
    lines: int = 8,
    quarantine: Path = Path("data/validated/quarantine.parquet"),
    kept: Path = Path("data/validated/pairs"),
    pairs: Path = Path("data/parallel/pairs"),
) -> None:
    """Show rows that `validate` rejected, each beside its English, with the reasons.

    --check takes a reason as the report names it, such as "passage language". --borderline shows rows that
    were kept instead, those nearest to a bound of this measure, to judge whether the bound is right. A text
    is cut after --lines lines. English rows come from --pairs.
    """
    for name, value in (("--limit", limit), ("--lines", lines)):
        if value < 1:
            raise UserError(f"{name}: must be at least 1, got {value}")
    if borderline and check:
        raise UserError("--check: rows at a bound passed every check; give one of --check and --borderline")
    wanted = Wanted(check, lang, source)
    if borderline:
        found = nearest(kept, pairs, wanted, limit, borderline, validate)
    else:
        found = rejected(quarantine, pairs, wanted, limit)
    columns = shutil.get_terminal_size().columns
    for entry in found.entries:
        print("\n".join(_shown(entry, columns, lines)), end="\n\n")
    kind = f"kept rows, by distance of {borderline}" if borderline else "rejected rows"
    asked = ", ".join(terminal.escaped(value) for value in wanted if value)
    print(f"{len(found.entries):,} of {found.total:,} {kind}{f' ({asked})' if asked else ''}")


def _shown(entry: Entry, columns: int, lines: int) -> list[str]:
    row, english = entry.row, entry.english
    title = " · ".join(terminal.escaped(str(row[name] or "–")) for name in ("lang", "id", "engine"))
    shown = [f"── {title}"]
    for name in ("reasons", "match"):
        if row.get(name):
            shown += _labelled(name, terminal.wrapped(terminal.escaped(row[name]), columns - _LABEL, lines))
    if quality := _quality(row, entry.distance):
        shown += _labelled("quality", terminal.wrapped(quality, columns - _LABEL, lines))
    half = max(10, (columns - _LABEL - 3) // 2)
    for name in ("question", "passage", "answer"):
        mine = terminal.wrapped(terminal.escaped(row[name] or ""), half, lines)
        if row["lang"] == SOURCE_LANGUAGE:
            shown += _labelled(name, terminal.beside(mine, [], half))
            continue
        original = english[name] or "" if english else "(no English row)" * (name == "question")
        theirs = terminal.wrapped(terminal.escaped(original), half, lines)
        shown += _labelled(name, terminal.beside(theirs, mine, half))
    return shown


def _labelled(name: str, lines: list[str]) -> list[str]:
    names = [name, *[""] * (len(lines) - 1)]
    return [f"{label:{_LABEL}}{line}".rstrip() for label, line in zip(names, lines, strict=False)]


def _quality(row: Mapping[str, Any], distance: float | None) -> str:
    parts = []
    for name in QUALITY_COLUMNS:
        if (value := row.get(name)) is not None:
            text = f"{value:.3g}" if isinstance(value, float) else terminal.escaped(str(value))
            parts.append(f"{name.replace('_', ' ')} {text}")
    if distance is not None:
        parts.append(f"{distance:.3g} from the bound")
    return ", ".join(parts)
