"""Rejected and borderline rows next to their English originals."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hexapla import config
from hexapla.data.validate.rejected import InspectedRow, RowFilter, list_borderline, list_rejected
from hexapla.reporting import terminal
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE, UserError

_LABEL = 10
"""Columns of the names at the left."""


def inspect(
    *,
    check: Annotated[
        str, typer.Option(help='Only rows rejected for this reason, such as "passage language".')
    ] = "",
    lang: Annotated[str, typer.Option(help="Only rows in this language.")] = "",
    source: Annotated[str, typer.Option(help="Only rows of this source.")] = "",
    borderline: Annotated[
        Literal["length_ratio", "copy_share", "numbers_kept", "cosine"] | None,
        typer.Option(help="Show kept rows instead, those nearest to a bound of this measure."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 10,
    lines: Annotated[int, typer.Option(min=1, help="A text is cut after so many lines.")] = 8,
    quarantine: Annotated[Path, typer.Option(help="The rejected rows.")] = Path(
        "data/validated/quarantine.parquet"
    ),
    kept: Annotated[Path, typer.Option(help="The kept rows, for --borderline.")] = Path(
        "data/validated/pairs"
    ),
    pairs: Annotated[Path, typer.Option(help="The table with the English rows.")] = Path(
        "data/parallel/pairs"
    ),
    params: Annotated[
        Path, typer.Option(help="The file of settings with the bounds, for --borderline.")
    ] = Path("params.yaml"),
) -> None:
    """Show rows that `validate` rejected, each next to its English original, with the reasons.

    `--borderline` shows rows that were kept instead, so that you can see whether a bound is right.
    """
    if borderline and check:
        raise UserError("--check: rows at a bound passed every check; give one of --check and --borderline")
    wanted = RowFilter(check, lang, source)
    if borderline:
        found = list_borderline(kept, pairs, wanted, limit, borderline, config.load(params).validate)
    else:
        found = list_rejected(quarantine, pairs, wanted, limit)
    columns = shutil.get_terminal_size().columns
    for entry in found.rows:
        print("\n".join(_format_entry(entry, columns, lines)), end="\n\n")
    kind = f"kept rows, by distance of {borderline}" if borderline else "rejected rows"
    filters = ", ".join(terminal.escape(value) for value in wanted if value)
    print(f"{len(found.rows):,} of {found.total:,} {kind}{f' ({filters})' if filters else ''}")


def _format_entry(entry: InspectedRow, columns: int, lines: int) -> list[str]:
    row, english = entry.row, entry.english
    title = " · ".join(terminal.escape(str(row[name] or "–")) for name in ("lang", "id", "engine"))
    shown = [f"── {title}"]
    for name in ("reasons", "match"):
        if row.get(name):
            shown += _add_label(name, terminal.wrap(terminal.escape(row[name]), columns - _LABEL, lines))
    if quality := _format_quality(row, entry.distance):
        shown += _add_label("quality", terminal.wrap(quality, columns - _LABEL, lines))
    half = max(10, (columns - _LABEL - 3) // 2)
    for name in ("question", "passage", "answer"):
        mine = terminal.wrap(terminal.escape(row[name] or ""), half, lines)
        if row["lang"] == SOURCE_LANGUAGE:
            shown += _add_label(name, terminal.join_columns(mine, [], half))
            continue
        original = english[name] or "" if english else "(no English row)" * (name == "question")
        theirs = terminal.wrap(terminal.escape(original), half, lines)
        shown += _add_label(name, terminal.join_columns(theirs, mine, half))
    return shown


def _add_label(name: str, lines: list[str]) -> list[str]:
    names = [name, *[""] * (len(lines) - 1)]
    return [f"{label:{_LABEL}}{line}".rstrip() for label, line in zip(names, lines, strict=False)]


def _format_quality(row: Mapping[str, Any], distance: float | None) -> str:
    parts = []
    for name in QUALITY_COLUMNS:
        if (value := row.get(name)) is not None:
            text = f"{value:.3g}" if isinstance(value, float) else terminal.escape(str(value))
            parts.append(f"{name.replace('_', ' ')} {text}")
    if distance is not None:
        parts.append(f"{distance:.3g} from the bound")
    return ", ".join(parts)
