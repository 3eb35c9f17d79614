"""Many texts to unit vectors, as fast as the machine allows, each only once.

Equal texts are encoded once. The others are sorted by length and cut into windows; a window is looked
up in the cache and tokenised while the model works on the one before; inside it texts of (nearly) the
same number of tokens share a batch, so little is spent on padding. Windows and batches follow from the
texts alone, not from their order nor from the number of processes.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from tqdm import tqdm

from hexapla.modeling import embedding_cache
from hexapla.modeling.encoder import Encoder, Side, Text
from hexapla.modeling.tokenization import Pieces, batches, budget, extras, padded, pieces
from hexapla.parallel import distributed
from hexapla.schema import UserError

WINDOW = 4096
FORMAT = 1
"""Part of the cache's key: one more whenever the same model and text come to give other vectors."""

Precision = Literal["fp32", "bf16"]
Forward = Callable[[Sequence[Pieces]], Float32[np.ndarray, "batch dim"]]
Key = TypeVar("Key")
Made = TypeVar("Made")


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
        precision: of the transformer; pooling and all after it is in fp32. See `resolve_precision`.
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
                for window in prefetch(job.prepare, mine):
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
    forward = make_forward(encoder, [unique[i] for i in (0, len(unique) // 2, -1)], side, tokens, precision)
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


def prefetch(prepare: Callable[[Key], Made], keys: Iterable[Key]) -> Iterator[Made]:
    """`prepare(key)` for each key in turn; a thread prepares the next while the caller uses the one before.

    Fast tokenizers release Python's lock, so the two do run at the same time.
    """
    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        for key in keys:
            pending.append(thread.submit(prepare, key))
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


# --- the forward pass --------------------------------------------------------------------------


def resolve_precision(encoder: Encoder, wanted: str) -> Precision:
    """Return `fp32` or `bf16` as wanted, or for `auto` the better one for this hardware, the same in all processes.

    `auto` is a rule and no measurement, so that one `params.yaml` gives the same data every day. bf16 is for GPUs and
    CPUs that compute in it; others emulate it and are slower than with fp32. A model that only sentence-transformers
    can feed is always encoded in fp32.

    Raises:
        UserError: `wanted` is none of the three.
    """
    if wanted not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision: '{wanted}' is unknown; choose auto, fp32 or bf16")
    if wanted != "auto":
        return "bf16" if wanted == "bf16" else "fp32"
    suits = has_bf16_units(encoder.device) and extras(encoder, ["six columns"], "passage", 16) is not None
    return "bf16" if distributed.agreed("bf16" if suits else "fp32") == "bf16" else "fp32"


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device computes in bf16: a GPU by its own word, a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards back to what it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def make_forward(
    encoder: Encoder, probe: Sequence[Text], side: Side, tokens: int, precision: Precision
) -> Forward | None:
    """Make the function from the tokens of a batch to unit vectors; None where only sentence-transformers can feed
    the model.

    For bf16 it copies the transformer: that is 5 to 10 % faster on 2 cores than autocast, which casts the weights anew
    in every batch. Cosines to fp32 are at least 0.99995 (autocast's: 0.99998).

    Args:
        encoder: the model.
        probe: a few texts, by which the two ways of preparing a batch are compared.
        side: of the texts.
        tokens: where a text is cut, prompt included.
        precision: of the transformer.

    Raises:
        UserError: bf16 is wanted of a model that only sentence-transformers can feed.
    """
    more = extras(encoder, [text if isinstance(text, str) else text[0] for text in probe], side, tokens)
    if more is None:
        if precision == "bf16":
            raise UserError("encode: bf16 is not for this encoder (no plain transformer); use fp32")
        return None
    first, *rest = encoder.model.children()
    transformer = _copy_in_bf16(first) if precision == "bf16" else first
    device = encoder.device

    def forward(batch: Sequence[Pieces]) -> Float32[np.ndarray, "batch dim"]:
        features = {name: tensor.to(device) for name, tensor in padded(encoder, batch).items()}
        with torch.inference_mode():
            out = transformer({**features, **more})
            out = {name: value.float() if _is_bf16(value) else value for name, value in out.items()}
            for module in rest:
                out = module(out)
            unit = nn.functional.normalize(out["sentence_embedding"].float(), dim=-1)
            embeddings: np.ndarray = unit.cpu().numpy()
            return embeddings

    return forward


def _copy_in_bf16(module: nn.Module) -> nn.Module:
    """Copy a module with bf16 weights, without copying fp32 weights or the tokenizer on the way."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        for weight in module.parameters()
        if weight.is_floating_point()
    }
    if (processor := getattr(module, "processor", None)) is not None:
        memo[id(processor)] = processor
    return copy.deepcopy(module, memo)


def _is_bf16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
