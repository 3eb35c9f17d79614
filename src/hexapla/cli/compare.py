"""Results of several models side by side."""

from pathlib import Path
from typing import Annotated

import typer

from hexapla.config import Centering
from hexapla.evaluation import results, statistics
from hexapla.evaluation.metrics import SHORT, choose_known
from hexapla.reporting import result_tables
from hexapla.reporting.result_tables import Model
from hexapla.schema import UserError

_NOTE = (
    "* best: highest; of rank distance and worst rank lowest; own language nearest to 1 / languages.\n"
    "▲ significantly better, ▼ significantly worse than the first model.\n"
    "[a, b]: 95 % bootstrap interval over source questions; ±: standard deviation over seeds.\n"
    "p: paired randomisation test over source questions, Holm-corrected over each table; † below 0.05."
)


def compare(
    dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Folders that `hexapla evaluate --out` or the evaluate stage wrote (reports/results/NAME).",
        ),
    ],
    *,
    centering: Annotated[Centering, typer.Option(help="Compare the results under this centering.")] = "none",
    control: Annotated[
        Centering | None,
        typer.Option(
            help="Also show each model but the first under this centering: "
            "is training better than a remedy that needs none?"
        ),
    ] = None,
) -> None:
    """Compare the first results with each of the others: figures, intervals, differences and tests.

    Folders whose models differ in the training seed alone are averaged.
    """
    models = _group_seeds(dirs)
    if len(models) < 2:
        raise UserError("wants the folders of at least two different models")
    shared = [
        name
        for name in models[0].results[0].benchmarks
        if all(centering in _find_centerings(model, name) for model in models)
        and (not control or all(control in _find_centerings(model, name) for model in models[1:]))
    ]
    if not shared:
        known = "; ".join(f"{model.name}: {_describe_benchmarks(model)}" for model in models)
        wanted = f"'{centering}'" if control in (None, centering) else f"'{centering}' and '{control}'"
        raise UserError(f"no benchmark that all have with centering {wanted} ({known})")
    for line in _list_differences(models):
        print(line)
    for benchmark in shared:
        _print_benchmark(benchmark, models, centering, control)
    print(_NOTE)


def _group_seeds(dirs: list[Path]) -> list[Model]:
    read = {str(folder): results.read(folder) for folder in dirs}
    models: list[Model] = []
    taken: set[str] = set()
    names = _name_models(read)
    for folder in read:
        if folder in taken:
            continue
        seeds = statistics.find_seeds({f: r for f, r in read.items() if f not in taken}, folder)
        taken |= {f for f, r in read.items() if any(r is each for each in seeds)}
        models.append(Model(names[folder], seeds))
    return models


def _name_models(read: dict[str, results.Result]) -> dict[str, str]:
    """Give each folder the name in its card, or its path if several share that name."""
    own = {folder: str(result.card.get("name", folder)) for folder, result in read.items()}
    return {
        folder: name if list(own.values()).count(name) == 1 else str(Path(folder))
        for folder, name in own.items()
    }


def _list_differences(models: list[Model]) -> list[str]:
    """List the settings of evaluation in which the models differ; a reader of the figures has to know them."""
    lines = []
    for key in ("query_tokens", "passage_tokens", "precision", "prompts"):
        values = [model.results[0].evaluation.get(key) for model in models]
        if any(value != values[0] for value in values):
            each = "; ".join(f"{model.title} {v}" for model, v in zip(models, values, strict=True))
            lines.append(f"Evaluated with different {key}: {each}")
    return lines


def _find_centerings(model: Model, benchmark: str) -> set[str]:
    """Find the centerings under which every seed was evaluated."""
    kinds = [set(result.benchmarks.get(benchmark, {}).get("centering", ())) for result in model.results]
    return set.intersection(*kinds)


def _describe_benchmarks(model: Model) -> str:
    kinds = [f"{name} ({', '.join(d['centering'])})" for name, d in model.results[0].benchmarks.items()]
    return ", ".join(kinds)


def _print_benchmark(benchmark: str, models: list[Model], centering: str, control: str | None) -> None:
    judged = [model.judged(centering) for model in models]
    for model in models[1:] if control else ():
        other = model.judged(str(control))
        judged.append(other._replace(name=f"{other.name}, centered: {control}"))
    measures, board, tests = statistics.compare_models(benchmark, judged)
    languages = len(models[0].results[0].benchmarks[benchmark]["languages"])
    short = choose_known(SHORT, models[0].results[0].scores[benchmark][centering])
    title = benchmark if centering == "none" else f"{benchmark}, centered: {centering}"
    print(result_tables.plain_table(title, board, tests, short, languages), end="\n\n")
    print(result_tables.plain_intervals(board, measures), end="\n\n")
    others = [f"{board[0][0]}\nminus {name}" for name, _ in board[1:]]
    print(result_tables.plain_deltas(others, tests, measures), end="\n\n")
