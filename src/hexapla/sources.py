"""Named sources of English question-passage pairs, all with the same checks at the door.

Every source is a stream of rows with a place to name; `_pairs` turns rows into `Pair`s or says which
row is wrong. A new kind of source is one function that yields rows. An answer may be text, a list, or
SQuAD's `{text: [...]}` under `answers`; of several the first counts, and a row whose list is empty is
skipped: its passage does not answer it. `negatives` are a list of texts, or one text where a format has
no lists. Memory holds digests of what was seen, never the texts.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hexapla import intake, store
from hexapla.records import ORIGINAL, SOURCE_LANGUAGE, Mistake, Pair

_REQUIRED = ("question", "passage")


@dataclass
class Tally:
    """What became of a source's rows: `read` = `kept` + `duplicates`; `skipped` had no answer."""

    read: int = 0
    kept: int = 0
    duplicates: int = 0
    skipped: int = 0


# --- the sources -------------------------------------------------------------------------------


def sample_pairs(folder: Path, *, name: str = "sample", tally: Tally | None = None) -> Iterator[Pair]:
    """The English column of a parallel sample, `<folder>/pairs/en.jsonl`."""
    rows = intake.read_rows(folder / "pairs" / f"{SOURCE_LANGUAGE}.jsonl", "jsonl")
    return _pairs(rows, {}, name, tally or Tally())


def file_pairs(
    path: str,
    *,
    name: str,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    tally: Tally | None = None,
) -> Iterator[Pair]:
    """Pairs from one file, or from all files that a glob pattern matches, in order of name.

    Args:
        path: a file or a pattern, relative to the working directory.
        name: the source's name, put before its ids.
        format: `auto` (by suffix), `jsonl`, `csv`, `parquet`, or `squad` (SQuAD's JSON, Rajpurkar et
            al. 2016, arXiv 1606.05250; the first answer counts, questions without one are skipped).
        columns: our column -> theirs, where the names differ.
        tally: counts skipped questions.

    Raises:
        Mistake: nothing matches, or a row does not fit; the message names file and row.
    """
    return _pairs(_file_rows(path, format, columns or {}), columns or {}, name, tally or Tally())


def hub_pairs(
    dataset: str,
    *,
    name: str,
    revision: str,
    config: str = "",
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    tally: Tally | None = None,
) -> Iterator[Pair]:
    """Pairs streamed from a dataset of the hub, or from a local folder in the hub's layout.

    No code of the dataset's is run: `datasets` 4 and later reads data files only.

    Raises:
        Mistake: the hub can't be reached, dataset, configuration or split is unknown, or a row does
            not fit.
    """
    return _pairs(_hub_rows(dataset, config, revision, split), columns or {}, name, tally or Tally())


def distinct(pairs: Iterable[Pair], seen: set[bytes], tally: Tally) -> Iterator[Pair]:
    """Drop pairs whose question and passage came before; `seen` may be shared by several sources."""
    for pair in pairs:
        tally.read += 1
        digest = _digest(pair.question, pair.passage)
        if digest in seen:
            tally.duplicates += 1
            continue
        seen.add(digest)
        tally.kept += 1
        yield pair


# --- their rows --------------------------------------------------------------------------------


def _file_rows(path: str, format: str, columns: Mapping[str, str]) -> Iterator[intake.Row]:
    for file in _files(path):
        kind = intake.format_of(file) if format == "auto" else format
        if kind != "squad":
            yield from intake.read_rows(file, kind)
        elif columns:
            raise Mistake(f"{file}: SQuAD's JSON has its own names; leave `columns` out for it")
        else:
            yield from _squad_rows(file)


def _files(path: str) -> list[Path]:
    one = Path(path)
    if one.is_file() or not set(path) & set("*?["):
        return [one]
    anchor = Path(one.anchor)
    found = sorted(file for file in anchor.glob(str(one.relative_to(anchor))) if file.is_file())
    if not found:
        raise Mistake(f"{path}: no file matches this pattern")
    return found


def _squad_rows(file: Path) -> Iterator[intake.Row]:
    tree = store.read_json(file)
    where = str(file)
    try:
        for article in tree["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    where = f"{file}, question '{qa['id']}'"
                    answers = [] if qa.get("is_impossible") else [one["text"] for one in qa["answers"]]
                    row = {"id": qa["id"], "question": qa["question"], "passage": paragraph["context"]}
                    yield where, {**row, "answers": answers}
    except (KeyError, TypeError, AttributeError) as error:
        raise Mistake(f"{where}: not SQuAD's format ({type(error).__name__}: {error})") from None


def _hub_rows(dataset: str, config: str, revision: str, split: str) -> Iterator[intake.Row]:
    if dataset.startswith((".", "/", "~")) and not Path(dataset).is_dir():
        raise Mistake(f"dataset '{dataset}': no such folder")
    import datasets  # takes seconds; only this source needs it

    try:
        stream = datasets.load_dataset(
            dataset, config or None, revision=revision, split=split, streaming=True
        )
        for number, row in enumerate(stream, 1):
            yield f"{dataset} ({split}), row {number}", row
    # Whatever a network, a hub and a dozen readers may raise; nothing of ours runs in this block.
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")[:200]
        raise Mistake(
            f"dataset '{dataset}', split '{split}': can't be read ({type(error).__name__}: {line}); "
            "check dataset, config, revision, split and network"
        ) from None


# --- from rows to pairs ------------------------------------------------------------------------


def _pairs(rows: Iterable[intake.Row], columns: Mapping[str, str], name: str, tally: Tally) -> Iterator[Pair]:
    owners: dict[bytes, bytes] = {}
    for where, row in rows:
        answer = _answer(where, row, columns)
        if answer is None:
            tally.skipped += 1
            continue
        _refuse_foreign(where, row, columns)
        question, passage = (_text(where, row, columns, column) for column in _REQUIRED)
        content = _digest(question, passage)
        own = _text(where, row, columns, "id")
        if own and owners.setdefault(hashlib.sha256(own.encode()).digest()[:16], content) != content:
            raise Mistake(f"{where}: id '{own}' stood before with another text; a source's ids must differ")
        passage_id = f"p{_digest(passage).hex()[:16]}"
        # A number in the file would change with the order of its rows; the content does not.
        own = own or content.hex()[:16]
        pair = Pair(f"{name}/{own}", name, SOURCE_LANGUAGE, question, passage, answer, passage_id, ORIGINAL)
        yield pair._replace(negatives=_negatives(where, row, columns))


def _text(where: str, row: Mapping[str, Any], columns: Mapping[str, str], column: str) -> str:
    theirs, value = _found(where, row, columns, column)
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _checked(where, theirs, value, required=column in _REQUIRED)


def _found(where: str, row: Mapping[str, Any], columns: Mapping[str, str], column: str) -> tuple[str, Any]:
    """Their name for a column of ours, and what the row holds there; None where nobody asked for it."""
    theirs = columns.get(column, column)
    if theirs not in row and (column in columns or column in _REQUIRED):
        raise Mistake(
            f"{where}: no column '{theirs}' (it has {', '.join(map(str, row)) or 'none'}); "
            f"name theirs in the source's `columns: {{{column}: ...}}`"
        )
    return theirs, row.get(theirs)


def _checked(where: str, theirs: str, value: Any, *, required: bool) -> str:
    value = "" if value is None else value
    if not isinstance(value, str):
        raise Mistake(f"{where}: column '{theirs}' holds {type(value).__name__}, wants text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Mistake(f"{where}: column '{theirs}' holds half of a surrogate pair; mend the text") from None
    if required and not value.strip():
        raise Mistake(f"{where}: column '{theirs}' is empty; fill it or leave the row out")
    return value.strip()


def _answer(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """The answer, '' when the row names none; None when it says that the passage has none."""
    theirs = columns.get("answer", "answers" if "answer" not in row and "answers" in row else "answer")
    value = row.get(theirs)
    texts = value.get("text") if isinstance(value, Mapping) else value
    if isinstance(texts, list):
        return _checked(where, theirs, texts[0], required=False) if texts else None
    if theirs in row:
        return _checked(where, theirs, value, required=False)
    return _text(where, row, columns, "answer")


def _negatives(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Empty ones in a list stay: `validate` counts what it drops. An empty field is no negative."""
    theirs, value = _found(where, row, columns, "negatives")
    if value is None or isinstance(value, str):
        text = _checked(where, theirs, value, required=False)
        return (text,) if text else ()
    if not isinstance(value, list):
        raise Mistake(f"{where}: column '{theirs}' holds {type(value).__name__}, wants a list of texts")
    return tuple(_checked(where, f"{theirs}[{i}]", text, required=False) for i, text in enumerate(value))


def _refuse_foreign(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    theirs = columns.get("lang", "lang")
    if "lang" in columns or theirs in row:
        lang = _text(where, row, columns, "lang")
        if lang != SOURCE_LANGUAGE:
            raise Mistake(
                f"{where}: '{theirs}' is '{lang}', English ('{SOURCE_LANGUAGE}') wanted; leave such rows out"
            )


def _digest(*texts: str) -> bytes:
    """Of texts, whatever their spaces and their Unicode composition."""
    plain = (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)
    return hashlib.sha256("\0".join(plain).encode()).digest()[:16]
