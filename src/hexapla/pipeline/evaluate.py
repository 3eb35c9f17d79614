"""Evaluate one model on every configured benchmark."""

import logging
from pathlib import Path

from hexapla import tracking
from hexapla.config import Benchmark, Evaluate
from hexapla.evaluation import results
from hexapla.io import hashing
from hexapla.parallel import distributed

_log = logging.getLogger(__name__)


def evaluate(
    benchmarks: tuple[Benchmark, ...], evaluate: Evaluate, *, model: Path, data: Path, out: Path
) -> None:
    """Write scores, details and the results of every query to one folder.

    Args:
        benchmarks: the benchmarks of params.yaml.
        evaluate: the section of params.yaml.
        model: the model's folder.
        data: the folder of the benchmarks, as `collect` left them.
        out: the folder that gets the results.
    """
    from hexapla.evaluation import evaluate as evaluation
    from hexapla.modeling import encoder

    # All are read before the first is encoded: a broken file costs no work.
    tasks = [
        evaluation.load_benchmark(b.name, data / b.name, b.languages, b.passage_unit) for b in benchmarks
    ]
    judged = encoder.load(str(model), prompts={})
    settings = evaluation.EvaluationSettings(
        evaluate.query_tokens, evaluate.passage_tokens, evaluate.precision, evaluate.centering
    )
    found = evaluation.evaluate_encoder(judged, tasks, settings, folder=model, name=model.name)
    if not distributed.is_main():
        return
    identity = hashing.sha256(model)
    card = {
        "name": model.name,
        "model_sha256": identity,
        "training": encoder.read_card(model),
        "evaluation": found.settings,
    }
    result = results.write(out, card, found.ranked)
    with tracking.run(model.name, model_sha256=identity) as tracked:
        tracked.metrics(results.flatten(result.scores))
        tracked.artifacts([out / results.QUESTIONS], "questions")
