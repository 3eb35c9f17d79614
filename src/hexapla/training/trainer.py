"""One explicit training loop: plan, encode, compare, step.

Everything that a step needs follows from its number: the batch (`samplers.BatchPlan`), the learning rate, the dropout
(seeded anew in each micro-batch). So a checkpoint holds only the trained weights, the optimizer's moments and the
number of the step, and a training that was killed ends exactly where an undisturbed one ends.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from hexapla.modeling import adapters
from hexapla.modeling.embed import prefetch
from hexapla.modeling.encoder import Encoder, Precision, Side, extra_features, pad_batch, unit_vectors
from hexapla.parallel import distributed
from hexapla.schema import UserError
from hexapla.training import early_stopping, gradcache
from hexapla.training.checkpoints import Checkpoints, TrainingState, copy_to_unshard, prepare_model, unshard
from hexapla.training.collate import Lengths, StepInputs, TextTable, collate
from hexapla.training.gradcache import MemoryLimits, Objective
from hexapla.training.samplers import PARALLEL, BatchPlan


class Step(NamedTuple):
    """What a step did; the curve of a training is a list of these. Rates and shares are of all processes together."""

    step: int
    kind: str
    loss: float
    learning_rate: float
    gradient_norm: float
    pairs_per_second: float
    """Waiting for data included; validations and checkpoints are not."""
    tokens_per_second: float
    """Without padding."""
    padding: float
    """The share of padding among the computed tokens."""
    memory_gib: float
    """The main process's memory: the peak so far on a GPU, the current size on a CPU."""


class Schedule(NamedTuple):
    """The learning rate: a linear warm-up to the peak, then a decay to zero at the last step, or none."""

    peak: float
    warmup: int
    steps: int
    shape: Literal["linear", "cosine", "constant"] = "linear"

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        left = (self.steps - step) / (self.steps - self.warmup)
        factors = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
        return self.peak * factors[self.shape]


class StepSettings(NamedTuple):
    """How a batch changes the weights."""

    lengths: Lengths
    schedule: Schedule
    objective: Objective
    limits: MemoryLimits
    weight_decay: float
    clip_norm: float
    precision: Precision


class Validation(NamedTuple):
    """Early stopping on held-out pairs; the weights with the best score are taken in the end."""

    every: int
    """Steps between two validations."""
    patience: int
    """Validations without a better score after which training stops."""
    score: Callable[[], float]
    """Higher is better."""


def train(
    encoder: Encoder,
    table: TextTable,
    plan: BatchPlan,
    settings: StepSettings,
    *,
    checkpoints: Checkpoints,
    validation: Validation | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    on_score: Callable[[int, float], None] = lambda *_: None,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> list[Step]:
    """Train the encoder's unfrozen weights in place; return the curve, resumed steps included.

    With several processes, each encodes its slice of every batch; the gradients are those of the whole batch.
    `on_step` and `on_score` get what is done now, not what a checkpoint says was done before. `on_checkpoint` is called
    before a checkpoint is written.

    Raises:
        UserError: the batch can't be divided among the processes, the loss or the gradient is not finite, a checkpoint
            can't be used or written, or the memory does not suffice.
    """
    run = _start(encoder, plan, settings, validation)
    state = checkpoints.restore(run.trained, run.optimizer)
    curve, scores = [Step(*row) for row in state.curve], list(state.scores)
    steps = settings.schedule.steps
    todo = range(len(curve), steps)
    ranks = run.accelerator.process_index, run.accelerator.num_processes
    hidden = not run.accelerator.is_main_process
    began = time.perf_counter()
    with tqdm(desc="train", total=steps, initial=len(curve), disable=hidden) as bar:
        for inputs in prefetch(partial(collate, encoder, table, plan, settings.lengths, *ranks), todo):
            if validation and early_stopping.should_stop(scores, validation.patience):
                break
            curve.append(_do_step(run, settings, inputs, (plan.seed, len(curve)), began))
            on_step(curve[-1])
            bar.set_postfix_str(f"loss {curve[-1].loss:.3f}, {inputs.kind}", refresh=False)
            bar.update()
            state = TrainingState([list(row) for row in curve], scores)
            better = False
            if validation and (len(curve) % validation.every == 0 or len(curve) == steps):
                # Unlike machines may differ in the last digits, but all must stop at the same step.
                scores.append(float(distributed.agreed(repr(validation.score()))))
                on_score(len(curve), scores[-1])
                if better := early_stopping.find_best(scores) == len(scores) - 1:
                    checkpoints.save_best(run.trained, state)
            # A better score is always followed by a checkpoint: otherwise a training that is killed before the next
            # one would go on from a step before it, with the best weights of a step that was never done.
            if better or checkpoints.is_due(len(curve), steps):
                on_checkpoint()
                checkpoints.save(run.trained, run.optimizer, state)
            began = time.perf_counter()  # Waiting for the next inputs is part of the next step.
    if scores:
        checkpoints.load_best(run.trained)
    if run.whole is not None:
        encoder.model = unshard(encoder.model, run.whole)
    encoder.model.eval()
    return curve


class _Run(NamedTuple):
    """What a training needs from its first step to its last."""

    accelerator: Accelerator
    encoder: Encoder
    model: nn.Module
    """The encoder's model, wrapped for several processes."""
    optimizer: Any
    trained: dict[str, Tensor]
    extra_features: dict[Side, dict[str, Any]]
    """Features that do not depend on the texts: the length of the side's prompt, for poolings that leave it out."""
    whole: nn.Module | None
    """A copy that gets the weights in the end, where processes shard them."""


def _start(encoder: Encoder, plan: BatchPlan, settings: StepSettings, validation: Validation | None) -> _Run:
    # Buffers never change, and processes need not go through the model equally often.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = Accelerator(cpu=distributed.on_cpu(), mixed_precision="no", kwargs_handlers=handlers)
    plan.at(0).slice_for(accelerator.process_index, accelerator.num_processes)
    if validation and accelerator.is_fsdp2:
        # Processes would encode different numbers of batches, and wait for each other's weights forever.
        raise UserError("train.holdout: does not work with sharded weights; set it to 0, or `launch: gpus`")
    extra = _find_extra_features(encoder)
    if accelerator.is_fsdp2 and extra["query"] != extra["passage"]:
        # Processes would go through the model unequally often, and wait for each other's weights forever.
        raise UserError("encoder: leaving out prompts of two lengths does not work with sharded weights")
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    # As usual, biases and the scales of layer norms do not decay.
    decay = {"params": [w for w in weights if w.ndim > 1], "weight_decay": settings.weight_decay}
    level = {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decay, level], lr=settings.schedule.peak, fused=True)
    whole = copy_to_unshard(accelerator, encoder.model)
    model, optimizer = prepare_model(accelerator, encoder.model.train(), optimizer)
    trained = adapters.trainable_weights(encoder)
    return _Run(accelerator, encoder, model, optimizer, trained, extra, whole)


def _find_extra_features(encoder: Encoder) -> dict[Side, dict[str, Any]]:
    found: dict[Side, dict[str, Any]] = {}
    for side in ("query", "passage"):
        extra = extra_features(encoder, ["Ἑξαπλᾶ, six columns"], side, 16)
        if extra is None:
            raise UserError(
                "encoder: no plain transformer behind a tokenizer; it can be evaluated, but not trained here"
            )
        found[side] = extra
    # Most poolings do not look at the prompt's length, so that both sides can share a forward pass.
    if all(getattr(module, "include_prompt", True) for module in encoder.model.modules()):
        for extra in found.values():
            extra.pop("prompt_length", None)
    return found


def _do_step(
    run: _Run, settings: StepSettings, inputs: StepInputs, seed: tuple[int, int], began: float
) -> Step:
    step, device = seed[1], run.accelerator.device
    for group in run.optimizer.param_groups:
        group["lr"] = settings.schedule.at(step)
    with _explain_out_of_memory(step, settings.limits):
        loss, computed = gradcache.add_gradients(
            run.accelerator,
            run.model,
            partial(_encode, run, inputs, seed),
            inputs.batch,
            objective=settings.objective._replace(positives="all" if inputs.kind == PARALLEL else "own"),
            limits=settings.limits,
            autocast=partial(
                torch.autocast,
                device.type,
                torch.bfloat16,
                enabled=settings.precision == "bf16",
                # The cache would hold whole copies of weights that are sharded.
                cache_enabled=not run.accelerator.is_fsdp2,
            ),
        )
    norm = float(run.accelerator.clip_grad_norm_(list(run.trained.values()), settings.clip_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = f"loss {loss}, gradient norm {norm} at step {step}"
        raise UserError(f"train: {what}; lower train.learning_rate, or set train.precision to fp32")
    with _explain_out_of_memory(step, settings.limits):
        run.optimizer.step()
    run.optimizer.zero_grad()
    seconds = time.perf_counter() - began
    real, area = _sum_over_processes(run.accelerator, sum(inputs.batch.lengths), computed)
    rates = inputs.pairs / seconds, real / seconds, 1 - real / area, _memory_gib(device)
    return Step(step, inputs.kind, loss, settings.schedule.at(step), norm, *rates)


def _encode(
    run: _Run, inputs: StepInputs, seed: tuple[int, int], rows: np.ndarray, number: int
) -> Float[Tensor, "texts dim"]:
    # A micro-batch that is encoded a second time gets the same dropout, whatever was encoded in between.
    entropy = np.random.SeedSequence([*seed, run.accelerator.process_index, number])
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
    if run.extra_features["query"] == run.extra_features["passage"]:
        return _forward(run, inputs, rows, "query")
    # Pooling leaves out one prompt length a forward pass, so each side has its own.
    are_queries = inputs.batch.places[rows] < inputs.batch.pairs
    order = np.argsort(~are_queries, kind="stable")
    sides: list[tuple[Side, np.ndarray]] = [("query", rows[are_queries]), ("passage", rows[~are_queries])]
    embeddings = torch.cat([_forward(run, inputs, part, side) for side, part in sides if len(part)])
    return embeddings[torch.from_numpy(np.argsort(order)).to(embeddings.device)]


def _forward(run: _Run, inputs: StepInputs, rows: np.ndarray, side: Side) -> Float[Tensor, "texts dim"]:
    features = pad_batch(run.encoder, [inputs.tokenized[row] for row in rows])
    on_device = {name: values.to(run.accelerator.device) for name, values in features.items()}
    return unit_vectors(run.model, {**on_device, **run.extra_features[side]})


def _sum_over_processes(accelerator: Accelerator, *counts: int) -> list[int]:
    if accelerator.num_processes == 1:
        return list(counts)
    whole = accelerator.reduce(torch.tensor(counts, device=accelerator.device), "sum")
    return [int(count) for count in whole]


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**30
    return float(psutil.Process().memory_info().rss) / 2**30


@contextmanager
def _explain_out_of_memory(step: int, limits: MemoryLimits) -> Iterator[None]:
    """Turn an out-of-memory error into a user error that says which setting to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"train: out of memory at step {step}; lower train.kept_tokens ({limits.kept_tokens}), then "
            f"train.forward_tokens ({limits.forward_tokens}), and run the same command again: it goes on "
            "from the last checkpoint, each step takes longer"
        ) from None
