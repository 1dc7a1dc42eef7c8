"""Drift of a backbone in training from its start, measured on images without labels."""

from collections.abc import Sequence

import numpy as np
import torch

from ..backbones.preprocessing import Preprocessing
from ..evaluation.neighbours import nearest
from .config import PretrainConfig
from .monitor import effective_rank
from .online_probe import as_rgb, class_tokens

NEIGHBOURS = 5
LEAST = 4 * NEIGHBOURS  # held-out images


class Drift:
    """Overlap of neighbourhoods with those of the start, and rank of the features.

    Args:
        start: The start of the run, for images standardised as those of ImageNet.
        preprocessing: Of the backbone that it was made of.
        images: Held-out images, uint8, [height, width] each.
        config: Bounds: `min_overlap` and `min_rank`.
    """

    def __init__(
        self,
        start: torch.nn.Module,
        preprocessing: Preprocessing,
        images: Sequence[np.ndarray],
        config: PretrainConfig,
    ) -> None:
        self._images = np.stack([as_rgb(preprocessing.fitted(image)) for image in images])
        self.config = config
        features = class_tokens(start, self._images)
        self._neighbours = _neighbours(features)
        self.start_rank = effective_rank(torch.from_numpy(features))

    def __call__(self, vit: torch.nn.Module) -> dict[str, float]:
        """Compare a vision transformer with the start.

        Returns:
            `overlap`: mean share of the nearest neighbours of an image, by cosine, that are its
                neighbours at the start as well.
            `rank_of_start`: effective rank of the class tokens, as a fraction of that at the start.
        """
        features = class_tokens(vit, self._images)
        common = self._neighbours[:, :, None] == _neighbours(features)[:, None]
        return {
            "overlap": float(common.any(2).mean()),
            "rank_of_start": effective_rank(torch.from_numpy(features)) / self.start_rank,
        }

    def reason_to_stop(self, values: dict[str, float]) -> str:
        """Return which bound the values of a call fall below, or nothing."""
        overlap, rank = self.config.min_overlap, self.config.min_rank
        if values["overlap"] < overlap:
            return f"{values['overlap']:.0%} of the neighbours are left, fewer than {overlap:.0%}"
        if values["rank_of_start"] < rank:
            share = values["rank_of_start"]
            return f"the rank of the features fell to {share:.0%} of the start, below {rank:.0%}"
        return ""


def _neighbours(features: np.ndarray) -> np.ndarray:
    """Return the nearest other rows of each row, int64, [n, NEIGHBOURS]."""
    return nearest(features, features, NEIGHBOURS, exclude=np.arange(len(features)))[1]
