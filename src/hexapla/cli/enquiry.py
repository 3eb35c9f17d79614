"""What the hub says of the things that a run needs: bytes to fetch, and commits of what may move."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from hexapla.cli.planning import Item

_WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.spm", "*.txt")


def asked(found: Sequence[Item]) -> list[Item]:
    """The same items, with what the hub says of them: bytes to fetch, and the commit of what may move."""
    return [_asked(item) if item.host in ("dataset", "model") else item for item in found]


def _asked(item: Item) -> Item:
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().repo_info(
            item.origin, repo_type=item.host, revision=item.revision or None, files_metadata=True
        )
    # Whatever a network and a hub may raise; only its kind is told, as messages may quote signed addresses.
    except Exception as error:
        return item._replace(problem=f"{item.origin}@{item.revision}: the hub says {type(error).__name__}")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    size = _fitting(sizes, _WEIGHTS if item.host == "model" else ("*",)) / 1e6
    # Of a data set that is the whole repository, of which a preset takes a part: its own figure is better.
    item = item._replace(megabytes=size if item.host == "model" else item.megabytes or size)
    if item.problem:
        return item._replace(problem=f"{item.problem} (now {info.sha})")
    if item.host == "model" and not _fitting(sizes, ("*.safetensors",)):
        return item._replace(
            problem=f"{item.origin}@{item.revision}: holds no safetensors; see docs/scale.md"
        )
    return item


def _fitting(sizes: Mapping[str, int], patterns: Iterable[str]) -> int:
    """Bytes of the files whose name fits one of the patterns."""
    return sum(size for name, size in sizes.items() if any(fnmatch(name, each) for each in patterns))
