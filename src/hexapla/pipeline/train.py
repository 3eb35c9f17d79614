"""Train one model, or take the encoder unchanged, and save it as a sentence-transformers folder.

Functions import what needs torch, so that `--help` and shell completion do not wait for it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hexapla import tracking
from hexapla.config import Config, ModelSettings, Train
from hexapla.io import cache, hashing
from hexapla.modeling import centering
from hexapla.parallel import distributed
from hexapla.schema import ParallelBenchmark, UserError, suggest
from hexapla.training import early_stopping, samplers
from hexapla.training.dataset import PairTable, open_table

if TYPE_CHECKING:
    from torch import Tensor

    from hexapla.modeling import encoder as encoders
    from hexapla.training import trainer
    from hexapla.training.checkpoints import Checkpoints

_log = logging.getLogger(__name__)
_CURVE = ("step", "loss", "learning_rate", "gradient_norm")
_UNLOGGED = ("step", "kind")
_FREE = ("forward_tokens", "kept_tokens", "gradient_checkpointing", "checkpoint_every")
"""Settings with which a training that ran out of memory may go on. `forward_tokens` changes what dropout draws."""


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

    Args:
        settings: all of params.yaml.
        encoder: the name of an encoder in `encoders`.
        recipe: the name of a recipe in `recipes`.
        seed: the seed of the training.
        untuned: save the encoder without training it.
        pairs: the folder of the table that `validate` wrote.
        model: the folder that gets the model.
        curve: the CSV file that gets the loss of every step.
        summary: the JSON file that gets settings and counts.
        checkpoints: the folder that keeps the checkpoints until the training has ended.
    """
    from hexapla.modeling import adapters
    from hexapla.modeling import encoder as encoders

    places = [model, curve, summary, *([checkpoints] if checkpoints else [])]
    cache.check_outputs(*places[:3], inputs=[pairs, *places[3:]])
    chosen = _choose(settings, encoder, recipe, seed, untuned=untuned)
    train, seed = chosen.train, chosen.seed
    prompts = dataclasses.asdict(chosen.prompts)
    table = open_table(pairs)
    index = _index(table)
    card = _describe_sampler(chosen) | {"encoder": chosen.encoder, "seed": seed}
    card |= {"data_sha256": hashing.sha256(pairs), "prompts": prompts}
    card |= dataclasses.asdict(train)
    if train.holdout and not checkpoints:
        raise UserError("train.holdout: early stopping needs --checkpoints, where it keeps its best weights")
    trains = chosen.sampler != "untuned"
    split = early_stopping.split(index, train.holdout if trains else 0, seed)
    # Before the encoder is loaded, so that mistakes in the data show at once.
    plan = _plan(early_stopping.drop_held_out(index, split), chosen) if trains else None
    learner = encoders.load(chosen.encoder, prompts=prompts)
    kept = _checkpoints(checkpoints, card, learner, train)
    main = distributed.is_main()
    with tracking.run(
        model.name, resume=kept.recall_run(), system_metrics=trains, silent=not main
    ) as tracked:
        # MLflow refuses another value of a parameter, and takes one of a tag.
        tracked.parameters({name: value for name, value in card.items() if name not in _FREE})
        tracked.tags({f"train.{name}": str(card[name]) for name in _FREE})
        kept.remember_run(tracked.id)
        steps: list[trainer.Step] = []
        trained = 0
        if plan:
            start = _prepare_encoder(learner, train, seed)
            trained = sum(weight.numel() for weight in adapters.trainable_weights(learner).values())
            held_out = (
                early_stopping.build_benchmark(index, split.held_out, table.texts) if train.holdout else None
            )
            steps = _fit(learner, table, plan, train, kept, held_out, start, tracked)
            adapters.merge_lora(learner)
            adapters.interpolate(learner, start, train.interpolate)
        means = _language_means(learner, table, train, seed)
        if not main:
            return
        learner.save(model)
        encoders.write_card(model, card)
        centering.save(model, *means)
        outcome = _summarize(learner, table, index, model, plan, steps) | {"trained_parameters": trained}
        cache.write_csv(curve, _CURVE, [[getattr(step, name) for name in _CURVE] for step in steps])
        cache.write_json(summary, {**card, **outcome})
        tracked.tags({tracking.MODEL_TAG: outcome["model_sha256"], "sampler": chosen.sampler})
        tracked.metrics({name: outcome[name] for name in ("parameters", "trained_parameters")})
    kept.clear()


def _index(table: PairTable) -> samplers.PairIndex:
    if not table.rows:
        raise UserError(f"{table.path}: no rows to train on")
    return samplers.build_index(
        *(table.encode_column(name) for name in ("id", "lang", "passage_id", "source"))
    )


def _plan(index: samplers.PairIndex, chosen: ModelSettings) -> samplers.BatchPlan:
    plan = samplers.BatchPlan(
        index,
        sampler=chosen.sampler,
        batch_size=chosen.train.batch_size,
        seed=chosen.seed,
        alpha=chosen.hybrid.alpha,
        mixing=chosen.hybrid.mixing,
        languages_per_id=chosen.parallel.languages,
        weights=chosen.train.languages,
        exponent=chosen.train.size_exponent,
    )
    for language, count in plan.left_out.items() if distributed.is_main() else ():
        _log.warning(
            "train: '%s' has %d different passages, too few for a monolingual batch of %d, and is left out of them; "
            "lower train.batch_size, or add data",
            language,
            count,
            chosen.train.batch_size,
        )
    return plan


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


def _describe_sampler(chosen: ModelSettings) -> dict[str, Any]:
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
    """The checkpoints of exactly this training: another encoder, precision or torch would give other bits."""
    import torch

    from hexapla.modeling import embed
    from hexapla.training.checkpoints import Checkpoints

    resolved = embed.resolve_precision(learner, train.precision)
    known = {name: value for name, value in settings.items() if name not in _FREE}
    known |= {"precision": resolved, "encoder_sha256": learner.identity, "torch": torch.__version__}
    return Checkpoints(folder, settings=known, every=train.checkpoint_every)


def _prepare_encoder(learner: encoders.Encoder, train: Train, seed: int) -> dict[str, Tensor]:
    """Choose what trains; return the weights that will change, as they are before training."""
    from hexapla.modeling import adapters

    adapters.freeze(learner, embeddings=train.freeze_embeddings, layers=train.freeze_layers)
    changing = adapters.trainable_weights(learner) if train.interpolate else {}
    start = {name: weight.detach().clone() for name, weight in changing.items()}
    if train.lora_rank:
        adapters.add_lora(learner, rank=train.lora_rank, seed=seed)
    if train.gradient_checkpointing:
        adapters.checkpoint_activations(learner)
    if train.compile:
        adapters.compile_layers(learner)
    return start


def _step_settings(
    learner: encoders.Encoder, train: Train, precision: encoders.Precision
) -> trainer.StepSettings:
    from hexapla.modeling import encoder as encoders
    from hexapla.training import trainer
    from hexapla.training.collate import Lengths
    from hexapla.training.gradcache import MemoryLimits, Objective

    return trainer.StepSettings(
        lengths=Lengths(train.query_tokens, train.passage_tokens, train.negatives),
        schedule=trainer.Schedule(train.learning_rate, train.warmup_steps, train.steps, train.schedule),
        objective=Objective(train.temperature, train.two_sided),
        limits=MemoryLimits(
            train.forward_tokens or encoders.tokens_per_batch(learner.device), train.kept_tokens
        ),
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=precision,
    )


def _validation(
    learner: encoders.Encoder,
    held_out: ParallelBenchmark,
    train: Train,
    precision: encoders.Precision,
    start: Mapping[str, Tensor],
) -> trainer.Validation:
    """Early stopping on the held-out ids, which are encoded as in training, by the weights that would be saved."""
    from hexapla.modeling import adapters, embed
    from hexapla.training import trainer

    queries = [query.text for query in held_out.queries]
    passages = [passage.text for passage in held_out.passages]

    def score() -> float:
        with adapters.interpolated(learner, start, train.interpolate):
            sides = (
                embed.encode(learner, queries, "query", train.query_tokens, precision=precision),
                embed.encode(learner, passages, "passage", train.passage_tokens, precision=precision),
            )
        if train.stop_by == "map":
            return early_stopping.multilingual_map(held_out, *sides)
        return -early_stopping.multilingual_loss(held_out, *sides, train.temperature)

    return trainer.Validation(train.validate_every, train.patience, score)


def _fit(
    learner: encoders.Encoder,
    table: PairTable,
    plan: samplers.BatchPlan,
    train: Train,
    checkpoints: Checkpoints,
    held_out: ParallelBenchmark | None,
    start: Mapping[str, Tensor],
    tracked: tracking.Run,
) -> list[trainer.Step]:
    from hexapla.training import trainer

    # A training that was killed may have logged more steps than its last checkpoint knows.
    logged, scored = tracked.steps("train/loss"), tracked.steps(f"validation/{train.stop_by}")

    def log_step(step: trainer.Step) -> None:
        if step.step not in logged:
            values = {
                f"train/{name}": value for name, value in step._asdict().items() if name not in _UNLOGGED
            }
            tracked.metrics({**values, f"train/{step.kind}": 1.0}, step.step)

    def log_score(step: int, score: float) -> None:
        if step not in scored:
            tracked.metrics({f"validation/{train.stop_by}": abs(score)}, step)

    precision = checkpoints.settings["precision"]
    return trainer.train(
        learner,
        table,
        plan,
        _step_settings(learner, train, precision),
        checkpoints=checkpoints,
        validation=held_out and _validation(learner, held_out, train, precision, start),
        on_step=log_step,
        on_score=log_score,
        on_checkpoint=tracked.flush,
    )


def _language_means(
    learner: encoders.Encoder, table: PairTable, train: Train, seed: int
) -> tuple[centering.Means, centering.Means]:
    """The mean embedding of each language's queries, and of its passages, over a few texts each."""
    from hexapla.modeling import embed

    codes = table.encode_column("lang")
    rng = np.random.default_rng([seed, table.rows])
    drawn = {
        lang: rng.permutation(np.flatnonzero(codes.values == code))[: train.centering_texts]
        for code, lang in sorted(enumerate(codes.names), key=lambda item: item[1])
    }
    langs = [lang for lang, rows in drawn.items() for _ in rows]

    def mean(column: str, side: encoders.Side, tokens: int) -> centering.Means:
        texts = table.texts(column, np.concatenate(list(drawn.values())))
        vectors = embed.encode(learner, texts, side, tokens, progress=f"centering, {column}s")
        return centering.fit(vectors, langs)

    return mean("question", "query", train.query_tokens), mean("passage", "passage", train.passage_tokens)


def _summarize(
    learner: encoders.Encoder,
    table: PairTable,
    index: samplers.PairIndex,
    model: Path,
    plan: samplers.BatchPlan | None,
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
        "left_out_languages": dict(plan.left_out) if plan else {},
        "model_sha256": hashing.sha256(model),
    }
