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
        if "Unrecognized processing class" in str(error):
            raise UserError(f"{label}: has no tokenizer; it needs tokenizer.json{_FROM_ITS_BASE}") from None
        raise UserError(f"{label}: can't be loaded: {type(error).__name__}: {_in_one_line(error)}") from None
    _refuse_missing_tokenizer(model, folder, label)
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
