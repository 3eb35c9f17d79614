"""Tables and figures that set the candidate beside its baselines."""

import logging
from pathlib import Path

from hexapla import cli, figures, pages, reporting, store, tables, tracking
from hexapla.params import BaselineName

_log = logging.getLogger(__name__)
_CANDIDATE = "candidate"


def report(
    baselines: tuple[BaselineName, ...],
    *,
    data: Path,
    validation: Path,
    training: Path,
    curves: Path,
    scores: Path,
    languages: Path,
    markdown: Path,
    html: Path,
    pictures: Path,
) -> None:
    """Write the report as Markdown and as one HTML page, and hand both to each model's MLflow run."""
    models = [
        tables.Model(name, *(store.read_json(f / f"{name}.json") for f in (training, scores, languages)))
        for name in (_CANDIDATE, *baselines)
    ]
    facts = reporting.Data(
        store.read_json(data / "collect.json"),
        store.read_json(data / "translate.json"),
        store.read_json(validation),
    )
    with store.whole_folder(pictures) as folder:
        _draw(folder, models, curves)
    text = reporting.markdown(facts, models, pictures.name)
    drawn = sorted(pictures.iterdir())
    store.write_text(markdown, text)
    store.write_text(html, pages.page(text, {f"{pictures.name}/{p.name}": p.read_bytes() for p in drawn}))
    for model in models:
        with tracking.run(model.name, model_sha256=model.training["model_sha256"]) as tracked:
            if tracked.new:  # trained elsewhere, or before this store was there: DVC had it cached
                tracked.parameters(model.training)
                tracked.metrics(_figures(model))
            tracked.artifacts([markdown, html], "report")
            tracked.artifacts(drawn, f"report/{pictures.name}")
        if not tracked.alive:
            break  # one warning is enough
    _log.info("\n%s\n", tables.plain_table(models))


def _figures(model: tables.Model) -> dict[str, float]:
    named = ((f"{name}/{key}", value) for name, s in model.scores.items() for key, value in s.items())
    return {name: value for name, value in named if value is not None}


def _draw(folder: Path, models: list[tables.Model], curves: Path) -> None:
    for benchmark, detail in models[0].languages.items():
        shown = detail["languages"]
        details = {model.title: model.languages[benchmark] for model in models}
        matrices = {title: tables.pair_matrix(each) for title, each in details.items()}
        figures.language_pairs(folder / f"{benchmark}-language-pairs.png", shown, matrices)
        distances = {
            title: [each["multi"]["rank_distance"][lang] for lang in shown] for title, each in details.items()
        }
        figures.rank_distances(
            folder / f"{benchmark}-rank-distance.png", shown, distances, ideal=len(shown) - 1
        )
    if any(model.training["steps"] for model in models):
        losses = {model.title: store.read_curve(curves / f"{model.name}.csv", "loss") for model in models}
        figures.losses(folder / "loss.png", losses)


if __name__ == "__main__":
    cli.run(report)
