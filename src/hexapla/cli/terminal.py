"""Texts of any language for a terminal: escaped, so that they can't drive it, and wrapped by their width."""

import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

_KEPT = "\u200c\u200d"
"""Joiners, without which Persian, Hindi and others are misspelt."""

_ISOLATE, _END = "\u2068", "\u2069"
"""Around each cell: its direction is its own, and moves nothing beside it (Unicode UAX 9, isolates)."""


def escaped(text: str) -> str:
    """Without anything that a terminal obeys or that turns text about; what is left out is shown by code.

    Line breaks and tabs are shown by code as well: a cell is one paragraph.
    """
    return "".join(char if _plain(char) else _code(char) for char in text)


def _plain(char: str) -> bool:
    # Cc control, Cf format (bidirectional marks among them), Cs half a surrogate pair, Zl and Zp line ends,
    # Co private and Cn unassigned, of which nobody knows what a terminal does with them.
    return char in _KEPT or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")


def _code(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(char)
    return named.get(char) or (
        f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
    )


def width(text: str) -> int:
    """Columns that an escaped text takes: two for wide letters, none for marks upon others."""
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrapped(text: str, columns: int, lines: int) -> list[str]:
    """An escaped text cut into lines of at most `columns`, at spaces where there are any.

    Args:
        text: without line breaks.
        columns: at least 2.
        lines: at most so many; the last then says how much was left out.
    """
    found: list[str] = []
    rest = text
    while rest:
        if len(found) == lines:
            last = _head(found[-1], columns - 12)
            found[-1] = f"{last} … +{len(rest) + len(found[-1]) - len(last):,}"
            break
        line = _head(rest, columns)
        if len(line) < len(rest) and rest[len(line)] != " " and (space := line.rfind(" ")) > 0:
            line = line[:space]
        found.append(line)
        rest = rest[len(line) :].lstrip(" ")
    return found


def _head(text: str, columns: int) -> str:
    """The longest beginning that fits; never without its first letter."""
    taken = 0
    for place, char in enumerate(text):
        taken += _columns(char)
        if taken > columns and place:
            return text[:place]
    return text


def beside(left: Sequence[str], right: Sequence[str], columns: int) -> list[str]:
    """Two columns of lines, the left one filled up to `columns`; each cell keeps its own direction."""
    rows = []
    for one, other in zip_longest(left, right, fillvalue=""):
        cell = f"{_ISOLATE}{one}{_END}" if one else ""
        end = f"{_ISOLATE}{other}{_END}" if other else ""
        rows.append(f"{cell}{' ' * (columns - width(one))} │ {end}".rstrip())
    return rows
