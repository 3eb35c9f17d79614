"""Weights that several processes share out among them (FSDP2), and the same weights whole."""

import copy
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Gathered, on the CPU, where it is shared out: all processes have to ask."""
    tensor = tensor.detach()
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.contiguous()


def placed_as(tensor: Tensor, weight: Tensor) -> Tensor:
    """Where the weight is, and shared out as it is; a scalar (the optimiser's count of steps) is not."""
    if isinstance(weight, DTensor) and tensor.ndim:
        return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)
    return tensor.to(weight.device)


def prepared(accelerator: Accelerator, model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Model and optimiser for the processes that there are.

    Sharding cuts at the classes of layers that the configuration names, or else at those which the
    transformer says must stay together; sentence-transformers' shell around it names none.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is not None and not plugin.transformer_cls_names_to_wrap:
        inner = [getattr(part, "_no_split_modules", None) or [] for part in model.modules()]
        plugin.transformer_cls_names_to_wrap = sorted({name for names in inner for name in names})
    made, optimizer = accelerator.prepare(model, optimizer)
    return made, optimizer


def unsharded(model: nn.Module, spare: nn.Module) -> nn.Module:
    """`spare`, a copy made before `prepared`, with the weights that `model` has now."""
    spare.load_state_dict({name: whole(weight).cpu() for name, weight in model.state_dict().items()})
    return spare


def spare_of(accelerator: Accelerator, model: nn.Module) -> nn.Module | None:
    """A copy on the CPU, to be saved when training is over; None where the model itself stays whole."""
    if not accelerator.is_fsdp2:
        return None
    device = next(model.parameters()).device
    with torch.no_grad():
        spare = copy.deepcopy(model.cpu())
        model.to(device)
    return spare
