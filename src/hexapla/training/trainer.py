"""One explicit training loop: plan, encode, compare, step.

Everything that a step needs follows from its number: the batch (`samplers.Plan`), the learning rate, the
dropout (seeded anew in each micro-batch). So a checkpoint is the weights that train, the optimiser's
moments and the number, and a run that was killed ends where an undisturbed one ends.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from tqdm import tqdm

from hexapla.modeling import adapters
from hexapla.modeling.encoder import Encoder, unit_vectors
from hexapla.modeling.precision import Precision
from hexapla.modeling.tokenization import extras, padded
from hexapla.parallel import distributed
from hexapla.schema import UserError
from hexapla.training import early_stopping, gradcache
from hexapla.training.checkpoints import Checkpoints, State
from hexapla.training.fsdp import prepared, spare_of, unsharded
from hexapla.training.gradcache import Memory, Objective
from hexapla.training.inputs import Inputs, Lengths, Table, ahead, prepare
from hexapla.training.samplers import PARALLEL, Plan
from hexapla.training.schedules import Schedule


class Step(NamedTuple):
    """What a step did; the curve of a run is a list of these. Rates and shares are of all processes."""

    step: int
    kind: str
    loss: float
    learning_rate: float
    gradient_norm: float
    pairs_per_second: float
    tokens_per_second: float
    """Without padding."""
    padding: float
    """Share of the tokens computed."""
    memory_gib: float
    """Of the main process: on a GPU the peak so far, on a CPU what it holds."""


class Recipe(NamedTuple):
    """How a batch changes the weights."""

    lengths: Lengths
    schedule: Schedule
    objective: Objective
    memory: Memory
    weight_decay: float
    clip_norm: float
    precision: Precision


class Validation(NamedTuple):
    """Early stopping by a held-out split; of the weights, those with the best score are taken."""

    every: int
    """Steps between two."""
    patience: int
    """How many without a better score end the training."""
    score: Callable[[], float]
    """Higher is better."""


def train(
    encoder: Encoder,
    table: Table,
    plan: Plan,
    recipe: Recipe,
    *,
    checkpoints: Checkpoints,
    validation: Validation | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    on_score: Callable[[int, float], None] = lambda *_: None,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> list[Step]:
    """Train the encoder's unfrozen weights in place; returns the curve, resumed steps included.

    With several processes each encodes its slice of every batch; the gradients are those of the whole.
    `on_step` and `on_score` hear what is done now, not what a checkpoint tells of; `on_checkpoint` is
    called before one is written.

    Raises:
        UserError: the batch can't be divided among the processes, loss or gradient are no longer numbers,
            a checkpoint can't be used or written, or the memory does not suffice.
    """
    run = _begun(encoder, plan, recipe, validation)
    state = checkpoints.restore(run.trained, run.optimizer)
    curve, scores = [Step(*row) for row in state.curve], list(state.scores)
    steps = recipe.schedule.steps
    todo = range(len(curve), steps)
    hidden = not run.accelerator.is_main_process
    with tqdm(desc="train", total=steps, initial=len(curve), disable=hidden) as bar:
        for inputs in ahead(partial(prepare, encoder, table, plan, recipe.lengths, *_ranks(run)), todo):
            if validation and early_stopping.stop(scores, validation.patience):
                break
            curve.append(_step(run, recipe, inputs, (plan.seed, len(curve))))
            on_step(curve[-1])
            bar.set_postfix_str(f"loss {curve[-1].loss:.3f}, {inputs.kind}", refresh=False)
            bar.update()
            state = State([list(row) for row in curve], scores)
            better = False
            if validation and (len(curve) % validation.every == 0 or len(curve) == steps):
                # Of unlike machines each may find other last digits; all have to stop together.
                scores.append(float(distributed.agreed(repr(validation.score()))))
                on_score(len(curve), scores[-1])
                if better := early_stopping.best(scores) == len(scores) - 1:
                    checkpoints.save_best(run.trained, state)
            # Also after a better score, so that what is kept as best is never of a step that is undone.
            if better or checkpoints.due(len(curve), steps):
                on_checkpoint()
                checkpoints.save(run.trained, run.optimizer, state)
    if scores:
        checkpoints.take_best(run.trained)
    if run.spare is not None:
        encoder.model = unsharded(encoder.model, run.spare)
    encoder.model.eval()
    return curve


class _Run(NamedTuple):
    """What lives while a training does."""

    accelerator: Accelerator
    encoder: Encoder
    model: nn.Module
    """The encoder's, wrapped for several processes."""
    optimizer: Any
    trained: dict[str, Tensor]
    extras: dict[str, Any]
    """Features that do not depend on the texts."""
    spare: nn.Module | None
    """Takes the weights back, where processes share them out."""


def _begun(encoder: Encoder, plan: Plan, recipe: Recipe, validation: Validation | None) -> _Run:
    # Buffers never change, and processes need not go through the model equally often.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = Accelerator(cpu=distributed.on_cpu(), mixed_precision="no", kwargs_handlers=handlers)
    plan.at(0).part(accelerator.process_index, accelerator.num_processes)
    if validation and accelerator.is_fsdp2:
        # Processes would encode different numbers of batches, and wait for each other's weights for ever.
        raise UserError(
            "train.holdout: not with weights that processes share out; set it to 0, or `launch: gpus`"
        )
    more = extras(encoder, ["Ἑξαπλᾶ, six columns"], "passage", 16)
    if more is None:
        raise UserError(
            "encoder: no plain transformer behind a tokenizer; it can be judged, but not trained here"
        )
    weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
    # As everywhere: biases and the scales of layer norms are not drawn to zero.
    decay = {"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay}
    level = {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decay, level], lr=recipe.schedule.peak, fused=True)
    spare = spare_of(accelerator, encoder.model)
    model, optimizer = prepared(accelerator, encoder.model.train(), optimizer)
    trained = adapters.trained(encoder)
    return _Run(accelerator, encoder, model, optimizer, trained, more, spare)


def _ranks(run: _Run) -> tuple[int, int]:
    return run.accelerator.process_index, run.accelerator.num_processes


def _step(run: _Run, recipe: Recipe, inputs: Inputs, seed: tuple[int, int]) -> Step:
    began, step, device = time.perf_counter(), seed[1], run.accelerator.device
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.schedule.at(step)
    with _memory_told(step, recipe.memory):
        loss, computed = gradcache.add_gradients(
            run.accelerator,
            run.model,
            partial(_encode, run, inputs, seed),
            inputs.part,
            objective=recipe.objective._replace(positives="all" if inputs.kind == PARALLEL else "own"),
            memory=recipe.memory,
            autocast=partial(
                torch.autocast,
                device.type,
                torch.bfloat16,
                enabled=recipe.precision == "bf16",
                # What it remembers would be whole copies of weights that are shared out.
                cache_enabled=not run.accelerator.is_fsdp2,
            ),
        )
    norm = float(run.accelerator.clip_grad_norm_(list(run.trained.values()), recipe.clip_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = f"loss {loss}, gradient norm {norm} at step {step}"
        raise UserError(f"train: {what}; lower train.learning_rate, or set train.precision to fp32")
    with _memory_told(step, recipe.memory):
        run.optimizer.step()
    run.optimizer.zero_grad()
    seconds = time.perf_counter() - began
    real, area = _summed(run.accelerator, sum(inputs.part.lengths), computed)
    rates = inputs.pairs / seconds, real / seconds, 1 - real / area, _memory_gib(device)
    return Step(step, inputs.kind, loss, recipe.schedule.at(step), norm, *rates)


def _encode(run: _Run, inputs: Inputs, seed: tuple[int, int], rows: np.ndarray, number: int) -> Tensor:
    # Also when a micro-batch is encoded a second time: the same dropout, whatever came between.
    entropy = np.random.SeedSequence([*seed, run.accelerator.process_index, number])
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
    texts = [inputs.pieces[row] for row in rows]
    features = padded(run.encoder, texts)
    moved = {
        name: value.to(run.accelerator.device) if isinstance(value, Tensor) else value
        for name, value in features.items()
    }
    return unit_vectors(run.model, {**moved, **run.extras})


def _summed(accelerator: Accelerator, *counts: int) -> list[int]:
    if accelerator.num_processes == 1:
        return list(counts)
    whole = accelerator.reduce(torch.tensor(counts, device=accelerator.device), "sum")
    return [int(count) for count in whole]


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**30
    return float(psutil.Process().memory_info().rss) / 2**30


@contextmanager
def _memory_told(step: int, memory: Memory) -> Iterator[None]:
    """Turns an end of the memory into a UserError that says which parameter to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"train: out of memory at step {step}; lower train.kept_tokens ({memory.kept_tokens}), then "
            f"train.forward_tokens ({memory.forward_tokens}), and run the same command again: it goes on "
            "from the last checkpoint, each step takes longer"
        ) from None
