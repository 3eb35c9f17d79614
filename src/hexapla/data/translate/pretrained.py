"""A translation model's folder: where it comes from, what its tokenizer makes of texts, its weights."""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hexapla.data.translate.families import FAMILIES, Target, marked
from hexapla.data.translate.memory import refuse_unsupported
from hexapla.io import hashing
from hexapla.schema import UserError, first_line

_FILES = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt")
"""All that is loaded of a model."""

_T5_TOKENS = 512
"""T5 has no positions to run out of; its models saw no longer texts in training."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, opened as far as texts go; `open_checkpoint` makes it."""

    model: str
    """As `params.yaml` names it."""
    folder: Path
    config: Any
    """transformers' own."""
    tokenizer: Any
    targets: dict[str, Target]
    """By language."""

    @property
    def label(self) -> str:
        return _label(self.model)

    @property
    def name(self) -> str:
        """Of a folder its last part: where it stands on this machine is no property of the rows."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    @property
    def longest(self) -> int:
        """Tokens that the model takes, and that it writes."""
        return int(getattr(self.config, "max_position_embeddings", _T5_TOKENS))

    @cached_property
    def fingerprint(self) -> str:
        """The hub's id with the commit, or of a folder the SHA-256 of what is loaded of it."""
        if not Path(self.model).is_dir():
            return f"{self.model.partition('@')[0]}@{self.folder.name}"
        files = sorted({file for pattern in _FILES for file in self.folder.glob(pattern)})
        lines = "".join(f"{file.name} {hashing.sha256(file)}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """The fingerprint, and the version of what makes tokens of texts."""
        return f"{self.fingerprint} transformers {version('transformers')}"

    def check(self, languages: Sequence[str]) -> None:
        """Raise UserError unless the model translates to all `languages`."""
        refuse_unsupported(languages, self.targets, self.label, "take them off the list, or another model")

    def encode(self, texts: Sequence[str], target: Target) -> list[list[int]]:
        """The model's input for each text; a text's own "<s>" or "</s>" is text, and no control token."""
        given = [marked(text, target) for text in texts]
        ids: list[list[int]] = self.tokenizer(given, split_special_tokens=True)["input_ids"]
        return ids

    def limit(self, ids: Sequence[int]) -> int:
        """Tokens that a translation of this input may have; one that reaches it is a loop or a fragment.

        It is the text's own, not its batch's, so that the result does not depend on its neighbours.
        """
        return min(3 * len(ids) + 32, self.longest - 1)

    def decode(self, written: Sequence[int], limit: int, target: Target) -> str | None:
        """The text of what a model wrote, without start and end token; None if it did not come to an end."""
        if len(written) >= limit - 1:  # at the limit itself the model may have been made to end
            return None
        # The language's token is no special one in every checkpoint: it goes by its place.
        ids = written[0 if target.token is None else 1 :]
        # Marian's would join the pieces by the rules of the source's side.
        options = {"use_source_tokenizer": False} if hasattr(self.tokenizer, "spm_target") else {}
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, **options)
        return text.strip() or None


def open_checkpoint(model: str) -> Checkpoint:
    """A local folder, or 'owner/name@revision' of the hub, which is fetched first.

    Raises:
        UserError: no such folder, revision not pinned, hub out of reach, unknown family, or broken files.
    """
    folder = _folder(model)
    with loading(_label(model)):
        import transformers  # takes seconds; only models need it

        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in FAMILIES:
            *some, last = FAMILIES
            wanted = f"{', '.join(some)} or {last}"
            raise UserError(f"{_label(model)}: is '{config.model_type}', wants {wanted}")
        tokenizer, targets = FAMILIES[config.model_type](folder, _label(model))
    known = {lang: target for lang, target in targets.items() if (target.token or 0) < config.vocab_size}
    return Checkpoint(model, folder, config, tokenizer, known)


def load_weights(checkpoint: Checkpoint) -> Any:
    """The model in fp32 on the CPU, ready to translate. Raises UserError: broken files, or weights missing."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with loading(checkpoint.label):
        model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            checkpoint.folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,  # some are stored in fp16, which a CPU can't do well
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise UserError(f"{checkpoint.label}: weights are missing ({min(report['missing_keys'])}, ...)")
    # A family's own limit (200 tokens in M2M-100's) would cut passages; ours is set by the text.
    model.generation_config.max_length = None
    return model.eval()


@contextmanager
def loading(label: str) -> Iterator[None]:
    """What a broken or foreign checkpoint makes transformers raise, as one line."""
    try:
        with warnings.catch_warnings():
            # Marian's tokenizer recommends a package for a normaliser that it no longer calls.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            yield
    except UserError:
        raise
    except Exception as error:
        line = first_line(error)
        raise UserError(f"{label}: can't be loaded: {type(error).__name__}: {line}") from None


def _label(model: str) -> str:
    return f"translate.model '{model}'"


def _folder(model: str) -> Path:
    repository, _, revision = model.partition("@")
    if not Path(model).is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith("."):
            raise UserError(f"{_label(model)}: no such folder, and no hub id ('owner/name@revision')")
        if not revision:
            raise UserError(f"{_label(model)}: pin the revision of a hub id, '{model}@<commit>'")
    folder = Path(model) if Path(model).is_dir() else _download(model, repository, revision)
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{_label(model)}: holds no safetensors, and pickled weights are not loaded; many "
            "models on the hub have them in a pull request (@refs/pr/<number>)"
        )
    return folder


def _download(model: str, repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{_label(model)}: can't be fetched from the hub ({type(error).__name__}); "
            "check id, revision and network, or give a local folder"
        ) from None
