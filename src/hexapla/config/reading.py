"""Sections of a YAML file as pydantic dataclasses, and their mistakes in one line; only this module knows YAML."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)  # fmt: skip
from pydantic.dataclasses import dataclass

from hexapla.schema import UserError, suggest

Kind = TypeVar("Kind")
Item = TypeVar("Item")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _refuse_twins(value: tuple[Any, ...]) -> tuple[Any, ...]:
    for item in value:
        if value.count(item) > 1:
            raise ValueError(f"'{item}' is listed twice")
    return value


Listed = Annotated[tuple[Item, ...], BeforeValidator(_to_tuple)]
"""A YAML list."""
Distinct = Annotated[tuple[Item, ...], BeforeValidator(lambda value: _refuse_twins(_to_tuple(value)))]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Section:
    """A mapping of `params.yaml`; subclasses whose `tag` says when they apply are variants of their base."""

    tag: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        """Refuse unknown keys by name; text, lists and mappings without a value count as left out."""
        if given is None:
            return {}
        if not isinstance(given, dict):
            return given
        known = fields(cls)
        for key in given:
            if key in known:
                continue
            if tags := [f"`{other.tag}`" for other in _variants(cls) if key in fields(other)]:
                raise ValueError(f"{key}: goes with {' or '.join(tags)}, not with `{cls.tag}`; leave it out")
            raise ValueError(f"{key}: unknown key; {suggest(str(key), known)}")
        scalars = (StrictInt, StrictFloat, StrictBool, int, float, bool)
        return {
            key: value
            for key, value in given.items()
            if value is not None or known[key].annotation in scalars
        }


def fields(section: type[Section]) -> dict[str, Any]:
    """The keys of a section, each with pydantic's `FieldInfo`."""
    return section.__pydantic_fields__  # type: ignore[attr-defined, no-any-return]


def _variants(section: type[Section]) -> list[type[Section]]:
    """All classes that one key may hold, this one included, in the order of their definition."""
    base: Any = section.__mro__[-3]
    pending: list[type[Section]] = [base]
    found: list[type[Section]] = []
    while pending:
        pending += (one := pending.pop(0)).__subclasses__()
        found += [one] if one.tag else []
    return found


def choose_by(key: str) -> Discriminator:
    """Choose a variant by the value of `key`; a `preset` needs none."""

    def tag(given: Any) -> str | None:
        if isinstance(given, Section):
            return f"`{given.tag}`"
        if not isinstance(given, dict):
            return None
        return "`preset`" if given.get("preset") else f"`{key}: {given.get(key)}`"

    return Discriminator(tag)


# --- reading ------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-5` as text and `no` (Norwegian) as false; this reads both as YAML 1.2 does."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key '{key}' is given twice, line {node.start_mark.line + 1}")
        built: dict[Any, Any] = super().construct_mapping(node, deep)
        return built


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not (tag.endswith(":bool") and first in "yYnNoO")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path: Path, kind: type[Kind]) -> Kind:
    """Read a YAML file as an instance of `kind`, a dataclass whose own checks raise ValueError("key: why").

    Raises:
        UserError: as for `load`.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {': '.join(filter(None, _explain(error)))}") from None


def misfit(section: type[Section], key: str, value: Any, kind: Any = None) -> str:
    """What is wrong with a value for a key of `section`, empty when it fits; `kind` replaces the key's type."""
    info = fields(section)[key]
    try:
        whole: Any = Annotated[(kind or info.annotation, *info.metadata)]
        TypeAdapter(whole).validate_python(value)
    except ValidationError as error:
        return _explain(error)[1]
    return ""


_WANTED = {
    "int": "a whole number", "float": "a number", "string": "a text", "bool": "true or false",
    "tuple": "a list", "dict": "a mapping", "dataclass": "a mapping", "finite_number": "a finite number",
    "union_tag_not_found": "a mapping",
}  # fmt: skip
_BOUNDS = {"greater_than_equal": "at least", "less_than_equal": "at most", "greater_than": "above"}
_PATTERNS = {
    "^[0-9a-f]{64}$": "64 hexadecimal digits, as `sha256sum` prints them",
    "^[^/]+/[^/]+$": "a dataset's id, owner/name",
    "^[A-Za-z0-9_-]*$": "letters, digits, - and _ only",
}


def _explain(error: ValidationError) -> tuple[str, str]:
    """The first mistake: the full name of its key, and what is wrong in our words."""
    first = error.errors()[0]
    key = ""
    for part in first["loc"]:
        if isinstance(part, int):
            key += f"[{part}]"
        elif not part.startswith("`"):  # the tag of a variant is no key
            key += f".{part}" if key else part
    kind, got, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "value_error":
        return _split(key, str(context["error"]))
    if kind == "missing":
        return key, "missing"
    if kind in ("too_short", "string_too_short"):
        return key, "the list is empty" if kind == "too_short" else "missing"
    if kind in _BOUNDS:
        return key, f"must be {_BOUNDS[kind]} {next(iter(context.values())):g}, got {got}"
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return key, f"{got!r} is not one of {choices}"
    if kind == "union_tag_invalid":
        choices = context["expected_tags"].replace("'", "")
        return key, f"wants one of {choices}; got {context['tag']}"
    wanted = _PATTERNS.get(context.get("pattern", ""), "") or _WANTED.get(kind.removesuffix("_type"), kind)
    return key, f"wants {wanted}, got {got!r}"


def _split(key: str, message: str) -> tuple[str, str]:
    """Checks of a whole section name the key within it themselves."""
    own, found, why = message.partition(": ")
    if found and re.fullmatch(r"[\w.\[\]-]+", own):
        return f"{key}.{own}" if key else own, why
    return key, message
