"""Train one model, or take the encoder as it is, and save it as a sentence-transformers folder."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hexapla import cards, centring, cli, encoding, samplers, store, tracking, training
from hexapla import encoder as encoders
from hexapla.params import Prompts, SamplerName, Train
from hexapla.records import Mistake

_CURVE = ("step", "loss", "learning_rate", "gradient_norm")


def train(
    encoder: str,
    prompts: Prompts,
    seed: int,
    train: Train,
    *,
    sampler: SamplerName,
    alpha: float = 0.5,
    replica: int | None = None,
    pairs: Path,
    model: Path,
    curve: Path,
    summary: Path,
    checkpoints: Path | None = None,
) -> None:
    """Train `model` on the validated pairs with one sampler; a replica has another seed."""
    seed = seed if replica is None else replica
    table = store.read_pairs(pairs)
    if not table.num_rows:
        raise Mistake(f"{pairs}: no rows to train on")
    index = samplers.index(*(table[name].to_pylist() for name in ("id", "lang", "passage_id")))
    card: dict[str, Any] = {
        "model": model.name,
        "sampler": sampler,
        "alpha": alpha if sampler == "hybrid" else None,
        "encoder": encoder,
        "seed": seed,
        "ids": len(index.rows),
        "rows": table.num_rows,
        "languages": list(index.languages),
        "data_sha256": store.sha256(pairs),
    }
    settings = {**card, "prompts": dataclasses.asdict(prompts), **dataclasses.asdict(train)}
    del settings["model"]
    run = hashlib.sha256(
        json.dumps({**settings, "torch": torch.__version__}, sort_keys=True).encode()
    ).hexdigest()
    kept = training.Checkpoints(checkpoints, run=run, every=train.checkpoint_every)
    plan = None
    if sampler != "untuned":
        # Before the encoder is loaded: what is wrong with the data shows at once.
        plan = samplers.Plan(index, sampler=sampler, batch_size=train.batch_size, seed=seed, alpha=alpha)
    learner = encoders.load(encoder, prompts=dataclasses.asdict(prompts))
    resume = _resume(checkpoints, run)
    with tracking.run(model.name, resume=resume, system_metrics=plan is not None) as tracked:
        tracked.parameters(settings)
        _remember(checkpoints, run, tracked.id)
        steps: list[training.Step] = []
        if plan:
            texts = training.Texts(table["question"], table["passage"])
            steps = _fit(learner, texts, plan, train, kept, tracked)
        learner.save(model)
        cards.write(model, settings)
        centring.save(model, *_means(learner, table, train, seed))
        card |= _outcome(learner, model, train, plan, steps)
        store.write_csv(curve, _CURVE, [[getattr(step, name) for name in _CURVE] for step in steps])
        store.write_json(summary, card)
        tracked.tags({tracking.MODEL_TAG: card["model_sha256"], "sampler": sampler})
        tracked.metrics({"parameters": card["parameters"], "trained_parameters": card["trained_parameters"]})
    kept.clear()


def _fit(
    learner: encoders.Encoder,
    texts: training.Texts,
    plan: samplers.Plan,
    train: Train,
    checkpoints: training.Checkpoints,
    tracked: tracking.Run,
) -> list[training.Step]:
    learner.freeze(embeddings=train.freeze_embeddings, layers=train.freeze_layers)

    def log(step: training.Step) -> None:
        values = step._asdict()
        values["monolingual"] = float(values.pop("kind") == samplers.MONOLINGUAL)
        tracked.metrics({f"train/{key}": value for key, value in values.items() if key != "step"}, step.step)

    return training.train(
        learner,
        texts,
        plan,
        schedule=training.Schedule(train.learning_rate, train.warmup_steps, train.steps),
        objective=training.Objective(
            train.question_tokens, train.passage_tokens, train.temperature, train.two_sided, train.accumulate
        ),
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=train.precision,
        checkpoints=checkpoints,
        on_step=log,
    )


def _means(
    learner: encoders.Encoder, table: Any, train: Train, seed: int
) -> tuple[centring.Means, centring.Means]:
    """The mean vector of each language's questions and passages, of a few texts each."""
    langs = np.array(table["lang"].to_pylist())
    rng = np.random.default_rng([seed, len(langs)])
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(langs == lang))[: train.centring_texts] for lang in np.unique(langs)]
    )

    def mean(column: str, side: encoders.Side, tokens: int) -> centring.Means:
        texts = table[column].take(rows).to_pylist()
        vectors = encoding.encode(learner, texts, side, tokens, progress=f"centring, {column}s")
        return centring.fit(vectors, langs[rows].tolist())

    return mean("question", "query", train.question_tokens), mean("passage", "passage", train.passage_tokens)


def _outcome(
    learner: encoders.Encoder,
    model: Path,
    train: Train,
    plan: samplers.Plan | None,
    steps: list[training.Step],
) -> dict[str, Any]:
    sizes = [(weight.numel(), weight.requires_grad) for weight in learner.model.parameters()]
    losses = [step.loss for step in steps]
    kinds = [step.kind for step in steps]
    return {
        "steps": len(steps),
        "batch_size": train.batch_size,
        "learning_rate": train.learning_rate,
        "temperature": train.temperature,
        "epochs": round(len(steps) / len(plan), 2) if plan else 0,
        "parameters": sum(size for size, _ in sizes),
        "trained_parameters": sum(size for size, trains in sizes if trains) if plan else 0,
        "first_loss": round(losses[0], 4) if losses else None,
        "last_loss": round(losses[-1], 4) if losses else None,
        "batches": {kind: kinds.count(kind) for kind in (samplers.MONOLINGUAL, samplers.CROSSLINGUAL)},
        "model_sha256": store.sha256(model),
    }


def _resume(checkpoints: Path | None, run: str) -> str:
    """The MLflow run of a training that was killed, when it is this one."""
    note = checkpoints / "run.json" if checkpoints else None
    if note and note.is_file():
        known = store.read_json(note)
        return str(known["mlflow"]) if known["run"] == run else ""
    return ""


def _remember(checkpoints: Path | None, run: str, tracked: str) -> None:
    if checkpoints:
        store.write_json(checkpoints / "run.json", {"run": run, "mlflow": tracked})


if __name__ == "__main__":
    cli.run(train)
