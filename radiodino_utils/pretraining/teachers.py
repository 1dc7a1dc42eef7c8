"""Teachers of a distillation: frozen backbones that compute targets of crops."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..backbones.backbone import Backbone
from ..features.openvino_engine import compiled_by_openvino
from .crops import SIZE


@dataclass(frozen=True)
class Targets:
    """Targets of crops from one teacher, standardised per dimension.

    Attributes:
        whole: Global targets, float32, [n, width].
        maps: float32, [n, channels, grid, grid].
    """

    whole: torch.Tensor
    maps: torch.Tensor


class TeacherModel(nn.Module):
    """A teacher with its standardisation, from grey crops to global targets and maps.

    The map of a convolutional network is its stage of stride 16, and the global target its pooled
    output. The map of a vision transformer is its patch tokens, and the global target the class
    token beside the mean patch token.

    Args:
        backbone: Backbone returned by `load_backbone`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model, self.prefix = backbone.model, backbone.num_prefix_tokens
        self.is_transformer = hasattr(backbone.model, "patch_embed")
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) * 255
            for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        if not self.is_transformer:
            strides = [stage["reduction"] for stage in backbone.model.feature_info]
            self.stage = strides.index(16)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute targets.

        Args:
            crops: uint8, [n, size, size].

        Returns:
            Global targets, [n, width], and maps, [n, channels, grid, grid].
        """
        standardised = (crops[:, None].float() - self.mean) / self.std
        if self.is_transformer:
            tokens = self.model.forward_features(standardised)
            patches = tokens[:, self.prefix :]
            grid = int(patches.shape[1] ** 0.5)
            mean = patches.mean(1)
            whole = torch.cat([tokens[:, 0], mean], 1) if self.prefix else mean
            return whole, patches.transpose(1, 2).unflatten(2, (grid, grid))
        final, stages = self.model.forward_intermediates(standardised, indices=[self.stage])
        return self.model.forward_head(final), stages[0]


def compiled_teacher(
    backbone: Backbone, *, precision: str, threads: int
) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """Return a teacher compiled by OpenVINO: from crops to global targets and maps.

    Args:
        backbone: Backbone returned by `load_backbone`.
        precision: "bf16" or "fp32".
        threads: Processors to use.
    """
    model = compiled_by_openvino(
        TeacherModel(backbone),
        torch.zeros(1, SIZE, SIZE, dtype=torch.uint8),
        shape=[-1, SIZE, SIZE],
        precision=precision,
        threads=threads,
        hint="LATENCY",
    )
    return lambda crops: tuple(model([crops]).values())
