"""What a training step needs, made ready while the step before it runs."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch

from hexapla.modeling.encoder import Encoder, Side
from hexapla.modeling.tokenization import Pieces, pieces
from hexapla.training import loss
from hexapla.training.gradcache import Part
from hexapla.training.samplers import Batch, Plan


class Table(Protocol):
    """Texts of the parallel table, by row."""

    def texts(self, column: str, rows: np.ndarray) -> list[str]: ...

    def negatives(self, rows: np.ndarray) -> list[list[str]]: ...


class Lengths(NamedTuple):
    """Tokens where texts are cut, and how many hard negatives a pair brings into the batch."""

    question: int
    passage: int
    negatives: int = 0


class Inputs(NamedTuple):
    """Of one step, for one process."""

    kind: str
    pairs: int
    """Of the global batch."""
    pieces: list[Pieces]
    """Of this process's texts."""
    part: Part


def prepare(
    encoder: Encoder, table: Table, plan: Plan, lengths: Lengths, process: int, processes: int, step: int
) -> Inputs:
    """Questions, passages and hard negatives of a process's slice of the batch, tokenised."""
    whole = plan.at(step)
    batch = whole.part(process, processes)
    questions = table.texts("question", plan.index.rows[batch.items, batch.question_languages])
    passages = table.texts("passage", plan.index.rows[batch.items, batch.passage_languages])
    columns: list[tuple[Sequence[str | None], Side, int]] = [
        (questions, "query", lengths.question),
        (passages, "passage", lengths.passage),
    ]
    negatives, negative_ids = _negatives(table, plan, lengths.negatives, whole, step)
    mine = slice(process * len(batch.items), (process + 1) * len(batch.items))
    columns += [(column[mine], "passage", lengths.passage) for column in negatives]
    made: list[Pieces] = []
    places: list[int] = []
    for number, (texts, side, tokens) in enumerate(columns):
        there = [row for row, text in enumerate(texts) if text is not None]
        made += pieces(encoder, [texts[row] or "" for row in there], side, tokens)
        places += [number * len(batch.items) + row for row in there]
    part = Part(
        [len(text["input_ids"]) for text in made],
        np.array(places),
        len(columns),
        len(batch.items),
        torch.from_numpy(plan.index.passages[whole.items].astype(np.int64)),
        torch.from_numpy(negative_ids),
    )
    return Inputs(whole.kind, len(whole.items), made, part)


def _negatives(
    table: Table, plan: Plan, count: int, batch: Batch, step: int
) -> tuple[list[list[str | None]], np.ndarray]:
    """`count` columns of the global batch's hard negatives, and their ids, int [count, pairs].

    A pair that has more of them brings others in the next epoch. One whose text is a passage of the batch
    has that passage's id, so that it is no negative of the questions which that passage answers.
    """
    ids = np.full((count, len(batch.items)), loss.ABSENT, np.int64)
    columns: list[list[str | None]] = [[None] * len(batch.items) for _ in range(count)]
    if not count:
        return columns, ids
    rows = plan.index.rows[batch.items, batch.passage_languages]
    known = dict(zip(table.texts("passage", rows), plan.index.passages[batch.items].tolist(), strict=True))
    unknown = int(plan.index.passages.max()) + 1
    first = step // max(len(plan), 1) * count
    for row, texts in enumerate(table.negatives(rows)):
        for column in range(min(count, len(texts))):
            text = texts[(first + column) % len(texts)]
            columns[column][row] = text
            ids[column, row] = known.get(text, unknown)
    return columns, ids


def ahead(prepare: Callable[[int], Inputs], steps: Sequence[int]) -> Iterator[Inputs]:
    """The inputs of each step; the next are prepared meanwhile (tokenizers leave Python's lock alone)."""
    with ThreadPoolExecutor(1, "inputs") as thread:
        pending = [thread.submit(prepare, step) for step in steps[:1]]
        for step in steps:
            ready = pending.pop().result()
            if step + 1 in steps:
                pending.append(thread.submit(prepare, step + 1))
            yield ready
