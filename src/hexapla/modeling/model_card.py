"""A model's card: how it was trained, beside its weights, so that it is known wherever the folder goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hexapla.io import cache

FILE = "hexapla.json"


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    cache.write_json(folder / FILE, dict(settings))


def read(folder: Path | None) -> dict[str, Any]:
    """Empty for a model that `hexapla` did not train."""
    return dict(cache.read_json(folder / FILE)) if folder and (folder / FILE).is_file() else {}
