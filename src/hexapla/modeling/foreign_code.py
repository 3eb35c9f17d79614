"""Models that bring Python code of their own, which is never run.

The hub lets a model name code: by `auto_map` in its configuration, in its own repository or in another, which no
commit pins; by the classes of sentence-transformers' modules; and by an activation function. The libraries ask at
a terminal whether to run such code unless they are told not to, so every call that loads something says
`trust_remote_code=False`. The checks here come first, because a model of a known architecture would otherwise be
loaded without the code that it was trained with.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hexapla.schema import UserError

_LIBRARY = "sentence_transformers."
_TORCH = "torch."
_LOADED = ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoTokenizer", "AutoProcessor")
"""Entries of `auto_map` that somebody here would load; others are for tasks such as classification."""


def refuse_foreign_code(folder: Path, label: str) -> None:
    """Raise UserError if a model's folder names code that is neither in transformers nor sentence-transformers.

    Args:
        folder: of a model, as the hub has it.
        label: what messages call the model.
    """
    for place, name in _named_code(folder):
        raise UserError(f"{label}: needs code of its own, which is not run ({place} names {name})")


def needs_foreign_code(error: BaseException) -> bool:
    """Tell whether a library's error says that it would have to run code of the model."""
    return "trust_remote_code" in str(error)


def _named_code(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*config.json")):
        place = file.relative_to(folder).as_posix()
        settings = _read(file)
        if isinstance(settings, dict):
            for name in (*_auto_classes(settings), *_activation(settings), *_router_modules(settings)):
                yield place, name
    modules = _read(folder / "modules.json")
    for module in modules if isinstance(modules, list) else []:
        name = str(module.get("type", "")) if isinstance(module, dict) else ""
        if not name.startswith(_LIBRARY):
            yield "modules.json", name or "no class"


def _auto_classes(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the classes of `auto_map` that transformers does not have under the same name."""
    named = settings.get("auto_map")
    if not named:
        return
    import transformers  # takes seconds, and few configurations name classes

    # Old tokenizers have a list of their slow and their fast class, either of which may be null.
    values = named.items() if isinstance(named, dict) else [("AutoTokenizer", named)]
    for key, value in values:
        if key not in _LOADED:
            continue
        for name in value if isinstance(value, list) else [value]:
            if name and not hasattr(transformers, str(name).rpartition(".")[2]):
                yield str(name)


def _activation(settings: dict[str, Any]) -> Iterable[str]:
    """Give the activation function of a dense layer that is not PyTorch's; another one would be taken for it."""
    name = settings.get("activation_function")
    # Configurations of transformers name theirs by one word, such as `gelu_new`.
    return [name] if isinstance(name, str) and "." in name and not name.startswith(_TORCH) else []


def _router_modules(settings: dict[str, Any]) -> Iterable[str]:
    """Give the classes of a router's modules that are not sentence-transformers'."""
    types = settings.get("types")
    names = map(str, types.values()) if isinstance(types, dict) else ()
    return [name for name in names if "." in name and not name.startswith(_LIBRARY)]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the loader says what is wrong with it
