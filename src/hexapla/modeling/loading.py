"""An encoder's folder, read into sentence-transformers: every weight from the file, in fp32, or one line why not.

The libraries are lenient where a retriever must not be. They draw the weights that a file lacks, leave out those
that the model has no place for, compute in whatever precision a file is stored in, and invent a tokenizer of five
tokens where there is none. Each of these gives scores that look like scores.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import modeling_utils

from hexapla.modeling.foreign_code import needs_foreign_code, refuse_foreign_code
from hexapla.schema import UserError

_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "weights", "_float_tensor", "version")
"""Tables that older versions of transformers saved with the weights, and newer ones compute."""

_FROM_ITS_BASE = ", from the encoder that it was trained from"

_lock = threading.Lock()
"""The reports of loading belong to one load at a time."""


def read_model(folder: Path, label: str, device: str | None) -> SentenceTransformer:
    """Read a sentence-transformers folder, or a transformers folder with mean pooling and vectors of unit length.

    Args:
        folder: of the encoder.
        label: what messages call the encoder.
        device: where the weights go; None is the best one available.

    Raises:
        UserError: the folder is broken or incomplete, or the model needs code of its own.
    """
    if not list(folder.rglob("*.safetensors")):
        raise UserError(f"{label}: holds no safetensors; pickled weights are not loaded")
    refuse_foreign_code(folder, label)
    _refuse_parts_elsewhere(folder, label)
    _refuse_broken_settings(folder, label)
    try:
        # Weights that a checkpoint lacks (a pooler that nobody uses) are drawn; each load draws the same.
        with torch.random.fork_rng(devices=[]), strict_weights(label):
            torch.manual_seed(0)
            model = _load(folder, device)
    except UserError:
        raise
    # A dozen readers of files may raise anything, and none of our own code runs in this block.
    except Exception as error:
        if needs_foreign_code(error):
            raise UserError(f"{label}: needs code of its own, which is not run") from None
        if "Unrecognized processing class" in str(error) and (folder / "tokenizer.json").is_file():
            raise UserError(f"{label}: tokenizer.json can't be read; fetch it again") from None
        if "Unrecognized processing class" in str(error):
            raise UserError(f"{label}: has no tokenizer; it needs tokenizer.json{_FROM_ITS_BASE}") from None
        raise UserError(f"{label}: can't be loaded: {type(error).__name__}: {_in_one_line(error)}") from None
    _refuse_missing_tokenizer(model, folder, label)
    _refuse_misfitting_tokenizer(model, label)
    _refuse_misfitting_pooling(model, label)
    longest_text(model, label)
    return model.float()


def _refuse_parts_elsewhere(folder: Path, label: str) -> None:
    """Refuse a folder that is only a part: what it names elsewhere has no commit."""
    for file in sorted(folder.rglob("*.json")):
        place = file.relative_to(folder)
        if file.name == "adapter_config.json":
            base = _read_settings(file).get("base_model_name_or_path", "")
            raise UserError(
                f"{label}: is an adapter of '{base}'; merge it into that model, and save the whole"
            )
        if file.name.startswith("sentence_") and (
            other := _read_settings(file).get("tokenizer_name_or_path")
        ):
            raise UserError(
                f"{label}: {place} takes the tokenizer of '{other}'; copy its files into the folder"
            )
    for module in sorted(folder.glob("*_Dense")):
        if (module / "config.json").is_file() and not (module / "model.safetensors").is_file():
            raise UserError(f"{label}: holds no safetensors in {module.name}; pickled weights are not loaded")


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the loader says what is wrong with it
    return settings if isinstance(settings, dict) else {}


def _load(folder: Path, device: str | None) -> SentenceTransformer:
    local = {"local_files_only": True, "trust_remote_code": False}
    weights = {"use_safetensors": True, "dtype": torch.float32}
    if (folder / "modules.json").is_file():
        return SentenceTransformer(str(folder), device=device, model_kwargs=weights, **local)
    transformer = Transformer(
        str(folder),
        model_kwargs={**weights, **local},
        processor_kwargs={"trust_remote_code": False},  # whatever else it gets, it saves
        config_kwargs={**local},
    )
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=device)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# --- weights -------------------------------------------------------------------------------------


@contextmanager
def strict_weights(label: str) -> Iterator[None]:
    """Refuse weights that are missing or too many, which transformers only prints as a table.

    sentence-transformers passes its loader's result on as a model, so that it can't be asked for the keys
    (`output_loading_info`); they are taken where transformers would print them.
    """

    def judge(model: Any, *_: Any, loading_info: Any, **__: Any) -> None:
        if loading_info.error_msgs or loading_info.conversion_errors:
            said = [*loading_info.error_msgs, *map(str, loading_info.conversion_errors)]
            raise UserError(f"{label}: can't be loaded: {' '.join(' '.join(said).split())[:300]}")
        misfits = {
            "lacks weights": [name for name in loading_info.missing_keys if not _is_pooler(name)],
            "has weights that the configuration has no place for": [
                name for name in loading_info.unexpected_keys if _is_the_models_own(name, model)
            ],
            "has weights of other shapes than the configuration": [
                name for name, *_ in loading_info.mismatched_keys
            ],
        }
        for what, names in misfits.items():
            if names:
                shown = ", ".join(sorted(names)[:3])
                raise UserError(
                    f"{label}: {what}: {shown}{', ...' if len(names) > 3 else ''} ({len(names)} in all); config.json "
                    "and the safetensors do not belong together, or a file is incomplete; fetch the folder again"
                )

    with _lock:
        report = modeling_utils.log_state_dict_report
        modeling_utils.log_state_dict_report = judge
        try:
            yield
        finally:
            modeling_utils.log_state_dict_report = report


def _is_pooler(name: str) -> bool:
    """Tell whether a weight is transformers' pooler, whose output sentence-transformers' pooling does not use."""
    return name.startswith("pooler.") or ".pooler." in name


def _is_the_models_own(name: str, model: Any) -> bool:
    """Tell whether a weight belongs into the encoder, and not into the head of a task that is not loaded."""
    name = name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")
    parts = name.split(".")
    inside = parts[0] in {**dict(model.named_children()), **dict(model.base_model.named_children())}
    return inside and not _is_pooler(name) and parts[-1] not in _BUFFERS


# --- the tokenizer -------------------------------------------------------------------------------


def _refuse_missing_tokenizer(model: SentenceTransformer, folder: Path, label: str) -> None:
    tokenizer = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        return
    # Some tokenizers work on bytes and have no files.
    names = {*tokenizer.vocab_files_names.values()}
    if names and not any(list(folder.rglob(name)) for name in {*names, "tokenizer.json"}):
        raise UserError(
            f"{label}: has no tokenizer; it needs {' or '.join(sorted({*names, 'tokenizer.json'}))}{_FROM_ITS_BASE}"
        )


def _refuse_misfitting_tokenizer(model: SentenceTransformer, label: str) -> None:
    """Refuse a tokenizer whose texts can't be padded, or that numbers pieces beyond the model's vectors."""
    tokenizer = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        return
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{label}: its tokenizer has no padding token; name one of its pieces as `pad_token` in "
            "tokenizer_config.json"
        )
    get = getattr(getattr(model[0], "model", None), "get_input_embeddings", None)
    rows = getattr(get() if get else None, "num_embeddings", None)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and largest >= rows:
        raise UserError(
            f"{label}: its tokenizer numbers pieces up to {largest}, but the model has vectors for {rows} only; take "
            "the tokenizer that the model was trained with"
        )


# --- lengths and pooling -------------------------------------------------------------------------

_NO_POSITIONS = 512
"""Tokens of an encoder that has no table of positions to run out of, and states no length."""


def longest_text(model: SentenceTransformer, label: str = "encoder") -> int:
    """Return how many tokens a text may have: the stated length, but no more than there are positions for.

    Raises:
        UserError: special tokens alone fill it, so that all texts would have one vector.
    """
    positions = _usable_positions(model)
    stated = model.max_seq_length
    longest = positions if stated is None else min(stated, positions)
    tokenizer = getattr(model, "tokenizer", None)
    if isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        special = tokenizer.num_special_tokens_to_add()
        if longest <= special:
            raise UserError(
                f"{label}: a text may have {longest} tokens, of which {special} are special, which leaves none for the "
                "text; raise max_seq_length in sentence_bert_config.json, or model_max_length in tokenizer_config.json"
            )
    return int(longest)


def _usable_positions(model: SentenceTransformer) -> int:
    """Count the positions that texts can use.

    RoBERTa and its like number positions from the padding token's number on: XLM-R has 514, of which 512 can be
    used. Their table of positions has a row for padding, and others' have not.
    """
    inner = getattr(model[0], "model", None)
    positions = getattr(getattr(inner, "config", None), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return _NO_POSITIONS
    for name, table in inner.named_modules() if inner is not None else ():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, torch.nn.Embedding):
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            return min(positions, table.num_embeddings) - first
    return positions


def _refuse_broken_settings(folder: Path, label: str) -> None:
    """Refuse settings that are missing or no JSON, and those of pooling that choose nothing."""
    for file in sorted(
        {*folder.glob("*config*.json"), *folder.glob("*/config.json"), *folder.glob("modules.json")}
    ):
        place = file.relative_to(folder)
        try:
            settings: Any = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{label}: {place} is no JSON; fetch it again") from None
        if file.name == "modules.json" and isinstance(settings, list):
            _refuse_missing_modules(folder, settings, label)
        elif file.name == "modules.json" or not isinstance(settings, dict):
            raise UserError(f"{label}: {place} holds something else than settings; fetch it again")
        elif place.parent.name.endswith("_Pooling"):
            modes = {key: on for key, on in settings.items() if key.startswith("pooling_mode_")}
            if modes and not any(modes.values()) and not settings.get("pooling_mode"):
                raise UserError(
                    f"{label}: {place} chooses no way of pooling; set one of {', '.join(sorted(modes))}"
                )


def _refuse_missing_modules(folder: Path, modules: list[Any], label: str) -> None:
    for module in modules:
        settings = module if isinstance(module, dict) else {}
        file = Path(str(settings.get("path", ""))) / "config.json"
        if str(settings.get("type", "")).endswith((".Pooling", ".Dense")) and not (folder / file).is_file():
            raise UserError(f"{label}: {file} is missing, which modules.json names; fetch it again")


def _refuse_misfitting_pooling(model: SentenceTransformer, label: str) -> None:
    width = None
    for module in model:
        if isinstance(module, Transformer):
            width = module.get_embedding_dimension()
        elif isinstance(module, Pooling) and width not in (None, module.embedding_dimension):
            raise UserError(
                f"{label}: pooling expects vectors of {module.embedding_dimension} numbers, but the model gives "
                f"{width}; mend word_embedding_dimension in the pooling's config.json"
            )
