"""A YAML file as frozen dataclasses, by their annotations; the only code that knows YAML.

Unknown, missing and repeated keys, wrong types and bad choices are refused by the key's full name.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from hexapla.schema import UserError


def load(path: Path, kind: type) -> Any:
    """The file as an instance of the dataclass `kind`, whose own checks raise ValueError("key: why").

    Raises:
        UserError: the file is missing, is not YAML, or does not fit.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return _build(kind, tree, "")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-5` as a string and `no` (Norwegian) as false; mend both, refuse twins."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key '{key}' stands twice, line {node.start_mark.line + 1}")
        built: dict[Any, Any] = super().construct_mapping(node, deep)
        return built


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not (tag.endswith(":bool") and first in "yYnNoO")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _build(kind: Any, value: Any, key: str) -> Any:
    """`value` as an instance of the annotation `kind`; ValueError names `key`."""
    where = f"{key}: " if key else ""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast("type", kind), value, key)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in args:
            choices = ", ".join(str(one) for one in args if one != "")
            raise ValueError(f"{where}{value!r} is not one of {choices}")
        return value
    if origin is types.UnionType:
        return None if value is None else _build(args[0], value, key)
    if origin is tuple:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise ValueError(f"{where}wants a list, got {value!r}")
        return tuple(_build(args[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}wants a mapping, got {value!r}")
        return {_build(args[0], k, key): _build(args[1], v, f"{key}.{k}") for k, v in value.items()}
    return _build_scalar(kind, value, where)


def _build_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    elif kind is str and value is None:
        return ""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise ValueError(f"{where}wants {names[kind]}, got {value!r}")


def _build_dataclass(kind: type, value: Any, key: str) -> Any:
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ValueError(f"{key + ': ' if key else ''}wants a mapping, got {value!r}")
    hints = typing.get_type_hints(kind)
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            raise ValueError(f"{prefix}{name}: unknown key; {hint(str(name), hints)}")
    for f in dataclasses.fields(kind):
        bare = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if bare and f.name not in value:
            raise ValueError(f"{prefix}{f.name}: missing")
    built = {name: _build(hints[name], item, f"{prefix}{name}") for name, item in value.items()}
    try:
        return kind(**built)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def hint(name: str, known: Iterable[str]) -> str:
    """What a person may have meant who wrote a name that is not known."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"


# --- for a section's own checks -----------------------------------------------------------------


def within(section: Any, name: str, low: float, high: float | None) -> None:
    """ValueError unless the section's value is None, or neither below `low` nor above `high`."""
    value = getattr(section, name)
    if value is None:
        return
    if not value >= low or (high is not None and not value <= high):
        bounds = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise ValueError(f"{name}: must be {bounds}, got {value}")


def filled(section: Any, name: str) -> None:
    if not getattr(section, name):
        raise ValueError(f"{name}: the list is empty")


def distinct(names: Sequence[str], message: str) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise ValueError(message.format(name))
