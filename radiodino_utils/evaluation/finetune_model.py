"""The model that is fine-tuned: a backbone with a new head, and the check that a step trains it."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from ..backbones.backbone import Backbone, for_training, is_convolutional
from ..backbones.preprocessing import Preprocessing
from ..backbones.random_weights import redraw
from ..core.errors import InputError
from .finetune_config import FinetuneConfig
from .lora import add_adapters, classifier_heads


def with_head(
    backbone: Backbone, classes: int, config: FinetuneConfig, *, seed: int, adapters: bool = True
) -> tuple[nn.Module, Preprocessing]:
    """Return a copy of a backbone's model with a random head, and the preprocessing of its images.

    Args:
        backbone: A backbone with weights; it is not changed.
        classes: Number of classes.
        config: Options: dropout, size and LoRA rank.
        seed: Seed of the head and of the adapters.
        adapters: Whether to add the LoRA adapters of the options.
    """
    model, preprocessing = for_training(deepcopy(backbone.model)), backbone.preprocessing
    model.reset_classifier(classes)
    if is_convolutional(model):
        redraw(model, seed=seed, only=model.pretrained_cfg["classifier"])
        model.drop_rate = config.dropout
    else:
        redraw(model, seed=seed, only="head")
        model.head_drop = nn.Dropout(config.dropout)
    if config.size:
        if not is_convolutional(model):
            model.set_input_size(img_size=config.size)
        preprocessing = replace(preprocessing, size=config.size)
    if config.lora_rank and adapters:
        add_adapters(model, rank=config.lora_rank, seed=seed, name=backbone.name)
    return model, preprocessing


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name."""
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def require_change(
    model: nn.Module, before: dict[str, torch.Tensor], *, name: str, lr: float
) -> None:
    """Check after a step that it trained what the protocol trains.

    Args:
        model: The model after the step, with its gradients.
        before: Copies of `trained_parameters` from before the step, on the CPU.
        name: Name of the backbone, for the message.
        lr: Learning rate of the step, for the message.

    Raises:
        InputError: If no tensor of the backbone has changed, or an adapter got no gradient.
    """
    trained = trained_parameters(model)
    _require_adapter_gradients(trained, name)
    head_ids = {id(tensor) for head in classifier_heads(model) for tensor in head.parameters()}
    own = {key: tensor for key, tensor in trained.items() if id(tensor) not in head_ids}
    if not own:
        raise InputError(
            f"{name}: every tensor of the backbone is frozen (requires_grad is False), "
            "so only the head would train."
        )
    # weight decay changes tensors too, but is no training
    has_gradient = any(_has_gradient(tensor) for tensor in own.values())
    if not has_gradient or not any(
        (tensor.detach().cpu() != before[key]).any() for key, tensor in own.items()
    ):
        reason = f"lr {lr:g} is too small" if has_gradient else "no gradient reaches them"
        raise InputError(
            f"{name}: a step trains none of the {len(own)} tensors of the backbone, since {reason}."
        )


def _require_adapter_gradients(trained: dict[str, nn.Parameter], name: str) -> None:
    adapters = {key: tensor for key, tensor in trained.items() if "parametrizations" in key}
    # the gradient of `down` is zero in the first step, since `up` starts at zero
    unreached = [
        key
        for key, tensor in adapters.items()
        if tensor.grad is None or (key.endswith("up") and not tensor.grad.any())
    ]
    if unreached:
        raise InputError(
            f"{name}: {len(unreached)} of {len(adapters)} LoRA tensors get no gradient, first "
            f"{unreached[0]}: the architecture does not use that layer; "
            "use the protocol finetune."
        )


def _has_gradient(tensor: nn.Parameter) -> bool:
    return tensor.grad is not None and bool(tensor.grad.any())
