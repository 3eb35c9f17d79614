"""One explicit training loop over Accelerate: plan, encode, compare, step.

Everything that a step needs follows from its number: the batch (`samplers.Plan`), the learning
rate, the dropout (seeded anew each step). So a checkpoint is the weights that train, the
optimiser's moments and the number, and a run that was killed ends where an undisturbed one ends.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from hexapla import store
from hexapla.encoder import Encoder, unit_vectors
from hexapla.losses import info_nce
from hexapla.records import Mistake
from hexapla.samplers import Batch, Index, Plan

_KEPT_CHECKPOINTS = 2
_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What a step did; the curve of a run is a list of these."""

    step: int
    kind: str
    loss: float
    learning_rate: float
    gradient_norm: float
    pairs_per_second: float


class Texts(NamedTuple):
    """Questions and passages by row of the parallel table (any sequence with `take`, as Arrow's)."""

    questions: Any
    passages: Any

    def at(self, index: Index, batch: Batch) -> tuple[list[str], list[str]]:
        questions = self.questions.take(index.rows[batch.items, batch.question_languages])
        passages = self.passages.take(index.rows[batch.items, batch.passage_languages])
        return questions.to_pylist(), passages.to_pylist()


class Schedule(NamedTuple):
    """Linear warm-up to the peak, then linear to zero at the last step."""

    peak: float
    warmup: int
    steps: int

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        return self.peak * (self.steps - step) / (self.steps - self.warmup)


class Objective(NamedTuple):
    """How a batch becomes a loss."""

    question_tokens: int
    passage_tokens: int
    temperature: float
    two_sided: bool
    accumulate: int
    """Parts of the batch that are encoded one after another; negatives come from the own part."""


def train(
    encoder: Encoder,
    texts: Texts,
    plan: Plan,
    *,
    schedule: Schedule,
    objective: Objective,
    weight_decay: float,
    clip_norm: float,
    precision: str,
    checkpoints: "Checkpoints",
    on_step: Callable[[Step], None] = lambda _: None,
) -> list[Step]:
    """Train the encoder's unfrozen weights in place; returns the curve, resumed steps included.

    With several processes each takes its slice of every batch, and its negatives from that slice.

    Raises:
        Mistake: the precision is not for this device, or the loss is no longer a number.
    """
    accelerator = _accelerator(precision)
    trained = {name: weight for name, weight in encoder.model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=schedule.peak, weight_decay=weight_decay)
    curve = checkpoints.restore(trained, optimizer)
    model, optimizer = accelerator.prepare(encoder.model.train(), optimizer)
    steps = range(len(curve), schedule.steps)
    progress = tqdm(
        steps, "train", schedule.steps, initial=len(curve), disable=not accelerator.is_main_process
    )
    for step in progress:
        began = time.perf_counter()
        torch.manual_seed(_dropout_seed(plan.seed, step, accelerator.process_index))
        batch = plan.at(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        loss = _gradients(accelerator, encoder, model, texts, plan.index, batch, objective)
        if not np.isfinite(loss):
            raise Mistake(f"train: the loss is {loss} at step {step}; lower train.learning_rate, or use fp32")
        norm = float(accelerator.clip_grad_norm_(list(trained.values()), clip_norm))
        optimizer.step()
        optimizer.zero_grad()
        speed = len(batch.items) / (time.perf_counter() - began)
        curve.append(Step(step, batch.kind, loss, schedule.at(step), norm, speed))
        on_step(curve[-1])
        progress.set_postfix_str(f"loss {loss:.3f}, {batch.kind}", refresh=False)
        if accelerator.is_main_process and checkpoints.due(step + 1, schedule.steps):
            checkpoints.save(trained, optimizer, curve)
    encoder.model.eval()
    return curve


def _gradients(
    accelerator: Accelerator,
    encoder: Encoder,
    model: nn.Module,
    texts: Texts,
    index: Index,
    batch: Batch,
    objective: Objective,
) -> float:
    """Add the gradients of this process's slice of the batch; returns its mean loss."""
    questions, passages = texts.at(index, batch)
    mine = np.array_split(np.arange(len(batch.items)), accelerator.num_processes)[accelerator.process_index]
    total = 0.0
    for part in np.array_split(mine, objective.accumulate):
        features = (
            encoder.tokenize([questions[i] for i in part], "query", objective.question_tokens),
            encoder.tokenize([passages[i] for i in part], "passage", objective.passage_tokens),
        )
        with accelerator.autocast():
            asked, found = (unit_vectors(model, _moved(sides, accelerator.device)) for sides in features)
        loss = info_nce(
            asked.float(),
            found.float(),
            torch.from_numpy(index.passages[batch.items[part]]).to(accelerator.device),
            temperature=objective.temperature,
            two_sided=objective.two_sided,
        )
        accelerator.backward(loss / objective.accumulate)
        total += loss.item() / objective.accumulate
    return total


def _moved(features: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)


def _accelerator(precision: str) -> Accelerator:
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    try:
        return Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    except ValueError as error:
        raise Mistake(f"train.precision: {precision} is not for this device ({error})") from None


class Checkpoints:
    """The last two checkpoints of one run, in safetensors; those of any other run are ignored.

    Args:
        folder: where they lie; None keeps none.
        run: what makes the run this run (settings, data, encoder), as a hash.
        every: steps between two.
    """

    def __init__(self, folder: Path | None, *, run: str, every: int) -> None:
        self.folder, self.run, self.every = folder, run, every

    def due(self, done: int, steps: int) -> bool:
        return self.folder is not None and done < steps and done % self.every == 0

    def save(self, trained: dict[str, Tensor], optimizer: Any, curve: list[Step]) -> None:
        assert self.folder
        tensors = {f"weight.{name}": weight.detach() for name, weight in trained.items()}
        for name, weight in trained.items():
            for key, value in optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        meta = {"run": self.run, "curve": json.dumps(curve)}
        with store.whole_file(self.folder / f"step-{len(curve):09d}.safetensors") as scratch:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch, meta)
        for old in self._all()[_KEPT_CHECKPOINTS:]:
            old.unlink()

    def restore(self, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> list[Step]:
        """Load the newest whole checkpoint of this run; returns its curve, empty when there is none."""
        for path in self._all():
            try:
                with safe_open(path, "pt") as file:
                    meta = file.metadata() or {}
                    if meta.get("run") != self.run:
                        continue
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            except (SafetensorError, OSError):
                _log.warning("%s: broken checkpoint, taking the one before", path)
                continue
            with torch.no_grad():
                for name, weight in trained.items():
                    weight.copy_(tensors[f"weight.{name}"])
                    optimizer.state[weight] = {
                        key: tensors[f"{key}.{name}"].to(weight.device if key != "step" else "cpu")
                        for key in ("step", "exp_avg", "exp_avg_sq")
                        if f"{key}.{name}" in tensors
                    }
            curve = [Step(*step) for step in json.loads(meta["curve"])]
            _log.info("continuing at step %d from %s", len(curve), path)
            return curve
        return []

    def clear(self) -> None:
        for path in self._all():
            path.unlink()

    def _all(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True) if self.folder else []
