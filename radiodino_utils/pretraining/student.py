"""Student of a distillation: a vision transformer with linear heads for its teachers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import timm
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, interpolate, mse_loss, normalize

from ..backbones.backbone import for_training
from ..backbones.loading import load_backbone
from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from .config import architecture
from .distillation_config import DistillationConfig
from .initialization import selected_weights
from .teachers import Targets

LOSSES = ("class_token", "mean_patch_token", "map", "similarity")


class Student(nn.Module):
    """A vision transformer with three linear heads for each teacher.

    Args:
        config: Architecture, start and seed.
        widths: Width of the global target and of the map, by teacher.
    """

    def __init__(self, config: DistillationConfig, widths: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.vit = for_training(
                timm.create_model(architecture(config.arch), num_classes=0, dynamic_img_size=True)
            )
            self.heads = nn.ModuleList(
                _heads(self.vit.embed_dim, whole, channels) for whole, channels in widths.values()
            )
        if config.start != "timm":
            self.vit.load_state_dict(selected_weights(load_backbone(config.start).model, self.vit))

    def losses(self, crops: torch.Tensor, targets: Sequence[Targets]) -> dict[str, torch.Tensor]:
        """Compute the parts of the loss, each a mean over the teachers.

        Args:
            crops: float32, standardised, [n, 3, size, size].
            targets: Targets of each teacher, in the order of the heads.

        Returns:
            A value for each of `LOSSES`.
        """
        tokens = self.vit.forward_features(crops)
        class_token, patches = tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :]
        mean_patch_token = patches.mean(1)
        similarities = _similarities(class_token.float())
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in LOSSES}
        for heads, target in zip(self.heads, targets, strict=True):
            maps = _resized(target.maps, math.isqrt(patches.shape[1])).flatten(2).transpose(1, 2)
            predictions = {
                "class_token": (heads["class_token"](class_token), target.whole),
                "mean_patch_token": (heads["mean_patch_token"](mean_patch_token), target.whole),
                "map": (heads["map"](patches), maps),
            }
            for name, (prediction, wanted) in predictions.items():
                parts[name].append(_cosine_distance(prediction, wanted))
            parts["similarity"].append(mse_loss(similarities, _similarities(target.whole)))
        return {name: torch.stack(values).mean() for name, values in parts.items()}


def standardised(crops: np.ndarray, size: int) -> torch.Tensor:
    """Return grey crops as the student sees them.

    Args:
        crops: uint8, [n, 224, 224].
        size: Edge in pixels, at most 224.

    Returns:
        float32, [n, 3, size, size].
    """
    values = torch.from_numpy(crops)[:, None].float().div_(255)
    if size != values.shape[-1]:
        values = interpolate(values, size=(size, size), mode="bilinear", antialias=True)
    mean, std = (
        torch.tensor(channels).view(1, 3, 1, 1) for channels in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (values - mean) / std


def _heads(width: int, whole: int, channels: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "class_token": nn.Linear(width, whole),
            "mean_patch_token": nn.Linear(width, whole),
            "map": nn.Linear(width, channels),
        }
    )


def _resized(maps: torch.Tensor, grid: int) -> torch.Tensor:
    mode = "area" if grid <= maps.shape[-1] else "bilinear"
    return interpolate(maps, size=(grid, grid), mode=mode)


def _cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 1 - cosine_similarity(prediction.float(), target, dim=-1).mean()


def _similarities(features: torch.Tensor) -> torch.Tensor:
    unit = normalize(features, dim=-1)
    return unit @ unit.T
