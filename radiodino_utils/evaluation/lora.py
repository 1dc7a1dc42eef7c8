"""LoRA adapters on the attention of a vision transformer (Hu et al., ICLR 2022)."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ..backbones.random_weights import draw
from ..core.errors import InputError

PROJECTIONS = ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj")


class LowRankUpdate(nn.Module):
    """Add a low-rank product to a weight, with alpha = 2 x rank.

    As a parametrization of the weight it also reaches code that reads the weight without calling
    its layer.

    Args:
        weight: The weight that is adapted, [rows, columns].
        rank: Rank of the update.
        seed: Seed of the first factor; the second one starts at zero.
        name: Name of the layer, of which the first factor depends too.
    """

    def __init__(self, weight: torch.Tensor, rank: int, *, seed: int, name: str) -> None:
        super().__init__()
        rows, columns = weight.shape
        std = float(1 / np.sqrt(3 * columns))
        self.down = nn.Parameter(draw((rank, columns), std=std, seed=seed, name=name))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight, [rows, columns]."""
        return weight + 2 * self.up @ self.down


def add_adapters(model: nn.Module, *, rank: int, seed: int, name: str) -> None:
    """Freeze a model except for its classifier, and adapt the attention of every block.

    Args:
        model: A vision transformer of timm, changed in place.
        rank: Rank of the adapters.
        seed: Seed of the adapters.
        name: Name of the backbone, for the message.

    Raises:
        InputError: If a block has none of the linear layers `PROJECTIONS`.
    """
    model.requires_grad_(False)
    for head in classifier_heads(model):
        head.requires_grad_(True)
    for number, block in enumerate(model.blocks):
        layers = {
            key: layer
            for key, layer in block.attn.named_children()
            if key in PROJECTIONS and isinstance(layer, nn.Linear)
        }
        if not layers:
            raise InputError(
                f"{name}: block {number} has no {', '.join(PROJECTIONS)} for LoRA; "
                "use the protocol finetune."
            )
        for key, layer in layers.items():
            layer_name = f"blocks.{number}.attn.{key}"
            adapter = LowRankUpdate(layer.weight, rank, seed=seed, name=layer_name)
            parametrize.register_parametrization(layer, "weight", adapter)
            layer.parametrizations.weight.original.requires_grad_(False)


def merged_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights by timm's names, on the CPU, with adapters merged in."""
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if ".parametrizations." not in name
    }
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer):
            state[f"{name}.weight"] = layer.weight
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def classifier_heads(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the classifier of a timm model; distilled transformers have two heads."""
    classifier = model.get_classifier()
    return classifier if isinstance(classifier, tuple) else (classifier,)
