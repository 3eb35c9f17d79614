"""Where a training that was killed goes on: the weights that train, the optimiser's moments, the curve."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hexapla.io import cache
from hexapla.parallel import distributed
from hexapla.schema import UserError, first_line
from hexapla.training.fsdp import placed_as, whole

_KEPT = 2
_UNFINISHED = ".*.safetensors.*"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_log = logging.getLogger(__name__)


class State(NamedTuple):
    """What a checkpoint holds beside tensors; JSON."""

    curve: list[list[Any]]
    """A row a step that was done."""
    scores: list[float]
    """Of the held-out split, a validation each; higher is better."""


class Checkpoints:
    """The last two checkpoints of one run, in safetensors, each written whole or not at all.

    Weights that several processes share out among them are gathered: a checkpoint fits any number of
    processes. The main process writes, all read.

    Args:
        folder: where they lie, for all processes the same; None keeps none.
        settings: what makes the run this run (parameters, data, encoder), by key.
        every: steps between two.
    """

    def __init__(self, folder: Path | None, *, settings: Mapping[str, Any], every: int) -> None:
        self.folder, self.every = folder, every
        self.settings = json.loads(json.dumps(settings))

    def due(self, done: int, steps: int) -> bool:
        return self.folder is not None and done < steps and done % self.every == 0

    def save(self, trained: Mapping[str, Tensor], optimizer: Any, state: State) -> None:
        """Raises UserError when it can't be written; the checkpoints before it stay."""
        assert self.folder
        tensors = {f"weight.{name}": whole(weight) for name, weight in trained.items()}
        for name, weight in trained.items():
            for key in _MOMENTS:
                if key in optimizer.state[weight]:
                    tensors[f"{key}.{name}"] = whole(optimizer.state[weight][key])
        self._write(self.folder / f"step-{len(state.curve):09d}.safetensors", tensors, state)
        for old in self._all()[_KEPT:] if distributed.is_main() else []:
            old.unlink()

    def restore(self, trained: Mapping[str, Tensor], optimizer: Any) -> State:
        """Load the newest whole checkpoint; its state, or an empty one when there is none.

        Raises:
            UserError: it is one of other settings, or not all processes find the same.
        """
        tensors, state = self._newest()
        if len(set(distributed.everyones(str(len(state.curve))))) > 1:
            raise UserError(
                f"{self.folder}: processes find different checkpoints; put it on a file system that all share"
            )
        if tensors:
            _fill(trained, tensors)
        for name, weight in trained.items() if tensors else ():
            optimizer.state[weight] = {
                key: placed_as(tensors[f"{key}.{name}"], weight)
                for key in _MOMENTS
                if f"{key}.{name}" in tensors
            }
        return state

    def _newest(self) -> tuple[dict[str, Tensor], State]:
        for path in self._all():
            tensors, state = self._read(path)
            if state:
                _log.info("continuing at step %d from %s", len(state.curve), path)
                return tensors, state
            _log.warning("%s: broken checkpoint, taking the one before", path)
        return {}, State([], [])

    def save_best(self, trained: Mapping[str, Tensor], state: State) -> None:
        """Keep the weights as they are now, as those of the best validation so far."""
        assert self.folder
        tensors = {f"weight.{name}": whole(weight) for name, weight in trained.items()}
        self._write(self.folder / "best.safetensors", tensors, state)

    def take_best(self, trained: Mapping[str, Tensor]) -> int:
        """Put the weights of the best validation back; returns after how many steps that was."""
        assert self.folder
        path = self.folder / "best.safetensors"
        distributed.barrier()  # until the main process has written it
        tensors, state = self._read(path)
        if state is None:
            raise UserError(f"{path}: broken; remove {self.folder} and train again")
        _fill(trained, tensors)
        return len(state.curve)

    def clear(self) -> None:
        for name in ("step-*.safetensors", "best.safetensors", "run.json", _UNFINISHED):
            for path in self.folder.glob(name) if self.folder else ():
                path.unlink()

    def note(self, tracked: str) -> None:
        """Keep the name of the run in the tracking store beside the checkpoints."""
        if self.folder and distributed.is_main():
            cache.write_json(self.folder / "run.json", {"settings": self.settings, "tracked": tracked})

    def noted(self) -> str:
        """The name, when the training that was killed is this one."""
        path = self.folder / "run.json" if self.folder else None
        known = cache.read_json(path) if path and path.is_file() else {}
        return str(known["tracked"]) if known.get("settings") == self.settings else ""

    def _all(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True) if self.folder else []

    def _write(self, path: Path, tensors: Mapping[str, Tensor], state: State) -> None:
        if not distributed.is_main():
            return
        assert self.folder
        for left in self.folder.glob(_UNFINISHED):  # by a process that was killed while it wrote
            left.unlink()
        meta = {"settings": json.dumps(self.settings), "state": json.dumps(state)}
        try:
            with cache.atomic_file(path) as scratch:
                save_file(dict(tensors), scratch, meta)
        except (SafetensorError, OSError) as error:
            reason = first_line(error)
            raise UserError(
                f"{path}: can't be written ({reason}); make room and run the same command again, "
                "it goes on from the checkpoint before"
            ) from None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], State | None]:
        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError):
            return {}, None
        there = json.loads(meta.get("settings", "{}"))
        if there != self.settings:
            raise UserError(
                f"{path}: of another training ({'; '.join(_differences(there, self.settings))}); put that "
                f"back to go on with it, or remove {self.folder} to begin anew"
            )
        return tensors, State(*json.loads(meta["state"]))


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    for name in names[:3]:
        yield f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
    if len(names) > 3:
        yield f"and {len(names) - 3} more"


def _fill(trained: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(placed_as(tensors[f"weight.{name}"], weight))
