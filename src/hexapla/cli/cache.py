"""What the cache takes on disk, and how to make it smaller."""

import re
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from hexapla.io import cache as store
from hexapla.io.cache import CacheEntry
from hexapla.reporting import terminal
from hexapla.schema import UserError

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SPANS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def _read_size(text: str) -> int:
    return round(_read_quantity(text, _SIZES, "5GB or 500MB"))


def _read_span(text: str) -> float:
    return _read_quantity(text, _SPANS, "30d, 12h or 8w")


def _read_quantity(text: str, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]+)", text.strip(), re.IGNORECASE)
    unit = match and next((name for name in units if name.lower() == match[2].lower()), None)
    if not match or not unit:
        raise typer.BadParameter(f"'{text}' has another form than {example}")
    return float(match[1]) * units[unit]


def cache(
    *,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what --to and --older-than choose.")] = False,
    to: Annotated[
        int | None,
        typer.Option(
            parser=_read_size, metavar="SIZE", help="Choose entries until the rest fits into, say, 5GB."
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            parser=_read_span, metavar="AGE", help="Choose entries that were not used for, say, 30d."
        ),
    ] = None,
) -> None:
    """Show what the cache takes on disk by kind; with `--prune`, remove what was used least recently.

    Everything in the cache can be made again, by work or by downloads. Do not prune while a run uses the cache.

    Without `--prune`, `--to` and `--older-than` only say what they would remove. What Hexapla did not put into
    the cache is never removed. $HEXAPLA_CACHE says where the cache is; by default it is ~/.cache/hexapla.
    """
    if prune and to is None and older_than is None:
        raise UserError("--prune: wants --to SIZE or --older-than AGE, or both")
    now = time.time()
    entries = store.list_entries()
    before = None if older_than is None else now - older_than
    chosen = store.choose_entries(entries, to, before)
    if prune:
        store.remove_entries(chosen)
        gone = {entry.path for entry in chosen}
        entries = [entry for entry in entries if entry.path not in gone]
    _show(entries, now)
    if prune or to is not None or older_than is not None:
        verb = "Removed" if prune else "--prune would remove"
        print(f"\n{verb} {len(chosen):,} entries, {_format_size(sum(entry.size for entry in chosen))}.")


def _show(entries: Iterable[CacheEntry], now: float) -> None:
    kinds: dict[str, list[CacheEntry]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry)
    by_name = [*sorted(kinds.items()), ("all", [entry for each in kinds.values() for entry in each])]
    print(f"{store.cache_root()}\n")
    rows = [
        [
            kind,
            f"{len(each):,}",
            _format_size(sum(entry.size for entry in each)),
            _format_age(now - min(entry.used for entry in each)) if each else "–",
            _format_age(now - max(entry.used for entry in each)) if each else "–",
        ]
        for kind, each in by_name
    ]
    terminal.print_table(["kind", "entries", "size", "oldest use", "latest use"], rows, align="lrrrr")
    if others := store.list_untagged():
        names = ", ".join(terminal.escape(path.name) for path in others)
        print(f"\nNot made by this version of Hexapla, so never removed: {names}")


def _format_size(size: int) -> str:
    for unit, factor in reversed(_SIZES.items()):
        if size >= factor:
            return f"{size / factor:,.3g} {unit}" if factor > 1 else f"{size} B"
    return "0 B"


def _format_age(seconds: float) -> str:
    return (
        f"{seconds / 86400:,.0f} days ago" if seconds >= 2 * 86400 else f"{max(0, seconds) / 3600:.0f} h ago"
    )
