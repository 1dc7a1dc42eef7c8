"""Parameter groups of the optimizer: rate and weight decay by layer and kind of parameter."""

import re
from typing import Any

import torch

from .config import PretrainConfig
from .networks import Network

_TOKENS = ("pos_embed", "cls_token", "mask_token")


def parameter_groups(student: Network, config: PretrainConfig) -> list[dict[str, Any]]:
    """Assign every trainable parameter to a group of the optimizer.

    Args:
        student: Student before it is wrapped for several processes.
        config: Decays and factors.

    Returns:
        Groups with `lr_scale` (factor of the learning rate), `decays` (whether the weight decay
        applies), `is_last` (whether it holds the prototypes) and `is_head` (whether it holds what a
        trained start lacks: heads and mask token).

    Source:
        `get_params_groups_with_decay` of DINOv2, which without layer decay is `get_params_groups`
        of DINO.
    """
    depth = len(student.vit.blocks)
    groups: dict[tuple[float, bool, bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim > 1 and not name.endswith(".bias")
        decays = is_matrix and (config.token_weight_decay or not name.endswith(_TOKENS))
        is_head = not name.startswith("backbone.vit.")
        key = (_lr_scale(name, depth, config), decays, "last_layer" in name, is_head)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_scale": scale,
            "decays": decays,
            "is_last": is_last,
            "is_head": is_head,
        }
        for (scale, decays, is_last, is_head), parameters in groups.items()
    ]


def _lr_scale(name: str, depth: int, config: PretrainConfig) -> float:
    layer = depth + 1  # of the heads and the last norm
    if block := re.match(r"backbone\.vit\.blocks\.(\d+)\.", name):
        layer = int(block[1]) + 1
    elif name.endswith(_TOKENS) or "patch_embed" in name:
        layer = 0
    factor = config.patch_embed_lr if "patch_embed" in name else 1.0
    return config.layer_decay ** (depth + 1 - layer) * factor
