"""Judge one model on every configured benchmark."""

import logging
from pathlib import Path
from typing import Any

from hexapla import benchmarks as formats
from hexapla import cli, encoder, evaluation, store, tracking
from hexapla.params import Benchmark, Evaluate

_log = logging.getLogger(__name__)


def evaluate(
    benchmarks: tuple[Benchmark, ...],
    evaluate: Evaluate,
    *,
    model: Path,
    scores: Path,
    languages: Path,
) -> None:
    """Write the headline figures to `scores` and those by language and pair to `languages`."""
    # All are read before the first is encoded: a broken file costs no work.
    read = {b.name: formats.load(Path(b.path), b.languages) for b in benchmarks}
    judged = encoder.load(str(model), prompts={})
    headlines: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, benchmark in read.items():
        sizes = f"{len(benchmark.questions):,} questions, then {len(benchmark.candidates):,} candidates"
        _log.info("%s on %s: encoding %s", model.name, name, sizes)
        questions, candidates = evaluation.encode(
            judged,
            benchmark,
            question_tokens=evaluate.question_tokens,
            passage_tokens=evaluate.passage_tokens,
            batch_size=evaluate.batch_size,
        )
        parts = evaluation.figures(evaluation.rank(benchmark, questions, candidates))
        headlines[name] = evaluation.headline(parts)
        details[name] = {
            "languages": list(benchmark.languages),
            "questions": len(benchmark.questions),
            "candidates": len(benchmark.candidates),
            **parts,
        }
    store.write_json(scores, headlines)
    store.write_json(languages, details)
    with tracking.run(model.name, model_sha256=store.sha256(model)) as tracked:
        for name, figures in headlines.items():
            known = {f"{name}/{key}": value for key, value in figures.items() if value is not None}
            tracked.metrics(known)


if __name__ == "__main__":
    cli.run(evaluate)
