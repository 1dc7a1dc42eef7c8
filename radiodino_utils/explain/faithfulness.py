"""Measures of maps: ROAD, the share of the mass on a mask, and the pointing game."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..backbones.backbone import Backbone
from ..backbones.sizes import patch_grid
from ..core.errors import InputError
from ..core.extras import extra
from ..features.feature_model import as_tensor
from .attention import attention_maps, attention_rollout, has_token_attention
from .class_activation import IndependentScore, Scores, grad_cam

with extra("evaluation"):
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

SHARES = (0.3, 0.6)  # of the patches that are removed
CONTROLS = ("centre", "even")
METRICS = {"road": "ROAD", "mass_share": "mass on the mask", "pointing": "pointing game"}
_FINE = 4  # imputed points along a patch's edge


def road(
    backbone: Backbone,
    probe: nn.Module,
    image: np.ndarray,
    map_: np.ndarray,
    target: int,
    *,
    shares: Sequence[float] = SHARES,
) -> float:
    """Return how much a target's probability depends on the patches that a map ranks highest.

    Patches are removed, the most relevant first and the least relevant first, and imputed from
    their neighbours. The score is half the difference of the mean probabilities, least minus most:
    0 for a map without information, positive for a faithful one. Equal values are ranked at random,
    by a fixed seed. Unlike in the source, the imputation is solved on 4 x 4 points per patch and
    without noise, which makes it fast and repeatable.

    Source: ROAD, Rong et al., ICML 2022 (arXiv:2202.00449); imputation and combined score as in
    pytorch-grad-cam.

    Args:
        backbone: Any vision transformer or convolutional network of timm.
        probe: Module from embeddings [n, width] to scores [n, targets]; see `grad_cam`.
        image: uint8, [height, width] or [height, width, 3].
        map_: Map to score, [grid height, grid width].
        target: Target whose probability is read, by the softmax of the scores.
        shares: Shares of the patches that are removed.

    Returns:
        The score, -0.5 to 0.5.

    Raises:
        InputError: If the map is not on the backbone's grid.
    """
    grid = patch_grid(backbone)
    if map_.shape != grid:
        raise InputError(f"a map of {map_.shape}: the patch grid of {backbone.name} is {grid}.")
    images = as_tensor(backbone, image)
    order = np.lexsort((np.random.default_rng(0).permutation(map_.size), -map_.ravel()))
    rank = (order.argsort() / map_.size).reshape(grid)  # 0: the most relevant
    removed = [most for share in shares for most in (rank < share, rank >= 1 - share)]
    with torch.inference_mode():
        filled = torch.cat([_imputed(images, mask) for mask in removed])
        probability = Scores(backbone, probe)(filled).softmax(-1)[:, target].view(-1, 2).mean(0)
    return float(probability[1] - probability[0]) / 2


def _imputed(images: torch.Tensor, removed: np.ndarray) -> torch.Tensor:
    """Impute the removed patches [grid height, grid width] of an image [1, 3, height, width]."""
    size = tuple(_FINE * edge for edge in removed.shape)
    kept = torch.from_numpy(1 - np.kron(removed, np.ones((_FINE, _FINE)))).float()
    pooled = functional.adaptive_avg_pool2d(images, size)[0]
    coarse = NoisyLinearImputer(noise=0)(pooled, kept)[None]
    mask = functional.interpolate(kept[None, None], images.shape[2:])
    smooth = functional.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(mask > 0, images, smooth)


def mass_share(map_: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's mass that lies on a mask; of an even map, the area of the mask.

    Args:
        map_: Map without negative values, [grid height, grid width].
        mask: Mask of the same image, bool, [height, width].

    Returns:
        Share, 0 to 1; NaN for a map without mass.

    Raises:
        InputError: If the mask is empty or smaller than the grid.
    """
    area = _on_grid(mask, map_.shape)
    total = map_.sum()
    return float((map_ * area).sum() / total) if total > 0 else float("nan")


def pointing_hit(map_: np.ndarray, mask: np.ndarray) -> float:
    """Return whether the greatest patch of a map touches a mask (the pointing game).

    Patches with the same greatest value share the hit.

    Source: Zhang et al., IJCV 126:1084, 2018 (arXiv:1608.00507).

    Args:
        map_: See `mass_share`.
        mask: See `mass_share`.

    Returns:
        1 for a hit, 0 for a miss.

    Raises:
        InputError: See `mass_share`.
    """
    return float((_on_grid(mask, map_.shape)[map_ == map_.max()] > 0).mean())


def _on_grid(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share of each patch that the mask covers, [grid height, grid width]."""
    if not mask.any():
        raise InputError(
            "the mask is empty; "
            "a map's mass can only be compared with a structure that is in the image."
        )
    if mask.shape[0] < grid[0] or mask.shape[1] < grid[1]:
        raise InputError(
            f"a mask of {mask.shape} is smaller than the grid of {grid} patches; give it in pixels."
        )
    pixels = torch.from_numpy(mask).float()[None, None]
    return functional.adaptive_avg_pool2d(pixels, grid)[0, 0].numpy()


def explanation_maps(
    backbone: Backbone,
    probes: Mapping[str, nn.Module],
    image: np.ndarray,
    target: int | None = None,
    *,
    controls: bool = True,
) -> dict[str, np.ndarray]:
    """Return every type of map of one image, and the two controls that need no backbone.

    Args:
        backbone: Any vision transformer or convolutional network of timm.
        probes: Probes for Grad-CAM by name.
        image: uint8, [height, width] or [height, width, 3].
        target: Target that Grad-CAM explains; see `grad_cam`.
        controls: Whether to add the controls `centre` and `even`.

    Returns:
        Maps by name, [grid height, grid width]: `attention` (last block, mean over the heads) and
        `rollout` where the backbone has them (see `with_attention`), `Grad-CAM NAME` for each
        probe, `centre` (a Gaussian whose standard deviation is a quarter of the edge) and `even`.
        A probe whose score of the target does not depend on the image (a kNN vote without a
        neighbour of that class) has no map.

    Raises:
        InputError: See `grad_cam`.
    """
    maps = {}
    if has_token_attention(backbone):
        maps["attention"] = attention_maps(backbone, image).maps[0].mean(0)
        maps["rollout"] = attention_rollout(backbone, image)
    for name, probe in probes.items():
        with suppress(IndependentScore):
            maps[f"Grad-CAM {name}"] = grad_cam(backbone, probe, image, target)
    if not controls:
        return maps
    rows, columns = patch_grid(backbone)
    down, right = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    gaussian = np.exp(-2 * (down**2 + right**2))
    return maps | dict(zip(CONTROLS, (gaussian, np.ones_like(gaussian)), strict=True))
