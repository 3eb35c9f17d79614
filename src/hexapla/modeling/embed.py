"""Many texts to unit vectors, as fast as the machine allows, each different text only once.

The different texts are sorted by length and cut into windows. The next window is looked up in the cache and
tokenized while the model works on the one before. Within a window, texts of (nearly) the same number of
tokens share a batch, so little is spent on padding. Windows and batches follow from the texts alone, not from
their order nor from the number of processes.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from tqdm import tqdm

from hexapla.modeling.embedding_cache import EmbeddingCache, window_key
from hexapla.modeling.encoder import (
    Encoder,
    Precision,
    Side,
    Text,
    TextTokens,
    extra_features,
    pad_batch,
    split_into_batches,
    tokenize_texts,
    tokens_per_batch,
)
from hexapla.parallel import distributed
from hexapla.schema import UserError

WINDOW = 4096
"""Texts of a window."""

FORMAT = 1
"""Part of the cache's key: raise it whenever the same model and text come to give other embeddings."""

Forward = Callable[[Sequence[TextTokens]], Float32[np.ndarray, "batch dim"]]
Key = TypeVar("Key")
Made = TypeVar("Made")


def encode(
    encoder: Encoder,
    texts: Sequence[Text],
    side: Side,
    tokens: int,
    *,
    precision: Precision = "fp32",
    cache: EmbeddingCache | None = None,
    progress: str = "",
) -> Float32[np.ndarray, "texts dim"]:
    """Encode once, with the weights as they are now: `Embedder.encode` of a new `Embedder`."""
    return Embedder(encoder, precision=precision, cache=cache).encode(texts, side, tokens, progress=progress)


class Embedder:
    """An encoder that is prepared for many calls of `encode`: hashed, and copied to bf16, only once.

    Its weights must not change meanwhile.

    Args:
        encoder: the model.
        precision: of the transformer; pooling and everything after it is computed in fp32.
        cache: keeps each window as soon as it is done.
    """

    def __init__(
        self, encoder: Encoder, *, precision: Precision = "fp32", cache: EmbeddingCache | None = None
    ) -> None:
        self.encoder, self.precision, self.cache = encoder, precision, cache

    def encode(
        self, texts: Sequence[Text], side: Side, tokens: int, *, progress: str = ""
    ) -> Float32[np.ndarray, "texts dim"]:
        """Unit vectors in the order of the texts, without gradient.

        With several processes each encodes its share, and all get the whole.

        Args:
            texts: a pair is a sentence and its context.
            side: whose prompt is put before the text.
            tokens: where a text is cut, prompt included.
            progress: label of the progress bar; empty for none. Without a terminal there is none.

        Raises:
            UserError: a text is no Unicode, a vector is not finite, or the encoder can't run in bf16.
        """
        unique = sorted(set(texts), key=_length_and_text)
        _refuse_lone_surrogates(unique)
        embeddings = np.zeros((len(unique), self.encoder.dim), np.float32)
        starts = range(0, len(unique), WINDOW)
        mine = starts[distributed.rank() :: distributed.count()]
        if unique:
            with evaluating(self.encoder.model):
                self._fill(embeddings, unique, mine, side, tokens, progress)
            _share_windows(embeddings, starts)
        row_of = {text: row for row, text in enumerate(unique)}
        return embeddings[np.fromiter((row_of[text] for text in texts), np.int64, len(texts))]

    def forward(self, probe: Sequence[Text], side: Side, tokens: int) -> Forward | None:
        """How to encode the tokens of a batch; None where only sentence-transformers can feed the model.

        Args:
            probe: a few texts, by which the two ways of preparing a batch are compared.
            side: of the texts.
            tokens: where a text is cut, prompt included.

        Raises:
            UserError: bf16 is wanted of a model that only sentence-transformers can feed.
        """
        plain = [text if isinstance(text, str) else text[0] for text in probe]
        extra = extra_features(self.encoder, plain, side, tokens)
        if extra is None:
            if self.precision == "bf16":
                raise UserError("encode: bf16 is not for this encoder (no plain transformer); use fp32")
            return None
        transformer, rest, device = (
            self._transformer,
            list(self.encoder.model.children())[1:],
            self.encoder.device,
        )

        def forward(batch: Sequence[TextTokens]) -> Float32[np.ndarray, "batch dim"]:
            features = {name: values.to(device) for name, values in pad_batch(self.encoder, batch).items()}
            with torch.inference_mode():
                out = transformer({**features, **extra})
                out = {name: value.float() if _is_bf16(value) else value for name, value in out.items()}
                for module in rest:
                    out = module(out)
                unit = nn.functional.normalize(out["sentence_embedding"].float(), dim=-1)
                embeddings: np.ndarray = unit.cpu().numpy()
                return embeddings

        return forward

    @cached_property
    def _transformer(self) -> nn.Module:
        """The first module, or a copy of it in bf16.

        The copy is 5 to 10 % faster on 2 cores than autocast, which casts the weights anew in every batch;
        its cosines to fp32 are at least 0.99995 (autocast's: 0.99998).
        """
        first: nn.Module = next(iter(self.encoder.model.children()))
        return _in_bf16(first) if self.precision == "bf16" else first

    @cached_property
    def _fingerprint(self) -> str:
        return self.encoder.fingerprint

    def _settings(self, side: Side, tokens: int) -> dict[str, str | int]:
        return {
            "format": FORMAT,
            "encoder": self._fingerprint,
            "prompt": self.encoder.prompts[side],
            "tokens": self.encoder.limit(tokens),
            "precision": self.precision,
            "device": self.encoder.device.type,
        }

    def _fill(
        self,
        embeddings: np.ndarray,
        unique: list[Text],
        starts: Sequence[int],
        side: Side,
        tokens: int,
        progress: str,
    ) -> None:
        """Fill the windows that begin at `starts`."""
        forward = self.forward([unique[i] for i in (0, len(unique) // 2, -1)], side, tokens)
        settings = self._settings(side, tokens) if self.cache else {}

        def prepare(start: int) -> _Window:
            texts = unique[start : start + WINDOW]
            key = window_key(settings, texts) if self.cache else ""
            known = self.cache.read(key, len(texts), embeddings.shape[1]) if self.cache else None
            wanted = texts if forward and known is None else []
            return _Window(start, texts, key, known, tokenize_texts(self.encoder, wanted, side, tokens))

        with _progress_bar(progress, sum(len(unique[start : start + WINDOW]) for start in starts)) as bar:
            for start, texts, key, known, tokenized in prefetch(prepare, starts):
                rows = embeddings[start : start + WINDOW]
                if known is not None:
                    rows[:] = known
                elif forward is None:
                    rows[:] = self.encoder.encode(texts, side, tokens, 32)
                lengths = [len(text["input_ids"]) for text in tokenized]
                for batch in split_into_batches(lengths, tokens_per_batch(self.encoder.device)):
                    assert forward
                    rows[batch] = forward([tokenized[i] for i in batch])
                    bar.update(len(batch))
                bar.update(len(texts) - len(tokenized))
                _refuse_broken(rows, texts, self.precision)
                if self.cache and known is None:
                    self.cache.write(key, rows)


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
    suits = (
        has_bf16_units(encoder.device) and extra_features(encoder, ["six columns"], "passage", 16) is not None
    )
    return "bf16" if distributed.agreed("bf16" if suits else "fp32") == "bf16" else "fp32"


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device computes in bf16: a GPU by its own word, a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


class _Window(NamedTuple):
    start: int
    texts: list[Text]
    key: str
    known: np.ndarray | None
    """What the cache has."""
    tokenized: list[TextTokens]
    """Empty where the cache has the window, or the model tokenizes by itself."""


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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards back to what it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _in_bf16(module: nn.Module) -> nn.Module:
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


def _share_windows(embeddings: np.ndarray, starts: range) -> None:
    """Give every process the windows that the others encoded."""
    count = distributed.count()
    if count == 1:
        return
    deals = [starts[rank::count] for rank in range(count)]
    mine = [embeddings[start : start + WINDOW] for start in deals[distributed.rank()]]
    gathered = distributed.gather(np.concatenate([embeddings[:0], *mine]))
    for deal, rows in zip(deals, gathered, strict=True):
        for number, start in enumerate(deal):
            part = rows[number * WINDOW : (number + 1) * WINDOW]
            embeddings[start : start + len(part)] = part


def _length_and_text(text: Text) -> tuple[int, tuple[str, ...]]:
    """Sort by length; the text itself decides between equals, so that the given order does not."""
    parts = (text,) if isinstance(text, str) else text
    return sum(map(len, parts)), parts


def _progress_bar(label: str, total: int) -> Any:
    shown = bool(label) and distributed.is_main()
    return tqdm(total=total, desc=label, unit=" texts", disable=None if shown else True)


def _refuse_lone_surrogates(texts: Iterable[Text]) -> None:
    for text in texts:
        try:
            "".join(text).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"encode: the text {_shorten(text)} holds half a character; mend its JSON"
            ) from None


def _refuse_broken(rows: np.ndarray, texts: Sequence[Text], precision: Precision) -> None:
    # NaN is neither more nor less than anything, so the comparison is negated to catch it too.
    broken = np.flatnonzero(~(np.abs(np.linalg.norm(rows, axis=1) - 1) < 0.01))
    if len(broken):
        cure = (
            "use fp32" if precision == "bf16" else "the encoder's weights are broken; train or load it again"
        )
        raise UserError(
            f"encode: the vector of {_shorten(texts[broken[0]])} is not finite or has no length; {cure}"
        )


def _shorten(text: Text) -> str:
    whole = "".join(text)
    if not whole.isprintable():
        return ascii(whole[:40]) + "…" * (len(whole) > 40)
    return repr(whole[:40] + "…" * (len(whole) > 40))
