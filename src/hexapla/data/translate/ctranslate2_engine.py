"""Machine translation by CTranslate2, which is several times as fast as transformers.

It runs the same models, after their weights have been converted to its own format, once, into the cache. No
other module knows CTranslate2.
"""

import fcntl
import hashlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int8

from hexapla.data.translate.by_sentence import sentence_identity
from hexapla.data.translate.nmt import (
    Target,
    TranslationModel,
    explain_failure,
    load_weights,
    open_model,
    translate_texts,
)
from hexapla.io import cache
from hexapla.parallel.tasks import threads
from hexapla.schema import UserError

_log = logging.getLogger(__name__)

_TYPES: dict[str, dict[str, tuple[str, ...]]] = {
    "auto": {"cuda": ("bfloat16", "float16", "float32"), "cpu": ("int8_float32", "float32")},
    "int8": {"cuda": ("int8_bfloat16", "int8_float16", "int8_float32"), "cpu": ("int8_float32",)},
    "bf16": {"cuda": ("bfloat16",), "cpu": ("bfloat16",)},
    "fp32": {"cuda": ("float32",), "cpu": ("float32",)},
}
"""CTranslate2's types for each value of `compute`, best first; the first that the device can do is taken."""

_PAD = "<pad>"
"""The one token whose name matters: the converter drops it from the end of OPUS-MT's vocabulary."""

INT8_MOST = 64
"""The largest int8 weight. x86-64 processors without VNNI add two products of an unsigned 8-bit activation
and a signed weight in 16 bits, which saturate: with weights up to 127, as CTranslate2 itself makes them, up
to 5 % of such sums in our test models come out wrong, and other processors give other translations. With 64
no sum can saturate (2 * 255 * 64 < 2^15), so that all processors compute the same integers. PyTorch's
quantization does the same under the name `reduce_range`."""


class CTranslate2Engine:
    """Translate OPUS-MT, M2M-100, NLLB-200 or MADLAD-400 by CTranslate2, on a GPU where there is one."""

    def __init__(self, model: str, *, compute: str, batch_tokens: int, beams: int) -> None:
        """Open the model; raises as `open_model`, and UserError where CTranslate2 is not installed."""
        _import_ctranslate2()
        self._opened = open_model(model)
        self.name = f"ctranslate2:{self._opened.name}"
        self._compute, self._batch_tokens, self._beams = compute, batch_tokens, beams

    def identity(self, lang: str) -> str:
        """Includes the type that this machine computes in, since another type gives other translations."""
        kind = f"{self._kind} <={INT8_MOST}" if self._kind.startswith("int8") else self._kind
        settings = f"beams={self._beams} {kind} {sentence_identity()}"
        return f"ctranslate2 {_import_ctranslate2().__version__} {self._opened.identity} {lang} {settings}"

    def check(self, languages: Sequence[str]) -> None:
        self._opened.check(languages)

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        return translate_texts(self._opened, texts, lang, self._batch_tokens, self._generate)

    @cached_property
    def _kind(self) -> str:
        try:
            return _choose_type(self._compute, _find_device())
        except UserError:  # the machines that will do it may be others
            return self._compute

    @cached_property
    def _translator(self) -> Any:
        device = _find_device()
        kind = _choose_type(self._compute, device)
        folder = convert(self._opened, kind)
        with explain_failure(self._opened.label):
            return _import_ctranslate2().Translator(
                str(folder), device, compute_type=kind, intra_threads=threads()
            )

    def _generate(self, batch: list[list[int]], most: int, target: Target) -> list[list[int]]:
        pad = self._opened.config.pad_token_id
        start = None if target.token is None else [[str(target.token)]] * len(batch)
        results = self._translator.translate_batch(
            [[_PAD if number == pad else str(number) for number in ids] for ids in batch],
            target_prefix=start,
            beam_size=self._beams,
            max_decoding_length=most,
            max_input_length=0,
        )
        return [
            [pad if token == _PAD else int(token) for token in result.hypotheses[0]] for result in results
        ]


def convert(model: TranslationModel, kind: str) -> Path:
    """Return the cache's folder of the model in CTranslate2's format; one process at a time makes it if needed."""
    weights = kind.removesuffix("_float32").removesuffix("_float16").removesuffix("_bfloat16")
    key = f"{model.fingerprint} {weights} {_import_ctranslate2().__version__}"
    if weights == "int8":
        key += f" <={INT8_MOST}"
    folder = cache.cache_root() / "ctranslate2" / hashlib.sha256(key.encode()).hexdigest()
    cache.make_folder(folder.parent)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "model.bin").is_file():
            _log.info("%s: converting to %s, once", model.label, folder)
            with cache.atomic_folder(folder) as scratch, explain_failure(model.label):
                _convert(model, weights, scratch)
    return folder


def _convert(opened: TranslationModel, weights: str, folder: Path) -> None:
    model = load_weights(opened)
    # What T5's loader reads for "outputs are scaled", which transformers 5 keeps under another name.
    if hasattr(model.config, "scale_decoder_outputs"):
        model.config.tie_word_embeddings = model.config.scale_decoder_outputs
    converters = importlib.import_module("ctranslate2.converters")
    converter = converters.TransformersConverter(str(opened.folder), trust_remote_code=False)
    # Its own would load weights of any type, and read vocabularies as transformers 4 had them.
    converter.load_model = lambda *_, **__: model
    converter.load_tokenizer = lambda *_, **__: _NumberVocabulary(opened)
    # What its `convert` does, but for the range of int8 weights.
    spec = converter._load()
    spec.validate()
    spec.optimize(quantization=None if weights == "int8" else weights)
    if weights == "int8":
        _quantize(spec)
    spec.save(str(folder))


def _quantize(spec: Any) -> None:
    model_spec = importlib.import_module("ctranslate2.specs.model_spec")

    def quantize(layer: Any, name: str, value: Any) -> None:
        key = name.rpartition("/")[2]
        if isinstance(value, model_spec.Variable) and hasattr(layer, f"{key}_scale"):
            weights, scale = quantize_rows(value.to("float32").numpy())
            setattr(layer, key, model_spec.NumpyVariable(weights))
            setattr(layer, f"{key}_scale", model_spec.NumpyVariable(scale))

    model_spec.visit_spec(spec, quantize)


def quantize_rows(
    weights: Float[np.ndarray, "rows columns"],
) -> tuple[Int8[np.ndarray, "rows columns"], Float32[np.ndarray, " rows"]]:
    """Round weights to integers of at most `INT8_MOST`; return them and the factor of each row."""
    largest = np.abs(weights).max(axis=1).astype(np.float32)
    # Rows of zeros, or of nearly nothing, must not make the scale infinite.
    scale = np.float32(INT8_MOST) / np.maximum(largest, np.finfo(np.float32).tiny * 1024)
    return np.rint(weights * scale[:, None]).astype(np.int8), scale.astype(np.float32)


@dataclass(frozen=True)
class _NumberVocabulary:
    """A vocabulary whose tokens are their own numbers: no two have one name, and no family's rules apply.

    It has the members of a tokenizer that converters use.
    """

    model: TranslationModel
    num_madeup_words = 0
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)

    def get_vocab(self) -> dict[str, int]:
        return {self.convert_ids_to_tokens(number): number for number in range(self.model.config.vocab_size)}

    def convert_ids_to_tokens(self, number: int) -> str:
        return _PAD if number == self.model.config.pad_token_id else str(number)

    def __getattr__(self, name: str) -> Any:
        """Look up `bos_token`, `unk_token_id` and the like."""
        number = getattr(self.model.tokenizer, name.removesuffix("_id") + "_id")
        return number if name.endswith("_id") or number is None else self.convert_ids_to_tokens(number)


def _choose_type(compute: str, device: str) -> str:
    """Return CTranslate2's name of the best type of `compute` that the device can do.

    Raises:
        UserError: it can do none of them.
    """
    can = _import_ctranslate2().get_supported_compute_types(device)
    for kind in _TYPES[compute][device]:
        if kind in can:
            return kind
    raise UserError(f"translate.compute: this machine's {device} can't do '{compute}'; take auto")


def _find_device() -> str:
    return "cuda" if _import_ctranslate2().get_cuda_device_count() else "cpu"


def _import_ctranslate2() -> Any:
    try:
        return importlib.import_module("ctranslate2")
    except ImportError:
        raise UserError(
            "translate.engine: 'ctranslate2' is not installed; pip install 'hexapla[ctranslate2]'"
        ) from None
