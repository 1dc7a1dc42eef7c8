"""Backbones that return patch maps instead of one feature per image."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..backbones.backbone import Backbone, Pixels, is_convolutional
from ..backbones.sizes import at_size, require_multiple
from ..core.errors import InputError

PIXELS_PATCH = 16  # edge of the patches that `pixels` is cut into
STRIDE = 16  # of the stage of a convolutional network


class PatchMaps(nn.Module):
    """The normalised patch tokens of chosen blocks on their grid, one block behind the other.

    Args:
        model: A timm vision transformer.
        blocks: Numbers of the blocks.
    """

    def __init__(self, model: nn.Module, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.model: Any = model
        self.blocks = list(blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn [n, 3, size, size] into [n, blocks x width, grid, grid]."""
        maps = self.model.forward_intermediates(
            images, self.blocks, norm=True, intermediates_only=True
        )
        return torch.cat(maps, 1)


class StageMaps(nn.Module):
    """The map of a stage of a convolutional network.

    Args:
        model: A convolutional network of timm.
        stage: Number of the stage.
    """

    def __init__(self, model: nn.Module, stage: int) -> None:
        super().__init__()
        self.model: Any = model
        self.stage = stage

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn [n, 3, size, size] into [n, channels, grid, grid]."""
        return self.model.forward_intermediates(images, [self.stage], intermediates_only=True)[0]


class PixelPatches(nn.Module):
    """The baseline: the grey values of each patch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn [n, 3, size, size] into [n, 16 x 16, size / 16, size / 16]."""
        return nn.functional.pixel_unshuffle(images.mean(1, keepdim=True), PIXELS_PATCH)


def dense_backbone(backbone: Backbone, *, size: int, blocks: tuple[int, ...] = (-1,)) -> Backbone:
    """Return a backbone that computes patch maps of images of another size.

    The position embedding is interpolated. `pixels`, which has no patch tokens, is cut into patches
    of 16 x 16 grey values. A convolutional network, which has no blocks, returns the map of its
    stage of stride 16.

    Args:
        backbone: Backbone returned by `load_backbone`; it stays as it is.
        size: Edge of the square that an image is resized to, a multiple of the patch, in pixels.
        blocks: Numbers of the blocks of a vision transformer; negative ones count from the last.

    Raises:
        InputError: If the size does not fit the patch, a block does not exist, or the backbone has
            no patch tokens.
    """
    model: nn.Module
    if isinstance(backbone.model, Pixels):
        require_multiple((size, size), PIXELS_PATCH, backbone.name)
        model, patch, width, blocks = PixelPatches(), PIXELS_PATCH, PIXELS_PATCH**2, (0,)
    elif is_convolutional(backbone.model):
        require_multiple((size, size), backbone.patch_size, backbone.name)
        stages, patch = backbone.model.feature_info, STRIDE
        blocks = ([stage["reduction"] for stage in stages].index(patch),)
        model, width = StageMaps(backbone.model, *blocks), stages[blocks[0]]["num_chs"]
    elif hasattr(backbone.model, "blocks") and hasattr(backbone.model, "forward_intermediates"):
        depth = len(backbone.model.blocks)
        if wrong := [block for block in blocks if not -depth <= block < depth]:
            raise InputError(f"{backbone.name}: has {depth} blocks, no block {wrong[0]}.")
        blocks = tuple(sorted({block % depth for block in blocks}))
        model = PatchMaps(at_size(backbone, (size, size)).model, blocks)
        patch, width = backbone.patch_size, backbone.embedding_dim
    else:
        raise InputError(
            f"{backbone.name}: has no patch tokens; choose a vision transformer such as "
            "random-t16, or pixels."
        )
    return replace(
        backbone,
        model=model.eval(),
        preprocessing=replace(backbone.preprocessing, size=size),
        patch_size=patch,
        embedding_dim=width * len(blocks),
        outputs=tuple(f"patch_tokens_{block}" for block in blocks),
    )
