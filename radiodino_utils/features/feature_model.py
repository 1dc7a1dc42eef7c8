"""A backbone as one module from 8-bit images to features."""

from typing import Any

import numpy as np
import torch
from torch import nn

from ..backbones.backbone import Backbone


class FeatureModel(nn.Module):
    """A backbone with its standardisation in front and the pooling of its tokens behind.

    Args:
        backbone: Backbone returned by `load_backbone`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model: Any = backbone.model
        self.outputs = backbone.outputs
        self.prefix = backbone.num_prefix_tokens
        # before the last one
        self.blocks = sum(output.startswith("class_token_") for output in self.outputs)
        mean, std = backbone.preprocessing.mean, backbone.preprocessing.std
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features of a batch.

        Args:
            images: uint8, [n, height, width, channels], one channel or three.

        Returns:
            One tensor [n, width] per output of the backbone; one of patch maps for a backbone of
            `dense_backbone`.
        """
        standardised = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if not hasattr(self.model, "patch_embed"):  # pixels, patch maps and convolutional networks
            return (self.model(standardised),)
        if self.blocks:
            tokens, class_tokens = self._with_earlier_blocks(standardised)
        else:
            tokens, class_tokens = self.model.forward_features(standardised), []
        mean_patch_token = tokens[:, self.prefix :].mean(1)
        # the model's own pooling, and the norm behind it
        embedding = self.model.forward_head(tokens, pre_logits=True)
        if embedding.ndim == 3:  # of a model that pools nothing
            has_class_token = "class_token" in self.outputs
            embedding = embedding[:, 0] if has_class_token else embedding[:, self.prefix :].mean(1)
        if "class_token" in self.outputs:
            return (embedding, mean_patch_token, *class_tokens)
        return (embedding,)

    def _with_earlier_blocks(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last tokens, and the class tokens of the blocks before, the latest first."""
        tokens, blocks = self.model.forward_intermediates(
            images,
            indices=self.blocks + 1,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
        )
        return tokens, [prefix[:, 0] for _, prefix in reversed(blocks[:-1])]


def as_tensor(backbone: Backbone, image: np.ndarray) -> torch.Tensor:
    """Return an image as the backbone sees it.

    Args:
        backbone: Backbone returned by `load_backbone`.
        image: uint8, [height, width] or [height, width, 3].

    Returns:
        float32 grey levels from 0 to 255, [1, 3, height, width].
    """
    seen = backbone.seen(image)
    colour = seen if seen.ndim == 3 else np.repeat(seen[..., None], 3, -1)
    return torch.tensor(colour, dtype=torch.float32).permute(2, 0, 1)[None]
