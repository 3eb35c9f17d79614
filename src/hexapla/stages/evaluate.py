"""Judge one model on every configured benchmark."""

import logging
from pathlib import Path

from hexapla import cards, cli, encoder, evaluation, processes, results, store, tracking
from hexapla.params import Benchmark, Evaluate

_log = logging.getLogger(__name__)


def evaluate(
    benchmarks: tuple[Benchmark, ...], evaluate: Evaluate, *, model: Path, data: Path, out: Path
) -> None:
    """Write scores, details and the results of every question to the folder `out`.

    `data` holds the benchmarks as `collect` left them.
    """
    # All are read before the first is encoded: a broken file costs no work.
    tasks = [evaluation.task(b.name, data / b.name, b.languages, b.candidate_text) for b in benchmarks]
    judged = encoder.load(str(model), prompts={})
    settings = evaluation.Settings(
        evaluate.question_tokens, evaluate.passage_tokens, evaluate.precision, evaluate.centring
    )
    found = evaluation.judge(judged, tasks, settings, folder=model, name=model.name)
    if not processes.is_main():
        return
    card = {
        "name": model.name, **cards.read(model), "model_sha256": store.sha256(model), **found.card
    }  # fmt: skip
    result = results.write(out, card, found.judged)
    with tracking.run(model.name, model_sha256=card["model_sha256"]) as tracked:
        tracked.metrics(results.flat(result.scores))
        tracked.artifacts([out / results.QUESTIONS], "questions")


if __name__ == "__main__":
    cli.run(evaluate)
