"""What stands in a row's columns, as the texts that a pair consists of.

Columns may lie deep in a row: `texts.de.question` goes into objects, a number takes one of a list
(`positives.0.text`), and another name goes into each of a list's objects (`negatives.text`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hexapla.schema import UserError

REQUIRED = ("question", "passage")

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_MARKS = r"\u00ad\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
"""Soft hyphen, zero-width space, marks of writing direction, byte order mark. They can't be seen, but an
answer with one is not found in a passage without. Zero-width joiner and non-joiner (U+200D, U+200C) spell
words in Persian and the languages of India, and stay."""

_ODD = re.compile(rf"[{_CONTROLS}\ud800-\udfff{_MARKS}]")
_REFUSED = re.compile(rf"[{_CONTROLS}\ud800-\udfff]")


class UnusableError(UserError):
    """A row of the right form with a text that is none: empty, or with characters that no text has."""


@dataclass
class Cells:
    """One row, its place, and `columns`: our column -> theirs, where the names differ."""

    where: str
    row: Mapping[str, Any]
    columns: Mapping[str, str]
    cleaned: bool = False
    """Whether invisible marks were removed from a text that was asked for."""

    def text(self, column: str) -> str:
        """Of a column of ours, stripped; '' for one that the row lacks and nobody mapped.

        Raises:
            UserError: a column that is required or mapped is missing, or holds no text.
            UnusableError: question or passage is empty, or a text has control characters or half a surrogate.
        """
        theirs, value = self._found(column)
        if column == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return self._checked(theirs, value, required=column in REQUIRED)

    def answer(self) -> str | None:
        """The answer, '' when the row names none; None when it says that the passage has none."""
        column = "answer" if "answer" in self.columns or "answer" in self.row else "answers"
        theirs, value = self._found(column)
        texts = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(texts, list):
            return self._checked(theirs, texts[0], required=False) if texts else None
        return self._checked(theirs, value, required=False)

    def negatives(self) -> tuple[str, ...]:
        """Empty ones in a list stay: `validate` counts what it drops. An empty field is no negative."""
        theirs, value = self._found("negatives")
        if value is None or isinstance(value, str):
            text = self._checked(theirs, value, required=False)
            return (text,) if text else ()
        if not isinstance(value, list):
            kind = type(value).__name__
            raise UserError(f"{self.where}: column '{theirs}' holds {kind}, wants a list of texts")
        each = enumerate(value)
        return tuple(self._checked(f"{theirs}[{i}]", text, required=False) for i, text in each)

    def has(self, column: str) -> bool:
        """Whether the row has this column of ours, or it was mapped."""
        return column in self.columns or column in self.row

    def raw(self, theirs: str) -> Any:
        """What stands in a column of theirs, as it is; UserError where there is no such column."""
        there, value = _deep(self.row, theirs)
        if not there:
            raise UserError(f"{self.where}: no column '{theirs}', which `where` asks for{self._known()}")
        return value

    def filled(self, *columns: str) -> bool:
        """Whether the row has something in each of these columns of ours."""
        values = [_deep(self.row, self.columns.get(column, column))[1] for column in columns]
        return all(value is not None and str(value).strip() for value in values)

    def _found(self, column: str) -> tuple[str, Any]:
        """Their name for a column of ours, and what the row holds there; None where nobody asked for it."""
        theirs = self.columns.get(column, column)
        # Where `passage` is their column `answer`, that column is no answer as well.
        if column not in self.columns and column in self.columns.values():
            return theirs, None
        there, value = _deep(self.row, theirs)
        if not there and (column in self.columns or column in REQUIRED):
            raise UserError(
                f"{self.where}: no column '{theirs}'{self._known()}; "
                f"name theirs in the source's `columns: {{{column}: ...}}`"
            )
        return theirs, value

    def _known(self) -> str:
        return f" (it has {', '.join(map(str, self.row)) or 'none'})"

    def _checked(self, theirs: str, value: Any, *, required: bool) -> str:
        value = "" if value is None else value
        if not isinstance(value, str):
            raise UserError(f"{self.where}: column '{theirs}' holds {type(value).__name__}, wants text")
        if _ODD.search(value):
            if odd := _REFUSED.search(value):
                raise UnusableError(f"{self.where}: column '{theirs}' holds {_named(odd[0])}; mend the text")
            value, self.cleaned = _ODD.sub("", value), True
        text: str = value.strip()
        if required and not text:
            raise UnusableError(f"{self.where}: column '{theirs}' is empty; fill it or leave the row out")
        return text


def _named(char: str) -> str:
    if char >= "\ud800":
        return "half of a surrogate pair"
    return f"the control character U+{ord(char):04X}"


def _deep(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Whether the row has a column of this name, dotted or not, and what it holds."""
    if name in row or "." not in name:
        return name in row, row.get(name)
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping):
            if part not in value:
                return False, None
            value = value[part]
        elif isinstance(value, list):
            value = _of_list(value, part)
        else:
            return value is None, None
    return True, value


def _of_list(values: list[Any], part: str) -> Any:
    if part.isdigit():
        return values[int(part)] if int(part) < len(values) else None
    return [value.get(part) if isinstance(value, Mapping) else value for value in values]
