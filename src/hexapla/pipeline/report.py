"""Tables and figures that compare the candidate with its baselines."""

import logging
from itertools import chain
from pathlib import Path

from hexapla import config, tracking
from hexapla.evaluation import results
from hexapla.evaluation import statistics as comparing
from hexapla.evaluation.metrics import SHORT, choose_known
from hexapla.evaluation.statistics import Comparison
from hexapla.io import cache
from hexapla.reporting import html as pages
from hexapla.reporting import plots, result_tables
from hexapla.reporting import report as reporting
from hexapla.reporting.report import StageSummaries
from hexapla.reporting.result_tables import Model

_log = logging.getLogger(__name__)
_CANDIDATE = "candidate"


def report(
    comparison: config.ComparisonSettings,
    *,
    data: Path,
    validation: Path,
    training: Path,
    curves: Path,
    judged: Path,
    markdown: Path,
    html: Path,
    pictures: Path,
) -> None:
    """Write the report as Markdown and as one HTML page, and hand both to each model's MLflow run.

    Args:
        comparison: the section of params.yaml.
        data: the folder with the summaries of `collect` and `translate`.
        validation: the summary of `validate`.
        training: the folder with the summary of each training.
        curves: the folder with the curve of each training.
        judged: the folder with the results of each model.
        markdown: the Markdown file that gets the report.
        html: the HTML file that gets the report, with its pictures inside.
        pictures: the folder that gets the pictures.
    """
    cache.check_outputs(markdown, html, pictures, inputs=[data, validation, training, curves, judged])
    models = _models(comparison, judged, training)
    facts = StageSummaries(
        cache.read_json(data / "collect.json"),
        cache.read_json(data / "translate.json"),
        cache.read_json(validation),
    )
    with cache.atomic_folder(pictures) as folder:
        _draw(folder, facts, models, curves)
    judged_on = models[0].results[0].benchmarks
    compared = {b: comparing.compare_models(b, [model.judged() for model in models]) for b in judged_on}
    text = reporting.markdown(facts, models, compared, pictures.name)
    drawn = sorted(pictures.glob("*.png"))
    cache.write_text(markdown, text)
    cache.write_text(html, pages.page(text, {f"{pictures.name}/{p.name}": p.read_bytes() for p in drawn}))
    for model in models:
        with tracking.run(model.name, model_sha256=model.training["model_sha256"]) as tracked:
            if tracked.new:  # trained elsewhere, or before this store was there: DVC had it cached
                tracked.parameters(model.training)
                tracked.metrics(results.flatten(model.results[0].scores))
            tracked.artifacts([markdown, html], "report")
            tracked.artifacts(drawn, f"report/{pictures.name}")
        if not tracked.alive:
            break  # one warning is enough
    _print(models[0], compared)


def _models(comparison: config.ComparisonSettings, judged: Path, training: Path) -> list[Model]:
    """The candidate, then the comparison's; each with the other seeds of the same settings."""
    trained = comparison.trained()
    names = [_CANDIDATE, *comparison.untuned(), *(seeds[0] for seeds in trained)]
    found = {name: results.read(judged / name) for name in dict.fromkeys([*names, *chain(*trained)])}
    return [
        Model(
            name,
            comparing.find_seeds(
                {name: found[name]} | {n: r for n, r in found.items() if n != _CANDIDATE}, name
            ),
            cache.read_json(training / f"{name}.json"),
        )
        for name in names
    ]


def _print(candidate: Model, compared: dict[str, Comparison]) -> None:
    """The comparison, short enough for a terminal."""
    result = candidate.results[0]
    for benchmark, (_, board, tests) in compared.items():
        short = choose_known(SHORT, result.scores[benchmark]["none"])
        languages = len(result.benchmarks[benchmark]["languages"])
        _log.info("\n%s", result_tables.plain_table(benchmark, board, tests, short, languages))
    _log.info(
        "\n* best: highest mAP and recall, lowest rank distance, own language nearest to its fair share\n"
        "▲ ▼ significantly better, worse than the candidate\n"
    )


def _draw(folder: Path, facts: StageSummaries, models: list[Model], curves: Path) -> None:
    languages, panels = reporting.quality_quantiles(facts.translate)
    if panels:
        plots.spreads(folder / "quality.png", languages, panels)
    for benchmark, judged in models[0].results[0].benchmarks.items():
        if judged["format"] == "lareqa":
            _draw_languages(folder, benchmark, models, judged["languages"])
    if any(model.training["steps"] for model in models):
        losses = {model.title: cache.read_curve(curves / f"{model.name}.csv", "loss") for model in models}
        plots.losses(folder / "loss.png", losses)


def _draw_languages(folder: Path, benchmark: str, models: list[Model], shown: list[str]) -> None:
    details = {model.title: model.detail(benchmark) for model in models}
    pairs = {title: result_tables.pair_matrix(shown, each) for title, each in details.items()}
    plots.language_pairs(folder / f"{benchmark}-language-pairs.png", shown, pairs)
    mine = models[0].detail(benchmark)["matrices"]
    plots.matrices(
        folder / f"{benchmark}-matrices.png",
        shown,
        {
            "R@1": result_tables.matrix(mine["r1"]),
            "share of the first ten": result_tables.matrix(mine["share_top10"]),
        },
    )
    distances = {
        title: [each["multi"]["rank_distance"][lang] for lang in shown] for title, each in details.items()
    }
    plots.rank_distances(folder / f"{benchmark}-rank-distance.png", shown, distances, ideal=len(shown) - 1)
