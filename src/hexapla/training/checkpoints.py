"""Checkpoints, from which a training that was killed continues: weights, the optimizer's moments, the curve.

The second half of the file knows FSDP2, which shards weights over the processes; checkpoints hold them whole, so that
they fit any number of processes.
"""

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from hexapla.io import cache
from hexapla.parallel import distributed
from hexapla.schema import UserError, first_line

_KEPT = 2
_UNFINISHED = ".*.safetensors.*"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_log = logging.getLogger(__name__)


class TrainingState(NamedTuple):
    """What a checkpoint holds in addition to tensors; JSON."""

    curve: list[list[Any]]
    """One row for each step that was done."""
    scores: list[float]
    """One score of the held-out split for each validation; higher is better."""


class Checkpoints:
    """The last two checkpoints of one training, in safetensors, each written atomically.

    The main process writes, and all processes read.

    Args:
        folder: where they are, the same for all processes; None keeps no checkpoints.
        settings: what identifies the training (parameters, data, encoder), by key.
        every: steps between two checkpoints.
    """

    def __init__(self, folder: Path | None, *, settings: Mapping[str, Any], every: int) -> None:
        self.folder, self.every = folder, every
        self.settings = json.loads(json.dumps(settings))

    def is_due(self, done: int, steps: int) -> bool:
        return self.folder is not None and done < steps and done % self.every == 0

    def save(self, trained: Mapping[str, Tensor], optimizer: Any, state: TrainingState) -> None:
        """Write a checkpoint; raises UserError when that is impossible, and keeps the checkpoints before it."""
        assert self.folder
        tensors = {f"weight.{name}": gather_whole(weight) for name, weight in trained.items()}
        for name, weight in trained.items():
            for key in _MOMENTS:
                if key in optimizer.state[weight]:
                    tensors[f"{key}.{name}"] = gather_whole(optimizer.state[weight][key])
        path = self.folder / f"step-{len(state.curve):09d}.safetensors"
        self._write(path, tensors, state)
        if distributed.is_main():
            # `restore` found the later ones broken, so they must not count among those that are kept.
            usable = [file for file in self._list_newest_first() if file.name <= path.name][:_KEPT]
            for file in set(self._list_newest_first()) - set(usable):
                file.unlink()

    def restore(self, trained: Mapping[str, Tensor], optimizer: Any) -> TrainingState:
        """Load the newest checkpoint that is intact; return its state, or an empty one without a checkpoint.

        Raises:
            UserError: the checkpoint has other settings, or processes find different checkpoints.
        """
        tensors, state = self._read_newest()
        if len(set(distributed.everyones(str(len(state.curve))))) > 1:
            raise UserError(
                f"{self.folder}: processes find different checkpoints; put it on a file system that all share"
            )
        if tensors:
            _load_weights(trained, tensors)
        for name, weight in trained.items() if tensors else ():
            optimizer.state[weight] = {
                key: place_like(tensors[f"{key}.{name}"], weight)
                for key in _MOMENTS
                if f"{key}.{name}" in tensors
            }
        return state

    def _read_newest(self) -> tuple[dict[str, Tensor], TrainingState]:
        for path in self._list_newest_first():
            tensors, state = self._read(path)
            if state:
                _log.info("continuing at step %d from %s", len(state.curve), path)
                return tensors, state
            _log.warning("%s: broken checkpoint, taking the one before", path)
        return {}, TrainingState([], [])

    def save_best(self, trained: Mapping[str, Tensor], state: TrainingState) -> None:
        """Keep the current weights as those of the best validation so far."""
        assert self.folder
        tensors = {f"weight.{name}": gather_whole(weight) for name, weight in trained.items()}
        self._write(self.folder / "best.safetensors", tensors, state)

    def load_best(self, trained: Mapping[str, Tensor]) -> int:
        """Load the weights of the best validation; return after how many steps that was."""
        assert self.folder
        path = self.folder / "best.safetensors"
        distributed.barrier()  # The main process may still be writing it.
        tensors, state = self._read(path)
        if state is None:
            raise UserError(f"{path}: broken; remove {self.folder} and train again")
        _load_weights(trained, tensors)
        return len(state.curve)

    def clear(self) -> None:
        for name in ("step-*.safetensors", "best.safetensors", "run.json", _UNFINISHED):
            for path in self.folder.glob(name) if self.folder else ():
                path.unlink()

    def remember_run(self, run: str) -> None:
        """Keep the id of the training's run in the tracking store."""
        if self.folder and distributed.is_main():
            cache.write_json(self.folder / "run.json", {"settings": self.settings, "tracked": run})

    def recall_run(self) -> str:
        """The id that was kept, if the training that was killed is this one; else an empty string."""
        path = self.folder / "run.json" if self.folder else None
        known = cache.read_json(path) if path and path.is_file() else {}
        return str(known["tracked"]) if known.get("settings") == self.settings else ""

    def _list_newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True) if self.folder else []

    def _write(self, path: Path, tensors: Mapping[str, Tensor], state: TrainingState) -> None:
        if not distributed.is_main():
            return
        assert self.folder
        for left in self.folder.glob(_UNFINISHED):  # A process was killed while it wrote.
            left.unlink()
        meta = {"settings": json.dumps(self.settings), "state": json.dumps(state)}
        try:
            with cache.atomic_file(path) as scratch:
                save_file(dict(tensors), scratch, meta)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: can't be written ({first_line(error)}); make room and run the same command again, "
                "it goes on from the checkpoint before"
            ) from None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], TrainingState | None]:
        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError):
            return {}, None
        other = json.loads(meta.get("settings", "{}"))
        if other != self.settings:
            raise UserError(
                f"{path}: of another training ({'; '.join(_describe_differences(other, self.settings))}); put that "
                f"back to go on with it, or remove {self.folder} to begin anew"
            )
        return tensors, TrainingState(*json.loads(meta["state"]))


def _describe_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    for name in names[:3]:
        yield f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
    if len(names) > 3:
        yield f"and {len(names) - 3} more"


def _load_weights(trained: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(place_like(tensors[f"weight.{name}"], weight))


# --- weights that are sharded over several processes (FSDP2) -----------------------------------


def gather_whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor on the CPU, which all processes have to ask for; others stay where they are."""
    tensor = tensor.detach()
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.contiguous()


def place_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """Put a tensor where the weight is, sharded as it is. Scalars (the optimizer's step count) are never sharded."""
    if isinstance(weight, DTensor) and tensor.ndim:
        return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)
    return tensor.to(weight.device)


def prepare_model(accelerator: Accelerator, model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Prepare model and optimizer for the processes that there are.

    FSDP shards layer by layer. Unless the configuration names the layers' classes, they are those which the
    transformer says must stay together; sentence-transformers' module around it names none.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is not None and not plugin.transformer_cls_names_to_wrap:
        inner = [getattr(part, "_no_split_modules", None) or [] for part in model.modules()]
        plugin.transformer_cls_names_to_wrap = sorted({name for names in inner for name in names})
    prepared, optimizer = accelerator.prepare(model, optimizer)
    return prepared, optimizer


def copy_to_unshard(accelerator: Accelerator, model: nn.Module) -> nn.Module | None:
    """Copy the model to the CPU before it is sharded, for `unshard`; None where it will not be sharded."""
    if not accelerator.is_fsdp2:
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        whole = copy.deepcopy(model.cpu())
        model.to(device)
    return whole


def unshard(model: nn.Module, whole: nn.Module) -> nn.Module:
    """Give `whole`, the copy from before sharding, the weights that the sharded model has now."""
    whole.load_state_dict({name: gather_whole(weight).cpu() for name, weight in model.state_dict().items()})
    return whole
