"""What the stages wrote, told to a reader in Markdown."""

from collections.abc import Mapping, Sequence

from hexapla.evaluation.comparison import Comparison
from hexapla.evaluation.scoreboard import MEASURES
from hexapla.reporting import data_chapter
from hexapla.reporting.chapters import results
from hexapla.reporting.data_chapter import Data
from hexapla.reporting.result_tables import Model, code, plain, table

# arXiv 2408.10536, tables 2 to 4: batches, mAP on XQuAD-R (mono, cross, multi), MLQA-R, rank distances.
_PAPER = """
XLM-R monolingual  | .7918 .6737 .5479 | .6475 .5843 .4731 | 410 288
XLM-R crosslingual | .7554 .6997 .5934 | .6256 .6200 .5076 | 295 227
XLM-R hybrid       | .7977 .7053 .5927 | .6481 .6234 .5121 | 287 227
LaBSE monolingual  | .8083 .7519 .6517 | .6807 .6561 .5504 | 262 225
LaBSE crosslingual | .8008 .7618 .6791 | .6710 .6767 .5755 | 225 198
LaBSE hybrid       | .8167 .7672 .6817 | .6864 .6811 .5785 | 221 195
"""


def markdown(data: Data, models: Sequence[Model], compared: Mapping[str, Comparison], figures: str) -> str:
    """The whole report.

    Args:
        data: summaries of the data stages.
        models: the candidate first, then its baselines; all judged on the same benchmarks.
        compared: the models side by side, by benchmark.
        figures: folder of the pictures, relative to the report.
    """
    parts = [f"# Retrieval across languages: {plain(models[0].title)} beside its baselines"]
    for benchmark in models[0].results[0].scores:
        parts += results(benchmark, models, compared[benchmark], figures)
    parts += [*_measures(models), *_runs(models, figures), *data_chapter.data(data, figures)]
    parts += [*_paper(), *_limits(models)]
    return "\n\n".join(parts) + "\n"


# --- what was done -----------------------------------------------------------------------------


def _measures(models: Sequence[Model]) -> list[str]:
    better = {"higher": "higher", "lower": "lower", "even": "nearest to 1 / number of languages"}
    known = {key for each in models[0].results[0].scores.values() for key in each["none"]}
    rows = [[m.title, m.meaning, better[m.better]] for m in MEASURES.values() if m.key in known]
    return [
        "## How to read the figures",
        "A retriever orders passages by how well they seem to answer a question. In a multilingual pool the "
        "answer stands once in every language; a retriever that prefers the question's language puts that "
        "one first and the others far behind. *Average precision* is 1 when all passages that answer a "
        "question come before all others; only where a title says @20 is the ranking cut. Each figure is the "
        "mean over the questions of a language (or pair of languages), then over languages (or pairs); "
        "mAP@20 alone is the mean over all questions at once, as LAReQA's own scorer has it.",
        table(["measure", "meaning", "better"], rows, left=3),
    ]


def _runs(models: Sequence[Model], figures: str) -> list[str]:
    card = models[0].training
    rows = []
    for model in models:
        run = model.training
        kinds = run["batches"]
        trained = f"{run['trained_parameters'] / 1e6:,.1f} of {run['parameters'] / 1e6:,.1f} million"
        losses = "–" if run["first_loss"] is None else f"{run['first_loss']:.2f} → {run['last_loss']:.2f}"
        batches = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "–"
        steps = [run["steps"], run["epochs"]] if run["steps"] else ["–", "–"]
        rows.append([plain(model.title), *steps, batches, trained, losses])
    share = card.get("interpolate") or 0
    own = f" {share:.0%} of each trained model's weights are the encoder's own." if share else ""
    curves = []
    if any(model.training["steps"] for model in models):
        curves = [
            f"![Training loss by step]({figures}/loss.png)",
            "Losses of different samplers are not comparable: their batches are not equally hard.",
        ]
    return [
        "## How the models were made",
        f"Encoder `{code(card['encoder'])}`, seed {card['seed']}. Every trained model saw batches of "
        f"{card['batch_size']} pairs, learning rate {card['learning_rate']:g}, temperature "
        f"{card['temperature']:g}. *Untuned* is the encoder as it came; *monolingual* batches have one "
        "language each; in *crosslingual* batches question and passage always differ in language; *hybrid* "
        "batches are monolingual with probability α and crosslingual otherwise; a *parallel* batch holds "
        f"each pair in several languages, and every translation of an answer is as right as the others.{own}",
        table(
            ["model", "steps", "epochs", "batches", "trained parameters", "loss first → last"],
            rows,
        ),
        *curves,
    ]


def _paper() -> list[str]:
    rows = []
    for line in _PAPER.strip().splitlines():
        name, *groups = (cell.strip() for cell in line.split("|"))
        rows.append([name, *(cell for group in groups for cell in group.split())])
    settings = [f"{name} {each}" for name in ("XQuAD-R", "MLQA-R") for each in ("mono", "cross", "multi")]
    return [
        "## The paper's figures, for orientation",
        "From [arXiv 2408.10536](https://arxiv.org/abs/2408.10536): other encoders, data, training and "
        "benchmarks, so **not comparable** with the figures above; look at the order of the rows.",
        table(["encoder, batches", *settings, "rank distance XQuAD-R", "MLQA-R"], rows),
    ]


def _limits(models: Sequence[Model]) -> list[str]:
    single = len(models[0].results) == 1
    seeds = (
        f"Each model was trained once, with seed {models[0].training['seed']}: intervals and tests say how "
        "the figures would vary with other questions, not with another training. `comparison.seeds` in `params.yaml` "
        "trains more seeds. "
        if single
        else ""
    )
    return [
        "## What this report does not say",
        f"{seeds}Texts that the encoder saw before, in its pretraining, can't be seen from here. Relevant "
        "passages that no benchmark names count as wrong.",
    ]
