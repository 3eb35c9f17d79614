"""From a function's signature to its command line.

Arguments before a `/` are positional; those before the `*` are keys of `params.yaml` and filled from
it; those after it are flags. So the signature is the one place that says what a stage reads, and a
test can hold `dvc.yaml` against it. Mistakes of the user end as one line on stderr and exit status 2.
"""

import argparse
import errno
import inspect
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from hexapla import config
from hexapla.schema import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def from_params(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that `params.yaml` fills."""
    arguments = inspect.signature(function).parameters.values()
    return [argument.name for argument in arguments if argument.kind is argument.POSITIONAL_OR_KEYWORD]


def _positional(function: Callable[..., Any]) -> list[str]:
    arguments = inspect.signature(function).parameters.values()
    return [argument.name for argument in arguments if argument.kind is argument.POSITIONAL_ONLY]


def parser(function: Callable[..., Any]) -> argparse.ArgumentParser:
    """A flag for each argument that is not a parameter; required unless it has a default."""
    built = _Parser(
        prog=_called(function),
        description=inspect.getdoc(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(function)
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY:
            required = argument.default is argument.empty
            default = None if required else argument.default
            flag = f"--{argument.name.replace('_', '-')}"
            options = _options(hints[argument.name])
            built.add_argument(flag, required=required, default=default, help=_shown(default), **options)
        elif argument.kind is argument.POSITIONAL_ONLY:
            built.add_argument(argument.name, **_options(hints[argument.name]))
    built.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="other settings than params.yaml"
    )
    return built


def _called(function: Callable[..., Any]) -> str:
    """How one calls it: a stage as a module, for DVC; the others as `hexapla NAME`."""
    module = f"hexapla.pipeline.{function.__name__}"
    known = sys.modules.get(function.__module__)
    spec = getattr(known, "__spec__", None)
    return f"python -m {module}" if spec and spec.name == module else f"hexapla {function.__name__}"


def _shown(default: Any) -> str | None:
    if default is None or default == "":
        return None
    return f"default: {' '.join(map(str, default)) if isinstance(default, tuple) else default}"


def _options(kind: Any) -> dict[str, Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _options(args[0])
    if origin is tuple:
        return {"nargs": "+", **_options(args[0])}
    if origin is Literal:
        return {"choices": args}
    if kind is bool:
        return {"action": "store_true"}
    return {"type": kind}


def _params_path(argv: Sequence[str]) -> Path:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--params", type=Path, default=Path("params.yaml"))
    path: Path = early.parse_known_args(argv)[0].params
    return path


def run(function: Callable[..., Any], argv: Sequence[str] | None = None) -> None:
    """Parse `argv`, load the parameters, call `function`; exit status 2 on a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for loud in ("httpx", "httpcore", "great_expectations", "datasets", "alembic", "sentence_transformers"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    # A dozen lines on retries otherwise, before our own one that says what can't be reached.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it sets its own level when it is imported
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        parameters = {}
        if (wanted := from_params(function)) and not {"-h", "--help"} & set(argv):
            known = config.load(_params_path(argv))
            parameters = {name: getattr(known, name) for name in wanted}
        flags = vars(parser(function).parse_args(argv))
        del flags["params"]
        positional = [flags.pop(name) for name in _positional(function)]
        function(*positional, **parameters, **flags)
    except UserError as mistake:
        print(f"hexapla {function.__name__}: {mistake}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A full disk, a folder that may not be written: the user's to mend, when it names a place.
        if not error.filename and error.errno != errno.ENOSPC:
            raise
        # Of a rename the second is where it was meant to go; the first may be our scratch file.
        name = error.filename2 or error.filename
        place = f"{name}: " if name else ""
        print(f"hexapla {function.__name__}: {place}{error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"hexapla {function.__name__}: interrupted", file=sys.stderr)
        sys.exit(130)
