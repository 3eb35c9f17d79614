"""An encoder's folder, read into sentence-transformers in fp32, or one line that says why not."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from hexapla.modeling.foreign_code import needs_foreign_code, refuse_foreign_code
from hexapla.schema import UserError


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
    try:
        # Weights that a checkpoint lacks (a pooler that nobody uses) are drawn; each load draws the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _load(folder, device)
    except UserError:
        raise
    # A dozen readers of files may raise anything, and none of our own code runs in this block.
    except Exception as error:
        if needs_foreign_code(error):
            raise UserError(f"{label}: needs code of its own, which is not run") from None
        raise UserError(f"{label}: can't be loaded: {type(error).__name__}: {_in_one_line(error)}") from None
    return model.float()


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
