"""docs/configuration.md, made from the models: `python -m hexapla.config.reference > docs/configuration.md`."""

import ast
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

from hexapla.config import Config
from hexapla.config.reading import Section, fields

_INTRODUCTION = """\
# Configuration

All settings are in [`params.yaml`](../params.yaml). Every stage checks the whole file: an unknown key, a wrong
type or a value out of bounds is reported in one line that names the key. Change values in the file, or for one
experiment with `dvc exp run -S hybrid.alpha=0.3`; a key that the file does not have yet needs a `+`:
`-S '+translate.model=…'`.

This page is made from the models in `src/hexapla/config`: `python -m hexapla.config.reference > docs/configuration.md`.
"""


def reference() -> str:
    """All keys of `params.yaml` with their defaults, values and descriptions, as Markdown."""
    top: list[str] = []
    chapters: list[str] = []
    for key, info in fields(Config).items():
        kinds = list(sections(info.annotation))
        if not kinds:
            top.append(key)
            continue
        named = get_origin(info.annotation) is dict
        chapters += _describe(f"{key}.<name>" if named else key, kinds)
    return "\n".join([_INTRODUCTION, "## Top of the file", "", *_table(Config, top), *chapters])


def _describe(key: str, kinds: list[type[Section]]) -> Iterator[str]:
    """A chapter for a section: what all its variants share, then each variant, then the sections in it."""
    base = kinds[0] if len(kinds) == 1 else kinds[0].__mro__[-3]
    inner = {name: list(sections(info.annotation)) for name, info in fields(base).items()}
    common = [name for name in fields(base) if not inner[name] and name != "engine"]
    yield from ("", f"## `{key}`", "", _summary(base), "", *_table(base, common))
    for kind in kinds if len(kinds) > 1 else ():
        own = [name for name in fields(kind) if name not in (*common, "kind", "engine")]
        yield from ("", f"### `{kind.tag}`", "", _summary(kind), "", *_table(kind, own))
    for name, variants in inner.items():
        if variants:
            yield from _describe(f"{key}.{name}", variants)


def sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a field's annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def _summary(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _table(section: type[Section], keys: list[str]) -> Iterator[str]:
    if not keys:
        yield "It has no further keys."
        return
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    meanings = descriptions(section)
    for key in keys:
        info = fields(section)[key]
        default = "required" if info.is_required() else _yaml(info.get_default(call_default_factory=True))
        yield f"| `{key}` | {_values(info)} | {default} | {meanings[key]} |"


def descriptions(section: type[Section]) -> dict[str, str]:
    """The description of each key, from the docstring below it. Pydantic can read these too, at every import."""
    found = {}
    for one in reversed(section.__mro__[:-2]):
        (tree,) = ast.parse(inspect.getsource(one)).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[key] = " ".join(words.split()).replace("|", "\\|")
    return found


def _yaml(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _values(info: Any) -> str:
    """What a key takes, such as `whole number, at least 1`."""
    bounds = [
        f"{word} {getattr(rule, name):g}"
        for rule in info.metadata
        for name, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"))
        if hasattr(rule, name)
    ]
    return ", ".join([_name(info.annotation), *bounds])


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}


def _name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in args)
    if origin is Annotated:
        return _name(args[0])
    if origin is tuple:
        return f"list of {_name(args[0])}"
    if origin is dict:
        return f"mapping to {_name(args[1])}"
    return _NAMES.get(annotation) or _name(args[0])


if __name__ == "__main__":
    sys.stdout.write(reference())
