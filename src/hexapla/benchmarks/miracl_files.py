"""Files of benchmarks in MIRACL format: where a language's lie, and their rows, each with its place.

Two layouts, told apart by their folders; `miracl` says what they hold.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hexapla.io import readers
from hexapla.schema import UserError

_FOLDER = re.compile(r"miracl-(?:corpus-)?v1\.0-([a-z]{2,3})|([a-z]{2,3})-(?:corpus|queries|qrels)")


def languages(folder: Path) -> tuple[str, ...]:
    """The languages of which the folder holds something, sorted; none when it is not MIRACL format."""
    if not folder.is_dir():
        return ()
    found = (_FOLDER.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted({match[1] or match[2] for match in found if match}))


def files(folder: Path, lang: str, split: str) -> tuple[list[Path], list[Path], tuple[Path, ...]]:
    """Those of the topics, the judgements and the corpus."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such benchmark folder")
    held = languages(folder)
    if not held:
        raise UserError(
            f"{folder}: not MIRACL format; wants miracl-v1.0-<lang> and miracl-corpus-v1.0-<lang>, "
            "or <lang>-corpus, <lang>-queries and <lang>-qrels"
        )
    if lang not in held:
        raise UserError(f"{folder}: language '{lang}' is missing; it holds {', '.join(held)}")
    own = folder / f"miracl-v1.0-{lang}"
    corpus = folder / f"miracl-corpus-v1.0-{lang}"
    if own.is_dir() or corpus.is_dir():
        name = f"miracl-v1.0-{lang}-{split}.tsv"
        topics, qrels = (_matching(own / kind, f"{kind}.{name}") for kind in ("topics", "qrels"))
        return topics, qrels, tuple(_matching(corpus, "docs-*.jsonl.gz"))
    shards = f"{split}[-.]*parquet"
    topics, qrels = (_matching(folder / f"{lang}-{kind}", shards) for kind in ("queries", "qrels"))
    corpus = folder / f"{lang}-corpus"
    # A corpus may be of no split; topics of another split would be other topics.
    return topics, qrels, tuple(_matching(corpus, shards if any(corpus.glob(shards)) else "*.parquet"))


def _matching(folder: Path, pattern: str) -> list[Path]:
    """At least one file, in natural order."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; download the whole language")
    if found := sorted(folder.glob(pattern), key=_natural):
        return found
    others = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "nothing"
    raise UserError(f"{folder}: holds no {pattern}, but {others}")


def _natural(file: Path) -> list[Any]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", file.name))]


def rows(
    files: Iterable[Path], columns: Sequence[str] = (), separator: str | None = None
) -> Iterator[readers.Row]:
    """Rows of Parquet, of gzipped JSONL, or of text with the named columns (None: parted by spaces)."""
    for file in files:
        if file.suffix == ".parquet":
            yield from readers.read_rows(file, "parquet")
        elif file.suffix == ".gz":
            yield from ((where, readers.json_object(where, line)) for where, line in _lines(file))
        else:
            for where, line in _lines(file):
                fields = line.rstrip("\r\n").split(separator)
                if len(fields) != len(columns):
                    raise UserError(f"{where}: has {len(fields)} fields, wants {', '.join(columns)}")
                yield where, dict(zip(columns, fields, strict=True))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines that hold something, each with its place."""
    if file.stat().st_size == 0:
        raise UserError(f"{file}: empty file")
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", line
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: broken or truncated gzip ({error}); download it again") from None


# --- columns -------------------------------------------------------------------------------------


def value(where: str, row: Mapping[str, Any], *columns: str) -> Any:
    """Of the first of these columns that the row has."""
    for column in columns:
        if column in row:
            return row[column]
    raise UserError(f"{where}: no column '{columns[0]}' (it has {', '.join(map(str, row)) or 'none'})")


def identifier(where: str, row: Mapping[str, Any], *columns: str) -> str:
    """Of the first of these columns that the row has; a passage's by default."""
    held = value(where, row, *(columns or ("docid", "_id", "id")))
    if isinstance(held, int) and not isinstance(held, bool):
        return str(held)
    if not isinstance(held, str) or not held:
        raise UserError(f"{where}: the id is {held!r}, wants text")
    return _utf8(where, held)


def text(where: str, row: Mapping[str, Any], column: str, *, required: bool = False) -> str:
    """A column's text; empty only where it is not required."""
    held = value(where, row, column)
    held = "" if held is None else held
    if not isinstance(held, str):
        raise UserError(f"{where}: column '{column}' holds {type(held).__name__}, wants text")
    if required and not held.strip():
        raise UserError(f"{where}: column '{column}' is empty; fill it or leave the row out")
    return _utf8(where, held)


def _utf8(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half of a surrogate pair; mend the text") from None
    return text
