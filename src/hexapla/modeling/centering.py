"""Centering by language: the control that needs no training.

A multilingual encoder's embeddings carry the language of their text as a nearly constant part. That part goes
when the mean embedding of its language is subtracted from every embedding, separately for queries and passages,
and the rest is normalized (Libovický, Rosa and Fraser 2020, arXiv 2004.05160). The means come from the pool
itself (`fit` on its embeddings), or from the training data, stored with the model, which is how a system in
production can do it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hexapla.io import cache
from hexapla.schema import UserError

Means = Mapping[str, Float32[np.ndarray, " dim"]]
"""The mean embedding of each language."""

FILE = "centering.safetensors"
"""This file, next to a model's weights, holds `query.<lang>` and `passage.<lang>`."""


def fit(embeddings: Float32[np.ndarray, "texts dim"], langs: Sequence[str]) -> Means:
    """Compute the mean embedding of each language."""
    names, group = np.unique(np.asarray(langs), return_inverse=True)
    counts = np.bincount(group)
    means = np.zeros((len(names), embeddings.shape[1]))
    np.add.at(means, group, embeddings)
    return dict(zip(map(str, names), (means / counts[:, None]).astype(np.float32), strict=True))


def center(
    embeddings: Float32[np.ndarray, "texts dim"], langs: Sequence[str], means: Means
) -> Float32[np.ndarray, "texts dim"]:
    """Subtract from each embedding the mean of its language, and normalize.

    An embedding that *is* its language's mean (a language with one text) has no direction left: it becomes
    zero, and so is no nearer to one text than to another.

    Raises:
        UserError: a language has no mean.
    """
    names, group = np.unique(np.asarray(langs), return_inverse=True)
    if missing := [str(name) for name in names if str(name) not in means]:
        raise UserError(
            f"centering: no mean for language '{missing[0]}' (there are: {', '.join(sorted(means))}); "
            "take the means from the pool (centering: language), or train with that language"
        )
    moved = embeddings - np.stack([means[str(name)] for name in names])[group]
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    moved /= np.where(length > 1e-6, length, np.inf)
    centered: np.ndarray = moved.astype(np.float32, copy=False)
    return centered


def save(folder: Path, query: Means, passage: Means) -> None:
    """Write both sides' means into a model's folder."""
    tensors = {f"query.{lang}": mean for lang, mean in query.items()}
    tensors |= {f"passage.{lang}": mean for lang, mean in passage.items()}
    with cache.atomic_file(folder / FILE) as scratch:
        save_file(tensors, scratch)


def load(folder: Path | str) -> tuple[Means, Means]:
    """Read what `save` wrote: the means of queries and of passages.

    Raises:
        UserError: the model has none, or the file is broken.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"{path}: not found; only models that Hexapla trained store their languages' means")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: broken ({error})") from None
    sides: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for name, mean in tensors.items():
        side, _, lang = name.partition(".")
        sides[side == "passage"][lang] = mean
    return sides
