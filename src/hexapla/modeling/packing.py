"""The texts of a micro-batch behind each other in one row: nothing is computed for padding.

sentence-transformers has the way through the model (its flattened inputs, which it takes where the package
flash-attn is installed): positions begin anew with each text, and `cu_seq_lens_q` tells the attention and
the pooling where. Only the attention is ours, so that torch alone suffices.
"""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hexapla.modeling.encoder import Encoder, unit_vectors
from hexapla.modeling.tokenization import Pieces, padded, pieces

_NAME = "hexapla_packed"
_ALIKE = 0.99
_log = logging.getLogger(__name__)
_ARCHITECTURES = ("bert", "xlm-roberta")
"""Positions are looked up, each text sees all of itself, and the attention is transformers' to choose."""


def available(encoder: Encoder) -> bool:
    """Whether the device and the model can do it; the kernels take bf16 alone, so not in fp32."""
    device = encoder.device
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and torch.backends.cuda.is_flash_attention_available()
        and find_spec("torch.nn.attention.varlen") is not None
        and _suits(encoder)
    )


def works(encoder: Encoder) -> bool:
    """Whether packed texts get the vectors of padded ones here; if so, `install` has been called.

    Asked of the device itself, under bf16, since what kernels a build of torch has differs.
    """
    if not available(encoder):
        return False
    texts = ["Πᾶσα γραφὴ", "six columns. " * 12, "ἓξ σελίδες"]
    batch = pieces(encoder, texts, "passage", 64)
    wanted = {name: tensor.to(encoder.device) for name, tensor in padded(encoder, batch).items()}
    before, training = encoder.model[0].model.config._attn_implementation, encoder.model.training
    encoder.model.eval()
    try:
        with torch.no_grad(), torch.autocast(encoder.device.type, torch.bfloat16):
            one = unit_vectors(encoder.model, wanted)
            install(encoder)
            other = unit_vectors(encoder.model, packed(encoder, batch))
        alike = bool(((one.float() * other.float()).sum(dim=1) > _ALIKE).all())
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        _log.warning("packing: not here (%s); going on with padding", next(iter(str(error).splitlines()), ""))
        alike = False
    if not alike:
        encoder.model[0].model.set_attn_implementation(before)
    encoder.model.train(training)
    return alike


def install(encoder: Encoder) -> None:
    """Make the attention take packed texts; padded ones go the way that they went before."""
    AttentionInterface.register(_NAME, _attend)
    # Of packed texts there is no mask to make it from, and it makes none; padded ones need theirs.
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    encoder.model[0].model.set_attn_implementation(_NAME)


def packed(encoder: Encoder, batch: Sequence[Pieces]) -> dict[str, Any]:
    """Features of one row [1, tokens] on the encoder's device; the model gives a vector for each text.

    In place of a mask: `cu_seq_lens_q` int32 [texts + 1], where each text begins and the last one ends;
    `seq_idx` [1, tokens], whose token it is; `max_length_q`, of the longest text.
    """
    lengths = np.array([len(text["input_ids"]) for text in batch])
    rows = {
        name: np.concatenate([text[name] for text in batch]) for name in batch[0] if name != "attention_mask"
    }
    rows["position_ids"] = np.concatenate([_positions(encoder, text["input_ids"]) for text in batch])
    rows["seq_idx"] = np.repeat(np.arange(len(batch)), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    features: dict[str, Any] = {
        name: torch.from_numpy(row.astype(np.int64))[None].to(encoder.device) for name, row in rows.items()
    }
    features["cu_seq_lens_q"] = torch.from_numpy(starts).to(encoder.device)
    return {**features, "max_length_q": int(lengths.max())}


def _suits(encoder: Encoder) -> bool:
    modules = list(encoder.model.children())
    config: Any = getattr(getattr(modules[0], "model", None), "config", None)
    if getattr(config, "model_type", None) not in _ARCHITECTURES or config.is_decoder:
        return False
    width = config.hidden_size // config.num_attention_heads
    return (
        config._attn_implementation in ("sdpa", _NAME)
        and width % 8 == 0
        and width <= 256
        and len(modules) > 1
        and getattr(modules[1], "pooling_mode", None) in ("mean", "cls")
    )


def _positions(encoder: Encoder, ids: Sequence[int]) -> np.ndarray:
    # RoBERTa's begin after that of padding, and one that is written out in a text is padding to it too.
    padding = getattr(encoder.model[0].model.embeddings, "padding_idx", None)
    if padding is None:
        return np.arange(len(ids))
    real = np.asarray(ids) != padding
    positions: np.ndarray = np.cumsum(real) * real + padding
    return positions


def _attend(
    module: nn.Module,
    query: Float[Tensor, "rows heads tokens dim"],
    key: Float[Tensor, "rows heads tokens dim"],
    value: Float[Tensor, "rows heads tokens dim"],
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Int[Tensor, " texts+1"] | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows tokens heads dim"], None]:
    """As transformers calls it; without `cu_seq_lens_q` the rows are padded texts."""
    if cu_seq_lens_q is None:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found, None
    if query.device.type == "cpu":
        # Text by text, for tests; the kernels are a GPU's.
        lengths = cu_seq_lens_q.diff().tolist()
        cut = [torch.split(part, lengths, dim=2) for part in (query, key, value)]
        each = [
            nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
            for q, k, v in zip(*cut, strict=True)
        ]
        return torch.cat(each, dim=2).transpose(1, 2), None
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return _varlen(q, k, v, cu_seq_lens_q, max_length_q, dropout, scaling)[None], None


def _varlen(
    query: Float[Tensor, "tokens heads dim"],
    key: Float[Tensor, "tokens heads dim"],
    value: Float[Tensor, "tokens heads dim"],
    starts: Int[Tensor, " texts+1"],
    longest: int,
    dropout: float,
    scale: float | None,
) -> Float[Tensor, "tokens heads dim"]:
    if dropout:
        # `varlen_attn` knows none, so this is the operator beneath it, as nested tensors call it too.
        flash = torch.ops.aten._flash_attention_forward
        found: Tensor = flash(
            query, key, value, starts, starts, longest, longest, dropout, False, False, scale=scale
        )[0]
        return found
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(query, key, value, starts, starts, longest, longest, scale=scale)
    assert isinstance(out, Tensor)
    return out
