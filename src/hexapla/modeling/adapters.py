"""Which weights of an encoder are trained: all of them, some, or low-rank adapters in their place.

The order is `freeze`, `add_lora`, `checkpoint_activations`, `compile_layers`, and after training `merge_lora`, then
`interpolate`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hexapla.modeling.encoder import Encoder
from hexapla.schema import UserError


def freeze(encoder: Encoder, *, embeddings: bool, layers: int) -> None:
    """Exclude the word embeddings and the first `layers` layers from training; the pooler is never trained.

    Raises:
        UserError: the encoder has fewer layers, or this code can't find them.
    """
    encoder.mark_changed()
    backbone = _backbone(encoder)
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad = ".pooler." not in name
    if embeddings:
        backbone.get_input_embeddings().requires_grad_(False)
    if layers:
        stack = _layers(backbone)
        if layers > len(stack):
            raise UserError(
                f"train.freeze_layers: {layers}, but the encoder has {len(stack) or 'no known'} layers"
            )
        for layer in stack[:layers]:
            layer.requires_grad_(False)
        # The frozen layers were trained with these embeddings, which must not move away from under them.
        for part in backbone.children():
            if part.__class__.__name__.endswith("Embeddings"):
                part.requires_grad_(False)
        if not trainable_weights(encoder):
            raise UserError(f"train.freeze_layers: {layers} leaves nothing to train; lower it")


def add_lora(encoder: Encoder, *, rank: int, seed: int, alpha: float | None = None) -> None:
    """Put low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on every linear layer that `freeze` left to train.

    From then on only they train. Each adds to its weight W [out, in] a product B A, where A [rank, in] is random and B
    [out, rank] zero, so that the encoder begins unchanged. They are on all linear layers and not only on the
    attention's, because then LoRA equals full training (Dettmers et al. 2023, arXiv 2305.14314, section 4).

    Args:
        encoder: changed in place.
        rank: of the product.
        seed: decides A, the same on all processes and devices.
        alpha: the product is multiplied by alpha / rank; by 2 if this is None.

    Raises:
        UserError: the word embeddings were to train, which adapters can't do.
    """
    import peft  # 4 s, and few runs need it

    encoder.mark_changed()
    backbone = _backbone(encoder)
    if backbone.get_input_embeddings().weight.requires_grad:
        raise UserError(
            "train.lora_rank: adapters train, word embeddings don't; set train.freeze_embeddings: true, "
            "or train.lora_rank: 0"
        )
    linear = {name: part for name, part in backbone.named_modules() if isinstance(part, nn.Linear)}
    targets = [name for name, part in linear.items() if part.weight.requires_grad]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=targets)
    encoder.model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, backbone)


def merge_lora(encoder: Encoder) -> None:
    """Fold the adapters into the weights: the same embeddings, from the structure that was there before `add_lora`.

    An encoder without adapters stays as it is.
    """
    backbone = _backbone(encoder)
    if not hasattr(backbone, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer

    adapted = {name: part for name, part in backbone.named_modules() if isinstance(part, LoraLayer)}
    for name, part in adapted.items():
        part.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(parent), own, part.get_base_layer())
    del backbone.peft_config


def checkpoint_activations(encoder: Encoder) -> None:
    """Keep only the inputs of each layer, and compute the rest again in the backward pass.

    The gradients are the same, dropout included; the cost is one more forward pass (Chen et al. 2016, arXiv
    1604.06174).

    Raises:
        UserError: the encoder's code does not support it.
    """
    backbone = _backbone(encoder)
    # transformers 5 renamed it, and warns of the old name.
    enable = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
    try:
        enable({"use_reentrant": False, "preserve_rng_state": True})
    except ValueError:
        name = type(backbone).__name__
        raise UserError(
            f"train.gradient_checkpointing: the encoder ({name}) can't do it; set it to false"
        ) from None
    # Only reentrant checkpointing needs gradients of its inputs; here they would pass through frozen layers.
    if getattr(backbone, "_require_grads_hook", None):
        backbone.disable_input_require_grads()


def compile_layers(encoder: Encoder) -> None:
    """Compile the parts of each layer into fused kernels, at the first batches, for batches of any shape.

    All layers share what is compiled for a part; compiling a whole transformer would make the first batch several
    times slower. The parts are smaller than a layer, because `checkpoint_activations` repeats the dropout of compiled
    code that it surrounds, and not of code that surrounds it. One seed always gives the same dropout, with gradient
    and without, but another one than without compiling.

    Raises:
        UserError: the machine has no working compiler, or the layers can't be found.
    """
    try:
        torch.compile(_probe, dynamic=True)(torch.ones(3, device=encoder.device))
    except RuntimeError as error:
        line = str(error).removeprefix("backend='inductor' raised:\n").partition("\n")[0]
        raise UserError(
            f"train.compile: nothing can be compiled here ({line[:150]}); install g++ (and Triton, for a "
            "GPU), or set it to false"
        ) from None
    layers = _layers(_backbone(encoder))
    if not layers:
        raise UserError("train.compile: the encoder has no known layers; set it to false")
    for layer in layers:
        for part in layer.children():
            part.compile(dynamic=True)


def interpolate(encoder: Encoder, start: Mapping[str, Tensor], share: float) -> None:
    """Move the weights back towards where they started (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).

    Most of what the encoder has learned stays, and what it has forgotten comes back. For texts that are unlike the
    training data, a point between the two is better than either.

    Args:
        encoder: changed in place; adapters have been merged.
        start: weights by name, as they were before training.
        share: of the start; 0 changes nothing, 1 undoes the training.
    """
    weights = dict(encoder.model.named_parameters())
    with torch.no_grad():
        for name, before in start.items():
            weights[name].lerp_(before.to(weights[name].device), share)


@contextmanager
def interpolated(encoder: Encoder, start: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Within the block, the encoder is what `merge_lora` and `interpolate` would make of it; then it is as before.

    Args:
        encoder: its adapters have not been merged yet.
        start: weights by name, as they were before training.
        share: of the start.
    """
    if not share:
        yield
        return
    weights = trainable_weights(encoder)
    kept = {name: weights[name].detach().clone() for name in start if name in weights}
    # Adapters are added to weights that did not change, so moving back means to add less of them.
    scalings = [part.scaling for part in encoder.model.modules() if hasattr(part, "lora_A")]
    before = [dict(scaling) for scaling in scalings]
    try:
        for scaling in scalings:
            scaling.update({name: value * (1 - share) for name, value in scaling.items()})
        interpolate(encoder, {name: start[name] for name in kept}, share)
        yield
    finally:
        for scaling, values in zip(scalings, before, strict=True):
            scaling.update(values)
        with torch.no_grad():
            for name, weight in kept.items():
                weights[name].copy_(weight)


def trainable_weights(encoder: Encoder) -> dict[str, Tensor]:
    """The weights that train, by name."""
    return {name: weight for name, weight in encoder.model.named_parameters() if weight.requires_grad}


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1


def _backbone(encoder: Encoder) -> Any:
    backbone = getattr(encoder.model[0], "model", None)
    if not hasattr(backbone, "get_input_embeddings"):
        raise UserError(
            "encoder: no plain transformer behind a tokenizer; it can be evaluated, but not trained here"
        )
    return backbone


def _layers(backbone: Any) -> list[nn.Module]:
    depth = backbone.config.num_hidden_layers
    stacks = (m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    return list(next(stacks, []))
