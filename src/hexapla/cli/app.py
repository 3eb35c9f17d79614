"""The program `hexapla`: which commands there are, and how their errors end.

`hexapla --help` and shell completion list the commands from the tables below. A command's own module, and with it
NumPy or PyTorch, is imported only when that command is called.
"""

import errno
import importlib
import importlib.metadata
import inspect
import io
import logging
import os
import re
import select
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hexapla import config
from hexapla.schema import UserError

COMMANDS = {
    "evaluate": "Evaluate any model on any benchmark.",
    "compare": "Compare results, with intervals and tests.",
    "plan": "Say what a run needs and what it would cost, without running it.",
    "inspect": "Show rejected and borderline rows next to their English.",
    "cache": "Show or reduce what the cache takes on disk.",
    "gate": "Check scores against the accepted ones.",
}
STAGES = {
    "collect": "Collect pairs from every source, and the benchmarks.",
    "translate": "Translate the English pairs, and rate every translation.",
    "validate": "Keep the rows that pass every check.",
    "train": "Train one model.",
    "evaluate": "Evaluate one model on every configured benchmark.",
    "report": "Write the report about all models.",
}
_DISTRIBUTED = {"train", "evaluate"}
"""Stages that run in as many processes as `launch` in `params.yaml` says."""
_IN_PIPELINE = {"gate"}
"""Commands that run a function of `pipeline`, whether or not they are stages."""

ParamsOption = Annotated[Path, typer.Option("--params", help="The YAML file with the settings.")]


class _Group(TyperGroup):
    """A group that replaces the listed command by the real one when it is called or completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or isinstance(listed, TyperGroup):
            return name, listed, rest
        return name, load(name, stage=self.name == "stage"), rest


class _Command(TyperCommand):
    """A command whose expected errors become one line, and whose list options take several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._repeat_options(args))

    def _repeat_options(self, args: Sequence[str]) -> list[str]:
        """Write `--benchmark a b` as `--benchmark a --benchmark b`, the only form that click reads."""
        lists = {flag for param in self.params if getattr(param, "multiple", False) for flag in param.opts}
        repeated: list[str] = []
        flag = ""
        for word in args:
            if word.startswith("-"):
                flag = word if word in lists else ""
            elif flag and repeated[-1] != flag:
                repeated.append(flag)
            repeated.append(word)
        return repeated

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Failure(str(error), ctx.command_path) from error
        except KeyboardInterrupt as error:
            raise _Failure("interrupted", ctx.command_path, 130) from error
        except BrokenPipeError as error:
            if not _is_stdout_closed():
                # click would end quietly, as if the reader of our output had gone.
                raise RuntimeError("the pipe to another process is broken") from error
            raise
        except OSError as error:
            # The user can mend a full disk or a protected folder, but only if the error names the place.
            if not error.filename and error.errno != errno.ENOSPC:
                raise
            # A failed rename has two names. The second is the destination; the first may be a scratch file.
            name = error.filename2 or error.filename
            message = f"{name}: {error.strerror}" if name else str(error.strerror)
            raise _Failure(message, ctx.command_path) from error


class _Failure(typer.TyperException):
    """An error that ends the program with one line on stderr."""

    def __init__(self, message: str, command: str, status: int = 2) -> None:
        super().__init__(message)
        self.command, self.exit_code = command, status


def load(name: str, *, stage: bool = False) -> TyperCommand:
    """Import the command and build its parser."""
    room = "pipeline" if stage or name in _IN_PIPELINE else "cli"
    function = getattr(importlib.import_module(f"hexapla.{room}.{name}"), name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=_Command)(
        _with_sections(function) if room == "pipeline" or sections(function) else function
    )
    built: TyperCommand = typer.main.get_command(single)  # type: ignore[assignment]
    return built


def sections(function: Callable[..., Any]) -> list[str]:
    """List the top-level keys of `params.yaml` that a stage reads: its parameters before the `*`.

    A stage that reads keys of many sections takes the whole file as `settings`.
    """
    known = {*typing.get_type_hints(config.Config), "settings"}
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name in known
    ]


def _with_sections(function: Callable[..., Any]) -> Callable[..., None]:
    """Give a stage the option `--params`, whose file fills its sections; every other parameter is an option.

    The help comes from the stage's docstring, so that `pipeline` needs no Typer.
    """
    wanted = sections(function)
    prose, described = _read_docstring(function)
    flags = {
        name: parameter.replace(annotation=_as_option(parameter.annotation, described.get(name)))
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if name not in wanted
    }

    def run(context: typer.Context, params: Path | None = None, **options: Any) -> None:
        settings = config.load(params) if params else None
        if settings and params and function.__module__.startswith("hexapla.pipeline."):
            from hexapla.cli.requirements import refuse_unpinned

            refuse_unpinned(settings, params)
        if settings and function.__name__ in _DISTRIBUTED:
            from hexapla.parallel.launch import launch

            # No result depends on it, so it is no parameter of the stage.
            status = launch(settings.launch, "hexapla", context.obj)
            if status is not None:
                raise typer.Exit(status)
        read = {name: settings if name == "settings" else getattr(settings, name) for name in wanted}
        function(**read, **options)

    if wanted:
        flags["params"] = inspect.Parameter(
            "params", inspect.Parameter.KEYWORD_ONLY, default=Path("params.yaml"), annotation=ParamsOption
        )
    flags = {
        "context": inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    } | flags
    run.__doc__ = prose
    run.__annotations__ = {name: parameter.annotation for name, parameter in flags.items()}
    run.__signature__ = inspect.Signature(list(flags.values()))  # type: ignore[attr-defined]
    return run


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a docstring into its prose and the descriptions of the parameters in its section `Args:`."""
    prose, _, section = (inspect.getdoc(function) or "").partition("\n\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section.partition("\n\n")[0], re.MULTILINE)
    return prose, {name: " ".join(f"{text[0].upper()}{text[1:]}".split()) for name, text in entries}


def _as_option(kind: Any, text: str | None) -> Any:
    """Mark a type as an option's; Typer would take a parameter without a default for an argument."""
    return kind if typing.get_origin(kind) is Annotated else Annotated[kind, typer.Option(help=text)]


# --- the program -----------------------------------------------------------------------------------


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hexapla {importlib.metadata.version('hexapla')}")
        raise typer.Exit


def _start(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Train and evaluate multilingual dense retrievers that do not prefer their own language."""
    _print_help(context)


def _start_stage(context: typer.Context) -> None:
    """Run one stage of the pipeline, as dvc.yaml does."""
    _print_help(context)


def _print_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _build_group(commands: dict[str, str], callback: Callable[..., None], **options: Any) -> typer.Typer:
    group = typer.Typer(
        cls=_Group,
        callback=callback,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **options,
    )
    for name, text in commands.items():
        group.command(name, help=text)(lambda: None)
    return group


def build() -> TyperGroup:
    """Build the program's parser."""
    app = _build_group(COMMANDS, _start)
    app.add_typer(_build_group(STAGES, _start_stage), name="stage")
    built: TyperGroup = typer.main.get_command(app)  # type: ignore[assignment]
    return built


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv`; an error that the user can mend is one line and exit status 2."""
    _set_up_logging()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that can't show ▲ or 中 gets question marks, and not a traceback after the work is done.
        sys.stdout.reconfigure(errors="replace")
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        # The words are kept as the context's object for a stage that starts itself in several processes.
        status = build().main(words, prog_name="hexapla", standalone_mode=False, obj=words)
        sys.stdout.flush()
    except typer.TyperException as error:
        _print_error(error)
        status = error.exit_code
    except BrokenPipeError:
        # `hexapla compare … | head`: Python would complain once more when it flushes at its end.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open until the end
        status = 1
    if status:
        sys.exit(status)


def _set_up_logging() -> None:
    # Libraries speak up only when something is wrong. What they say besides may hold signed addresses, as the lines
    # of the hub's client do.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hexapla").setLevel(logging.INFO)
    # It logs a dozen lines on retries before our own line says what can't be reached.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it sets its own level when it is imported


def _print_error(error: typer.TyperException) -> None:
    if os.environ.get("HEXAPLA_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error.__cause__ or error)
    context = getattr(error, "ctx", None)  # set for errors in the command line itself
    command = error.command if isinstance(error, _Failure) else context.command_path if context else "hexapla"
    message = " ".join(error.format_message().split()).replace("Value error, ", "")  # pydantic's words
    print(f"{command}: {message}", file=sys.stderr)


def _is_stdout_closed() -> bool:
    """Whether nobody reads our output any more; a small text that could not be written is still in the buffer."""
    try:
        sys.stdout.flush()
        descriptor = sys.stdout.fileno()
    except BrokenPipeError:
        return True
    except io.UnsupportedOperation:
        return False
    stdout = select.poll()
    stdout.register(descriptor, 0)  # errors are reported in any case
    return any(event & select.POLLERR for _, event in stdout.poll(0))
