"""From a step of the batch plan to the tokens of its texts, for one process."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int

from hexapla.modeling.encoder import Encoder, Side, TextTokens, tokenize_texts
from hexapla.training import loss
from hexapla.training.gradcache import LocalBatch
from hexapla.training.samplers import Batch, BatchPlan


class TextTable(Protocol):
    """The texts of a parallel table, by row."""

    def texts(self, column: str, rows: Int[np.ndarray, " rows"]) -> list[str]: ...

    def negatives(self, rows: Int[np.ndarray, " rows"]) -> list[list[str]]: ...


class Lengths(NamedTuple):
    """Where texts are cut, in tokens, and how many hard negatives each pair brings into the batch."""

    query: int
    passage: int
    negatives: int = 0


class StepInputs(NamedTuple):
    """What one process needs for one step."""

    kind: str
    pairs: int
    """The number of pairs in the global batch."""
    tokenized: list[TextTokens]
    """This process's texts."""
    batch: LocalBatch


def collate(
    encoder: Encoder,
    table: TextTable,
    plan: BatchPlan,
    lengths: Lengths,
    process: int,
    processes: int,
    step: int,
) -> StepInputs:
    """Tokenize the queries, passages and hard negatives of a process's slice of a step's batch."""
    whole = plan.at(step)
    batch = whole.slice_for(process, processes)
    queries = table.texts("question", plan.index.rows[batch.items, batch.query_languages])
    passages = table.texts("passage", plan.index.rows[batch.items, batch.passage_languages])
    columns: list[tuple[Sequence[str | None], Side, int]] = [
        (queries, "query", lengths.query),
        (passages, "passage", lengths.passage),
    ]
    negatives, negative_ids = _choose_negatives(table, plan, lengths.negatives, whole, step)
    mine = slice(process * len(batch.items), (process + 1) * len(batch.items))
    columns += [(column[mine], "passage", lengths.passage) for column in negatives]
    tokenized: list[TextTokens] = []
    places: list[int] = []
    for number, (texts, side, tokens) in enumerate(columns):
        present = [row for row, text in enumerate(texts) if text is not None]
        tokenized += tokenize_texts(encoder, [texts[row] or "" for row in present], side, tokens)
        places += [number * len(batch.items) + row for row in present]
    local = LocalBatch(
        [len(text["input_ids"]) for text in tokenized],
        np.array(places),
        len(columns),
        len(batch.items),
        torch.from_numpy(plan.index.passages[whole.items].astype(np.int64)),
        torch.from_numpy(negative_ids),
    )
    return StepInputs(whole.kind, len(whole.items), tokenized, local)


def _choose_negatives(
    table: TextTable, plan: BatchPlan, count: int, batch: Batch, step: int
) -> tuple[list[list[str | None]], Int[np.ndarray, "count pairs"]]:
    """Choose `count` columns of hard negatives for the global batch; return them and their ids.

    A pair that has more of them than that uses others in the next epoch. A negative whose text is a passage of the
    batch gets that passage's id, so that it is no negative of the queries which that passage answers.
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
