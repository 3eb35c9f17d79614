"""Train one model, or take the encoder as it is, and save it as a sentence-transformers folder."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hexapla import tracking
from hexapla.config import Config, ModelSettings, Train
from hexapla.io import cache, hashing
from hexapla.modeling import adapters, centering, embed, model_card, precision
from hexapla.modeling import encoder as encoders
from hexapla.parallel import distributed
from hexapla.schema import ParallelBenchmark, UserError, suggest
from hexapla.training import dataset as tables
from hexapla.training import early_stopping, recipes, samplers, trainer
from hexapla.training.checkpoints import Checkpoints

_CURVE = ("step", "loss", "learning_rate", "gradient_norm")
_UNLOGGED = ("step", "kind")
_FREE = ("forward_tokens", "kept_tokens", "gradient_checkpointing", "checkpoint_every")
"""Parameters that say how and not what: with another value, a training that ran out of memory may go on."""


def train(
    settings: Config,
    *,
    encoder: str | None = None,
    recipe: str | None = None,
    seed: int | None = None,
    untuned: bool = False,
    pairs: Path,
    model: Path,
    curve: Path,
    summary: Path,
    checkpoints: Path | None = None,
) -> None:
    """Train `model` on the validated pairs: the candidate, or a model of the comparison.

    Without options the top of params.yaml says how. Encoder, recipe and seed choose a model of the comparison;
    `--untuned` with an encoder saves that as it is.
    """
    chosen = _choose(settings, encoder, recipe, seed, untuned=untuned)
    train, sampler, seed = chosen.train, chosen.sampler, chosen.seed
    prompts = dataclasses.asdict(chosen.prompts)
    table = tables.open(pairs)
    index = _index(table)
    card = _how(chosen) | {"encoder": chosen.encoder, "seed": seed}
    card |= {"data_sha256": hashing.sha256(pairs), "prompts": prompts}
    card |= dataclasses.asdict(train)
    if train.holdout and not checkpoints:
        raise UserError("train.holdout: early stopping keeps its best weights there: wants --checkpoints")
    split = early_stopping.split(index, train.holdout if sampler != "untuned" else 0, seed)
    plan = None
    if sampler != "untuned":
        # Before the encoder is loaded: what is wrong with the data shows at once.
        plan = samplers.Plan(
            early_stopping.without(index, split),
            sampler=sampler,
            batch_size=train.batch_size,
            seed=seed,
            alpha=chosen.hybrid.alpha,
            mixing=chosen.hybrid.mixing,
            languages_per_id=chosen.parallel.languages,
            weights=train.languages,
            exponent=train.size_exponent,
        )
    learner = encoders.load(chosen.encoder, prompts=prompts)
    kept = _checkpoints(checkpoints, card, learner, train)
    main = distributed.is_main()
    with tracking.run(model.name, resume=kept.noted(), system_metrics=bool(plan), silent=not main) as tracked:
        tracked.parameters(card)
        kept.note(tracked.id)
        steps: list[trainer.Step] = []
        trained = 0
        if plan:
            start = recipes.adapt(learner, train, seed)
            trained = sum(weight.numel() for weight in adapters.trained(learner).values())
            benchmark = early_stopping.benchmark(index, split.held, table.texts) if train.holdout else None
            steps = _fit(learner, table, plan, train, kept, benchmark, tracked)
            adapters.merge(learner)
            adapters.interpolate(learner, start, train.interpolate)
        means = _means(learner, table, train, seed)
        if not main:
            return
        learner.save(model)
        model_card.write(model, card)
        centering.save(model, *means)
        told = _outcome(learner, table, index, model, plan, steps) | {"trained_parameters": trained}
        cache.write_csv(curve, _CURVE, [[getattr(step, name) for name in _CURVE] for step in steps])
        cache.write_json(summary, {**card, **told})
        tracked.tags({tracking.MODEL_TAG: told["model_sha256"], "sampler": sampler})
        tracked.metrics({name: told[name] for name in ("parameters", "trained_parameters")})
    kept.clear()


def _index(table: tables.Table) -> samplers.Index:
    if not table.rows:
        raise UserError(f"{table.path}: no rows to train on")
    return samplers.index(*(table.codes(name) for name in ("id", "lang", "passage_id", "source")))


def _choose(
    settings: Config, encoder: str | None, recipe: str | None, seed: int | None, *, untuned: bool
) -> ModelSettings:
    if encoder is not None and encoder not in settings.encoders:
        raise UserError(f"--encoder: '{encoder}' is not in `encoders`; {suggest(encoder, settings.encoders)}")
    if recipe is not None and recipe not in settings.recipes:
        raise UserError(f"--recipe: '{recipe}' is not in `recipes`; {suggest(recipe, settings.recipes)}")
    match encoder, recipe, seed, untuned:
        case None, None, None, False:
            return settings.candidate()
        case str(), None, None, True:
            return settings.untuned_model(encoder)
        case str(), str(), int(), False:
            return settings.compared_model(encoder, recipe, seed)
    raise UserError(
        "give --encoder, --recipe and --seed together, or --encoder with --untuned, or none of them"
    )


def _how(chosen: ModelSettings) -> dict[str, Any]:
    """The sampler with those of its options that it uses."""
    hybrid = chosen.sampler == "hybrid"
    return {
        "sampler": chosen.sampler,
        "alpha": chosen.hybrid.alpha if hybrid else None,
        "mixing": chosen.hybrid.mixing if hybrid else None,
        "languages_per_id": chosen.parallel.languages if chosen.sampler == "parallel" else None,
    }


def _checkpoints(
    folder: Path | None, settings: Mapping[str, Any], learner: encoders.Encoder, train: Train
) -> Checkpoints:
    """Those of this very training: to go on with another encoder, precision or torch gives other bits."""
    resolved = precision.resolved_precision(learner, train.precision)
    known = {name: value for name, value in settings.items() if name not in _FREE}
    known |= {"precision": resolved, "encoder_sha256": learner.identity, "torch": torch.__version__}
    return Checkpoints(folder, settings=known, every=train.checkpoint_every)


def _fit(
    learner: encoders.Encoder,
    table: tables.Table,
    plan: samplers.Plan,
    train: Train,
    checkpoints: Checkpoints,
    held: ParallelBenchmark | None,
    tracked: tracking.Run,
) -> list[trainer.Step]:
    # A run that was killed may have told of more steps than its last checkpoint knows.
    told, scored = tracked.steps("train/loss"), tracked.steps(f"validation/{train.stop_by}")

    def log(step: trainer.Step) -> None:
        if step.step not in told:
            values = {
                f"train/{name}": value for name, value in step._asdict().items() if name not in _UNLOGGED
            }
            tracked.metrics({**values, f"train/{step.kind}": 1.0}, step.step)

    def score(step: int, score: float) -> None:
        if step not in scored:
            tracked.metrics({f"validation/{train.stop_by}": abs(score)}, step)

    resolved = checkpoints.settings["precision"]
    return trainer.train(
        learner,
        table,
        plan,
        recipes.recipe(learner, train, resolved),
        checkpoints=checkpoints,
        validation=held and recipes.validation(learner, held, train, resolved),
        on_step=log,
        on_score=score,
        on_checkpoint=tracked.flush,
    )


def _means(
    learner: encoders.Encoder, table: tables.Table, train: Train, seed: int
) -> tuple[centering.Means, centering.Means]:
    """The mean vector of each language's questions and passages, of a few texts each."""
    codes = table.codes("lang")
    rng = np.random.default_rng([seed, table.rows])
    drawn = {
        lang: rng.permutation(np.flatnonzero(codes.values == code))[: train.centring_texts]
        for code, lang in sorted(enumerate(codes.names), key=lambda item: item[1])
    }
    langs = [lang for lang, rows in drawn.items() for _ in rows]

    def mean(column: str, side: encoders.Side, tokens: int) -> centering.Means:
        texts = table.texts(column, np.concatenate(list(drawn.values())))
        vectors = embed.encode(learner, texts, side, tokens, progress=f"centring, {column}s")
        return centering.fit(vectors, langs)

    return mean("question", "query", train.question_tokens), mean("passage", "passage", train.passage_tokens)


def _outcome(
    learner: encoders.Encoder,
    table: tables.Table,
    index: samplers.Index,
    model: Path,
    plan: samplers.Plan | None,
    steps: list[trainer.Step],
) -> dict[str, Any]:
    return {
        "model": model.name,
        "ids": len(index.rows),
        "rows": table.rows,
        "languages": list(index.languages),
        "steps": len(steps),
        "epochs": round(len(steps) / len(plan), 2) if plan else 0,
        "parameters": sum(weight.numel() for weight in learner.model.parameters()),
        "first_loss": round(steps[0].loss, 4) if steps else None,
        "last_loss": round(steps[-1].loss, 4) if steps else None,
        "batches": dict(sorted(Counter(step.kind for step in steps).items())),
        "model_sha256": hashing.sha256(model),
    }
