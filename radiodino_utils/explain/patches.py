"""What single patches mean to a backbone: their principal components as colours, and their likeness across images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..core.errors import InputError
from ..core.extras import extra
from ..features.feature_model import FeatureModel, as_tensor
from .attention import require_attention


@dataclass(frozen=True)
class PatchColours:
    """Patches of several images coloured by one common basis.

    Attributes:
        colours: float32, 0 to 1, [n, grid height, grid width, 3]; the background is black.
        foreground: bool, [n, grid height, grid width].
        shares: Of the foreground's variance, explained by red, green and blue, [3].
        images: As the backbone saw them, uint8.
    """

    colours: np.ndarray
    foreground: np.ndarray
    shares: np.ndarray
    images: list[np.ndarray]


def patch_tokens(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    """Patch tokens behind the last norm, float32, [grid height, grid width, width].

    Raises:
        InputError: If the backbone is no vision transformer, or the image is smaller than a patch.
    """
    require_attention(backbone)
    features = FeatureModel(backbone)
    with torch.inference_mode():
        tokens = backbone.model.forward_features(
            (as_tensor(backbone, image) - features.mean) / features.std
        )[0]
    return (
        tokens[backbone.num_prefix_tokens :]
        .unflatten(0, backbone.model.patch_embed.grid_size)
        .float()
        .numpy()
    )


def patch_pca(backbone: Backbone | str, images: Sequence[np.ndarray]) -> PatchColours:
    """Colours the patches of several images by the principal components of their tokens, in one
    common basis.

    As DINOv2 shows it: a first PCA over all patches parts foreground and background, a second one
        over the foreground
    gives red, green and blue. What is left open there is fixed here, so that the colours are the
    same at every run and
    for any order of the images: the foreground is the side of the first component's mean where
        patches are brighter
    (tissue, in CT, MR and ultrasound); red, green and blue are the components in order of their
    variance, each signed so that brighter patches have more of it, and scaled from the 1st to the
    99th percentile of all foreground patches.

    Source: Oquab et al., "DINOv2", TMLR 2024 (arXiv:2304.07193), section 7.4.

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        images: uint8, [height, width] or [height, width, 3] each.

    Returns:
        The colours.

    Raises:
        InputError: If the patches do not differ, and see `patch_tokens`.
    """
    with extra("evaluation"):
        from sklearn.decomposition import PCA

    backbone = as_backbone(backbone)
    tokens = np.stack([patch_tokens(backbone, image) for image in images]).astype(np.float64)
    seen = [backbone.seen(image) for image in images]
    grid = tokens.shape[1:3]
    pooled = [
        functional.adaptive_avg_pool2d(as_tensor(backbone, one), grid).mean(1)[0].numpy()
        for one in seen
    ]
    brightness, flat = np.stack(pooled).ravel(), tokens.reshape(-1, tokens.shape[-1])
    varies = np.ptp(flat, axis=0).max() > 1e-6
    foreground = (
        varies and _bright_side(PCA(1, svd_solver="full").fit_transform(flat), brightness)[:, 0] > 0
    )
    if np.sum(foreground) < 4:
        raise InputError(
            f"{backbone.name}: the patches of the images do not differ; give images that show something."
        )
    basis = PCA(3, svd_solver="full")
    components = _bright_side(basis.fit_transform(flat[foreground]), brightness[foreground])
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = np.zeros((len(flat), 3), np.float32)
    colours[foreground] = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    shape = (len(images), *grid)
    return PatchColours(
        colours.reshape(*shape, 3), foreground.reshape(shape), basis.explained_variance_ratio_, seen
    )


def _bright_side(components: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Signs each component [patches, components] so that it grows with brightness [patches]."""
    return components * np.where((brightness - brightness.mean()) @ components < 0, -1, 1)


def patch_similarity(
    backbone: Backbone | str,
    reference: np.ndarray,
    point: tuple[int, int],
    images: Sequence[np.ndarray],
) -> np.ndarray:
    """Compares one patch of a image, chosen as by a click, with every patch of other images.

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        reference: The image with the patch, uint8, [height, width] or [height, width, 3].
        point: Column and row of a pixel of it.
        images: The others, uint8.

    Returns:
        Cosine similarity of the tokens, float32, [n, grid height, grid width].

    Raises:
        InputError: If the point lies outside the image, and see `patch_tokens`.
    """
    backbone = as_backbone(backbone)
    row, column = patch_at(backbone, reference, point)
    chosen = patch_tokens(backbone, reference)[row, column]
    tokens = np.stack([patch_tokens(backbone, image) for image in images])
    return (
        tokens
        @ chosen
        / np.maximum(np.linalg.norm(tokens, axis=-1) * np.linalg.norm(chosen), 1e-12)
    )


def patch_at(backbone: Backbone, image: np.ndarray, point: tuple[int, int]) -> tuple[int, int]:
    """Row and column, on the grid, of the patch that holds a pixel (column, row) of a image.

    Raises:
        InputError: If the backbone is no vision transformer, or the point lies outside the image.
    """
    require_attention(backbone)
    (height, width), (x, y) = image.shape[:2], point
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f"point ({x}, {y}): outside the image of {width} columns and {height} rows."
        )
    rows, columns = backbone.model.patch_embed.grid_size
    return y * rows // height, x * columns // width
