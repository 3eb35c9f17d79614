"""Quality of all rows, a piece of a column at a time; what is known of a piece is not worked out again.

A row's quality depends on the row and its English row alone. The identifier therefore chooses among the big
languages and the row's own, and not among all of the table: a language more changes no other's figures.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from hexapla.config import Executor
from hexapla.data.translate import columns, failures, pieces, quality
from hexapla.data.translate.columns import Column
from hexapla.data.translate.parallel import Tally
from hexapla.data.translate.pieces import Piece
from hexapla.data.translate.textshards import held
from hexapla.parallel import executors
from hexapla.parallel.executors import Task
from hexapla.schema import SOURCE_LANGUAGE, Pair, Quality, UserError
from hexapla.text.languages import Identifier

Keys = dict[str, list[list[str]]]
"""By language and part, those of its pieces."""

_LIGHT = 1 << 14
"""Rows below which no process is started for them."""
_STAGE = "quality"


class Likeness(NamedTuple):
    """How passages are compared: by the vectors of this encoder, computed so."""

    encoder: str
    precision: Literal["fp32", "bf16"]


def check(encoder: str) -> None:
    """Raise UserError unless the encoder is there; before any work."""
    from hexapla.data.translate import nearness  # torch, which takes seconds

    nearness.load(encoder)


def rate_all(table: Sequence[Column], tallies: Mapping[str, Tally], encoder: str, executor: Executor) -> Keys:
    """See to it that the quality of all rows is kept.

    Args:
        table: English first.
        tallies: by language; what becomes of its rows is counted there.
        encoder: by which passages are compared; '' for no cosine.
        executor: where the work is done.

    Raises:
        UserError: a language has no rows; or pieces failed, as often as the executor tries, and the others
            are kept.
    """
    failures.clear(_STAGE)
    likeness = _likeness(encoder) if encoder else None
    judges = [_identifier(SOURCE_LANGUAGE).name, *([_identity(likeness)] if likeness else [])]
    keys: Keys = {column.lang: [[] for _ in column.parts] for column in table}
    todo = _Todo(set(), Counter(), set())
    for column in table:
        for number, piece in _pieces(column, tallies[column.lang], range(len(column.parts))):
            key = piece.key(judges)
            keys[column.lang][number].append(key)
            if piece.rows and not held(pieces.place(key), len(piece.rows)):
                todo.keys.add(key)
                todo.rows[column.lang] += len(piece.rows)
                if column.lang != SOURCE_LANGUAGE:
                    todo.beside.add((number, piece.number))
    _refuse_empty(table, tallies)
    if todo.keys:
        likeness = likeness if todo.beside else None
        vectors = _vectors(table[0], todo, likeness, executor) if likeness else {}
        _rate(table, keys, todo, vectors, likeness, executor)
    return keys


class _Todo(NamedTuple):
    keys: set[str]
    rows: Counter[str]
    """By language."""
    beside: set[tuple[int, int]]
    """Part and piece of the English rows that rows are to be compared with."""


def _likeness(encoder: str) -> Likeness:
    """Once a run, since it is a matter of timing: all its rows are compared in one way."""
    from hexapla.data.translate import nearness

    return Likeness(encoder, nearness.precision(encoder))


def _identity(likeness: Likeness) -> str:
    """Of all that vectors, and so cosines, depend on."""
    from hexapla.data.translate import nearness

    return f"{nearness.identity(likeness.encoder)} {likeness.precision} {nearness.TOKENS}"


def _refuse_empty(table: Sequence[Column], tallies: Mapping[str, Tally]) -> None:
    for column in table:
        tally = tallies[column.lang]
        if column.lang != SOURCE_LANGUAGE and not tally.translated and not tally.original:
            raise UserError(
                f"translate.languages: no row in '{column.lang}': {column.engine} has question and passage "
                f"of none of the {tally.missing} pairs; take another engine or memory, or '{column.lang}' "
                "off the list"
            )


def _pieces(column: Column, tally: Tally, numbers: Iterable[int]) -> Iterator[tuple[int, Piece]]:
    for number in numbers:
        for piece in pieces.cut(columns.rows(column, number, tally)):
            yield number, piece


def _vectors(
    english: Column, todo: _Todo, likeness: Likeness, executor: Executor
) -> dict[tuple[int, int], str]:
    """Keys of the vectors of English passages, after they have been computed where they were not."""
    from hexapla.data.translate import nearness

    identity = _identity(likeness)
    parts = sorted({part for part, _ in todo.beside})
    keys: dict[tuple[int, int], str] = {}
    missing: Counter[tuple[int, int]] = Counter()
    for number, piece in _pieces(english, Tally(), parts):
        if (at := (number, piece.number)) in todo.beside:
            keys[at] = piece.vectors_key(identity)
            if not pieces.holds_vectors(keys[at]):
                missing[at] = len(piece.rows)

    def tasks() -> Iterator[Task]:
        for number, piece in _pieces(english, Tally(), parts):
            if (at := (number, piece.number)) in missing:
                passages = [row.passage or "" for row in piece.rows]
                yield Task(keys[at], SOURCE_LANGUAGE, (passages, *likeness), len(passages))

    def save(task: Task, found: np.ndarray) -> None:
        pieces.keep_vectors(task.key, found)

    if missing:
        totals = Counter({SOURCE_LANGUAGE: missing.total()})
        _run(nearness.vectors, tasks(), totals, executor, save, describe="English passages", on_gpu=True)
    return keys


def _rate(
    table: Sequence[Column],
    keys: Keys,
    todo: _Todo,
    vectors: Mapping[tuple[int, int], str],
    likeness: Likeness | None,
    executor: Executor,
) -> None:
    def tasks() -> Iterator[Task]:
        for column in table:
            known = keys[column.lang]
            wanting = [number for number, each in enumerate(known) if not todo.keys.isdisjoint(each)]
            for number, piece in _pieces(column, Tally(), wanting):
                if (key := known[number][piece.number]) in todo.keys:
                    todo.keys.remove(key)
                    beside = vectors.get((number, piece.number)) if column.lang != SOURCE_LANGUAGE else None
                    english = pieces.kept_vectors(beside)[piece.places] if beside else None
                    rows, originals = ([_bare(pair) for pair in each] for each in piece[2:])
                    arguments = (column.lang, rows, originals, english, likeness)
                    yield Task(key, column.lang, arguments, len(rows))

    def save(task: Task, found: list[Quality]) -> None:
        pieces.keep(task.key, found)

    _run(rate, tasks(), todo.rows, executor, save, describe=_STAGE, on_gpu=likeness is not None)


def _run(
    function: Callable[..., Any],
    tasks: Iterator[Task],
    totals: Counter[str],
    executor: Executor,
    save: Callable[[Task, Any], None],
    *,
    describe: str,
    on_gpu: bool,
) -> None:
    failed = executors.run(
        function,
        tasks,
        executor,
        save=save,
        unit="rows",
        describe=describe,
        totals=totals,
        light=_LIGHT,
        on_gpu=on_gpu,
    )
    failures.refuse(_STAGE, failed, "rows")


def _bare(pair: Pair | None) -> Pair | None:
    """Without what no measure looks at, since it travels."""
    return pair._replace(negatives=()) if pair else None


# --- a piece, wherever that runs -------------------------------------------------------------


@functools.lru_cache(2)
def _identifier(lang: str) -> Identifier:
    return Identifier([lang])


def rate(
    lang: str,
    rows: list[Pair],
    originals: list[Pair | None],
    english: np.ndarray | None,
    likeness: Likeness | None,
) -> list[Quality]:
    """Quality of rows of a language.

    Args:
        lang: the rows'.
        rows: of which question, passage and answer count.
        originals: their English rows.
        english: vectors of the English passages, [rows, dim]; None for no cosine.
        likeness: how they were made.
    """
    told = _identifier(lang)
    found = [quality.measure(row, original, told) for row, original in zip(rows, originals, strict=True)]
    if english is None or likeness is None:
        return found
    from hexapla.data.translate import nearness

    cosines = nearness.cosines([row.passage or "" for row in rows], english, *likeness)
    return [each._replace(cosine=cosine) for each, cosine in zip(found, cosines, strict=True)]
