"""Texts to what a transformer takes: token by token, in batches that waste little on padding."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hexapla.modeling.encoder import Encoder, Side, Text

Pieces = dict[str, list[int]]
"""What a tokenizer makes of one text, by the names that the model knows (`input_ids`, ...)."""


def pieces(encoder: Encoder, texts: Sequence[Text], side: Side, tokens: int) -> list[Pieces]:
    """What `tokenize` gives, unpadded and text by text.

    A sentence in its context is a text pair, as in XTREME-R's LAReQA baseline (arXiv 2104.07412):
    prompt and sentence, separator, context. Only the context is cut; where it has no room at all,
    the sentence stands alone.
    """
    tokenizer, prompt, limit = encoder.model.tokenizer, encoder.prompts[side], encoder.limit(tokens)
    found: list[Pieces] = [{} for _ in texts]

    def fill(rows: list[int], cut: bool | str, *columns: list[str]) -> None:
        if rows:
            with encoder.tokenizing:
                made = tokenizer(*columns, truncation=cut, max_length=limit, padding=False)
            for place, row in enumerate(rows):
                found[row] = {name: made[name][place] for name in made}

    firsts = [prompt + (text if isinstance(text, str) else text[0]) for text in texts]
    pairs = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if pairs:
        room = limit - tokenizer.num_special_tokens_to_add(pair=True)
        with encoder.tokenizing:
            lengths = tokenizer([firsts[row] for row in pairs], add_special_tokens=False, verbose=False)
        long = zip(pairs, lengths["input_ids"], strict=True)
        pairs = [row for row, ids in long if len(ids) < room]
    alone = sorted(set(range(len(texts))) - set(pairs))
    fill(alone, True, [firsts[row] for row in alone])
    fill(pairs, "only_second", [firsts[row] for row in pairs], [texts[row][1] for row in pairs])
    return found


def padded(encoder: Encoder, batch: Sequence[Pieces]) -> dict[str, Tensor]:
    """Features int64 [batch, longest of the batch], padded as the tokenizer pads."""
    tokenizer = encoder.model.tokenizer
    filling = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0,
               "token_type_ids": tokenizer.pad_token_type_id}  # fmt: skip
    width = max(len(text["input_ids"]) for text in batch)
    left = tokenizer.padding_side == "left"
    features = {name: np.full((len(batch), width), filling[name], np.int64) for name in batch[0]}
    for row, text in enumerate(batch):
        for name, values in text.items():
            start = width - len(values) if left else 0
            features[name][row, start : start + len(values)] = values
    return {name: torch.from_numpy(values) for name, values in features.items()}


def extras(encoder: Encoder, texts: Sequence[Text], side: Side, tokens: int) -> dict[str, Any] | None:
    """What sentence-transformers' preparation adds to `padded` (the prompt's length, ...).

    None where the two differ on `texts`: the model is no plain transformer over a tokenizer, and
    only its own `encode` knows how to feed it.
    """
    try:
        ours = padded(encoder, pieces(encoder, texts, side, tokens))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    theirs: dict[str, Any] = encoder.tokenize(texts, side, tokens)
    tensors = {name for name, value in theirs.items() if isinstance(value, Tensor)}
    if tensors != ours.keys() or not all(torch.equal(theirs[name], ours[name]) for name in tensors):
        return None
    return {name: value for name, value in theirs.items() if name not in tensors}


def budget(device: torch.device) -> int:
    """Tokens of a batch, padding included; measured for two cores, where fewer and more were slower.

    The number of cores counts, not that of threads, which launchers of several processes change.
    """
    return 32768 if device.type == "cuda" else min(8192, max(1024, 512 * (os.cpu_count() or 1)))


def batches(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Positions of the texts of each batch, the short texts first.

    A batch is closed before its tokens, padding included, exceed `budget` (a text that is longer is a
    batch of its own), or before its padding costs more than a batch more would, a 16th of the budget.
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
