"""Many texts to unit vectors, as fast as the machine allows, each only once.

Equal texts are encoded once. The others are sorted by length and cut into windows; a window is looked
up in the cache and tokenised while the model works on the one before; inside it texts of (nearly) the
same number of tokens share a batch, so little is spent on padding. Windows and batches follow from the
texts alone, not from their order nor from the number of processes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hexapla.modeling import embedding_cache
from hexapla.modeling.encoder import Encoder, Side, Text
from hexapla.modeling.precision import (
    Precision,
    evaluating,
    forward_of,
    measured_precision,
    resolved_precision,
)
from hexapla.modeling.tokenization import Pieces, batches, budget, pieces
from hexapla.parallel import distributed
from hexapla.schema import UserError

__all__ = [
    "FORMAT",
    "WINDOW",
    "Precision",
    "encode",
    "measured_precision",
    "resolved_precision",
]

WINDOW = 4096
FORMAT = 1
"""Part of the cache's key: one more whenever the same model and text come to give other vectors."""


def encode(
    encoder: Encoder,
    texts: Sequence[Text],
    side: Side,
    tokens: int,
    *,
    precision: Precision = "fp32",
    cache: embedding_cache.Cache | None = None,
    progress: str = "",
) -> np.ndarray:
    """Unit vectors float32 [texts, dim], in the texts' order, without gradient.

    With several processes each encodes its share, and all get the whole.

    Args:
        encoder: its weights count as they are now.
        texts: a pair is a sentence and its context.
        side: whose prompt is put before the text.
        tokens: where a text is cut, prompt included.
        precision: of the transformer; pooling and all after it is in fp32. See `resolved_precision`.
        cache: keeps a window's vectors as soon as it is done.
        progress: label of the progress bar; empty for none. Without a terminal there is none.

    Raises:
        UserError: a text that is no Unicode, a vector that is not finite, or no bf16 for this encoder.
    """
    unique = sorted(set(texts), key=_by_length)
    _refuse_halves(unique)
    found = np.zeros((len(unique), encoder.dim), np.float32)
    starts = range(0, len(unique), WINDOW)
    mine = starts[distributed.rank() :: distributed.count()]
    if unique:
        with _shelf(cache, encoder, side, tokens, precision) as shelf, evaluating(encoder.model):
            job = _job(encoder, unique, found, side, tokens, precision, shelf)
            with _bar(progress, sum(len(unique[start : start + WINDOW]) for start in mine)) as bar:
                for window in _ahead(job.prepare, mine):
                    job.work(window, bar.update)
        _share(found, starts)
    position = {text: row for row, text in enumerate(unique)}
    return found[np.fromiter((position[text] for text in texts), np.int64, len(texts))]


def _by_length(text: Text) -> tuple[int, tuple[str, ...]]:
    """The text itself decides between equals, so that the order given does not."""
    parts = (text,) if isinstance(text, str) else text
    return sum(map(len, parts)), parts


def _refuse_halves(texts: Iterable[Text]) -> None:
    for text in texts:
        try:
            "".join(text).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"encode: the text {_short(text)} holds half a character; mend its JSON"
            ) from None


def _bar(label: str, total: int) -> Any:
    shown = bool(label) and distributed.is_main()
    return tqdm(total=total, desc=label, unit=" texts", disable=None if shown else True)


def _shelf(
    cache: embedding_cache.Cache | None, encoder: Encoder, side: Side, tokens: int, precision: Precision
) -> AbstractContextManager[embedding_cache.Shelf | None]:
    if cache is None:
        return nullcontext()
    return cache.shelf(
        {
            "format": FORMAT,
            "encoder": encoder.fingerprint,
            "prompt": encoder.prompts[side],
            "tokens": encoder.limit(tokens),
            "precision": precision,
            "device": encoder.device.type,
        }
    )


def _share(found: np.ndarray, starts: range) -> None:
    """Give every process the windows of the others."""
    count = distributed.count()
    if count == 1:
        return
    deals = [starts[rank::count] for rank in range(count)]
    mine = [found[start : start + WINDOW] for start in deals[distributed.rank()]]
    for deal, rows in zip(deals, distributed.gather(np.concatenate([found[:0], *mine])), strict=True):
        for number, start in enumerate(deal):
            part = rows[number * WINDOW : (number + 1) * WINDOW]
            found[start : start + len(part)] = part


# --- windows ---------------------------------------------------------------------------------


class _Window(NamedTuple):
    start: int
    missing: np.ndarray
    """Positions in the window of the texts that the cache does not have."""
    pieces: list[Pieces]
    """Of the missing; none where the model tokenises by itself."""


class _Job(NamedTuple):
    prepare: Callable[[int], _Window]
    work: Callable[[_Window, Callable[[int], Any]], None]


def _job(
    encoder: Encoder,
    unique: list[Text],
    found: np.ndarray,
    side: Side,
    tokens: int,
    precision: Precision,
    shelf: embedding_cache.Shelf | None,
) -> _Job:
    """How to prepare a window (in another thread), and how to work on it; both fill `found`."""
    forward = forward_of(encoder, [unique[i] for i in (0, len(unique) // 2, -1)], side, tokens, precision)
    names = embedding_cache.digests(unique) if shelf else np.empty(0)
    held = shelf.find(names) if shelf else None

    def prepare(start: int) -> _Window:
        part = slice(start, start + WINDOW)
        texts = unique[part]
        there = np.zeros(len(texts), bool)
        if shelf and held:
            there = shelf.read(embedding_cache.Found(held.shards[part], held.rows[part]), found[part])
        missing = np.flatnonzero(~there)
        wanted = [texts[i] for i in missing]
        return _Window(start, missing, pieces(encoder, wanted, side, tokens) if forward else [])

    def work(window: _Window, tell: Callable[[int], Any]) -> None:
        start, missing, tokenized = window
        into = found[start : start + WINDOW]
        tell(len(into) - len(missing))
        if forward is None and len(missing):
            wanted = [unique[start + i] for i in missing]
            into[missing] = encoder.encode(wanted, side, tokens, 32)
            tell(len(missing))
        for batch in batches([len(p["input_ids"]) for p in tokenized], budget(encoder.device)):
            into[missing[batch]] = forward([tokenized[i] for i in batch]) if forward else 0
            tell(len(batch))
        _check(into, unique[start : start + WINDOW], precision)
        if shelf:
            shelf.add(names[start + missing], into[missing])

    return _Job(prepare, work)


def _ahead(prepare: Callable[[int], _Window], starts: Iterable[int]) -> Iterator[_Window]:
    """Each window; the next is prepared meanwhile (fast tokenizers leave Python's lock alone)."""
    pending: deque[Future[_Window]] = deque()
    with ThreadPoolExecutor(1, "tokenizer") as thread:
        for start in starts:
            pending.append(thread.submit(prepare, start))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _check(rows: np.ndarray, texts: Sequence[Text], precision: Precision) -> None:
    # Written so that NaN, which is neither more nor less than anything, is wrong too.
    wrong = np.flatnonzero(~(np.abs(np.linalg.norm(rows, axis=1) - 1) < 0.01))
    if len(wrong):
        mend = (
            "use fp32" if precision == "bf16" else "the encoder's weights are broken; train or load it anew"
        )
        raise UserError(
            f"encode: the vector of {_short(texts[wrong[0]])} is not finite or has no length; {mend}"
        )


def _short(text: Text) -> str:
    first = "".join(text)
    return (
        ascii(first[:40]) + ("…" if len(first) > 40 else "")
        if not first.isprintable()
        else repr(first[:40] + "…" * (len(first) > 40))
    )
