"""Texts of any language on a terminal: escaped, so that they can't drive it, and laid out by Rich."""

import sys
import unicodedata
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

_JOINERS = "\u200c\u200d"
"""Persian, Hindi and other languages are misspelt without these two format characters."""

_ISOLATE, _END = "\u2068", "\u2069"
"""Put around a cell, they keep its direction of writing from moving its neighbors (Unicode UAX 9)."""

_UNLIMITED = 10_000
"""Columns of a table that is never wrapped for want of room, such as one for a pipe."""


def escape(text: str) -> str:
    """Replace everything that a terminal obeys, or that turns the direction of a text, by its code.

    Line breaks and tabs are replaced as well, because a cell is one paragraph.
    """
    return "".join(char if _is_plain(char) else _name_code(char) for char in text)


def _is_plain(char: str) -> bool:
    # Cc control, Cf format (bidirectional marks among them), Cs half a surrogate pair, Zl and Zp line ends,
    # Co private and Cn unassigned, of which nobody knows what a terminal does with them.
    return char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")


def _name_code(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(char)
    return named.get(char) or (
        f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
    )


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, widths: Sequence[int | None] = ()
) -> None:
    """Print a table as wide as the terminal, or as wide as its cells where stdout is none; see `render_table`."""
    columns = Console().width if sys.stdout.isatty() else _UNLIMITED
    print(render_table(header, rows, align, widths, columns=columns))  # noqa: T201


def render_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    widths: Sequence[int | None] = (),
    *,
    columns: int = _UNLIMITED,
) -> str:
    """Lay a table out as lines of plain text.

    Args:
        header: the columns' titles, in which a line break starts a line.
        rows: the cells; they and the titles are escaped here.
        align: a letter a column, `l` or `r`.
        widths: the most that each column may take, if that is limited; longer cells are wrapped.
        columns: the most that the table may take. Without a limit, figures stay whole, and a terminal that is too
            narrow breaks the lines itself.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    widths = list(widths) or [None] * len(header)
    for title, side, width in zip(header, align, widths, strict=True):
        table.add_column(
            Text("\n".join(map(escape, title.split("\n")))),
            justify="right" if side == "r" else "left",
            max_width=width,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    console = Console(width=columns, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Cut an escaped text into lines of at most `columns`, at spaces where there are any.

    Args:
        text: without line breaks.
        columns: at least 2.
        lines: the most that are given; the last then says how many characters were left out.
    """
    wrapped = [line.plain.rstrip() for line in Text(text).wrap(Console(), columns)] if text else []
    if len(wrapped) <= lines:
        return wrapped
    kept, left = wrapped[: lines - 1], sum(map(len, wrapped[lines - 1 :]))
    last = set_cell_size(wrapped[lines - 1], max(0, min(cell_len(wrapped[lines - 1]), columns - 12))).rstrip()
    return [*kept, f"{last} … +{left - len(last):,}"]


def join_columns(left: Sequence[str], right: Sequence[str], columns: int) -> list[str]:
    """Set two lists of lines side by side, the left one filled up to `columns`."""
    height = max(len(left), len(right))
    cells = zip([*left, *[""] * (height - len(left))], [*right, *[""] * (height - len(right))], strict=True)
    return [f"{_isolate(set_cell_size(one, columns))} │ {_isolate(other)}".rstrip() for one, other in cells]


def _isolate(cell: str) -> str:
    return f"{_ISOLATE}{cell}{_END}" if cell.strip() else cell
