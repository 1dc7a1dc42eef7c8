"""Patch tokens: their principal components as colours, and their similarity across images."""

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
        foreground: Patches of the foreground, bool, [n, grid height, grid width].
        shares: Shares of the foreground's variance that red, green and blue explain, [3].
        images: Images as the backbone saw them, uint8.
    """

    colours: np.ndarray
    foreground: np.ndarray
    shares: np.ndarray
    images: list[np.ndarray]


def patch_tokens(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    """Return the patch tokens behind the last norm.

    Args:
        backbone: Any vision transformer of timm.
        image: uint8, [height, width] or [height, width, 3].

    Returns:
        float32, [grid height, grid width, width].

    Raises:
        InputError: If the backbone is no vision transformer, or the image is smaller than a patch.
    """
    require_attention(backbone)
    features = FeatureModel(backbone)
    with torch.inference_mode():
        normalised = (as_tensor(backbone, image) - features.mean) / features.std
        tokens = backbone.model.forward_features(normalised)[0]
    patches = tokens[backbone.num_prefix_tokens :]
    return patches.unflatten(0, backbone.model.patch_embed.grid_size).float().numpy()


def patch_pca(backbone: Backbone | str, images: Sequence[np.ndarray]) -> PatchColours:
    """Colour the patches of several images by the principal components of their tokens.

    As in DINOv2, a first PCA over all patches separates foreground and background, and a second one
    over the foreground gives red, green and blue, in one basis for all images. What DINOv2 leaves
    open is fixed here, so that the colours are the same in every run and for any order of the
    images: the foreground is the side of the first component's mean where patches are brighter
    (tissue, in CT, MR and ultrasound); red, green and blue are the components in order of their
    variance, each signed so that brighter patches have more of it, and scaled from the 1st to the
    99th percentile of all foreground patches.

    Source: Oquab et al., "DINOv2", TMLR 2024 (arXiv:2304.07193), section 7.4.

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        images: uint8, [height, width] or [height, width, 3] each.

    Returns:
        Colours and foreground of all patches.

    Raises:
        InputError: If the patches do not differ; see also `patch_tokens`.
    """
    with extra("evaluation"):
        from sklearn.decomposition import PCA

    backbone = as_backbone(backbone)
    tokens = np.stack([patch_tokens(backbone, image) for image in images]).astype(np.float64)
    flat = tokens.reshape(-1, tokens.shape[-1])
    seen = [backbone.seen(image) for image in images]
    brightness = np.stack([_brightness(backbone, image, tokens.shape[1:3]) for image in seen])
    brightness = brightness.ravel()
    foreground = np.zeros(len(flat), bool)
    if np.ptp(flat, axis=0).max() > 1e-6:
        first = PCA(1, svd_solver="full").fit_transform(flat)
        foreground = _bright_side(first, brightness)[:, 0] > 0
    if np.sum(foreground) < 4:
        raise InputError(
            f"{backbone.name}: the patches of the images do not differ; "
            "give images that show something."
        )
    basis = PCA(3, svd_solver="full")
    components = _bright_side(basis.fit_transform(flat[foreground]), brightness[foreground])
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = np.zeros((len(flat), 3), np.float32)
    colours[foreground] = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    shape = tokens.shape[:3]
    shares = basis.explained_variance_ratio_
    return PatchColours(colours.reshape(*shape, 3), foreground.reshape(shape), shares, seen)


def _brightness(backbone: Backbone, image: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Return the mean grey level of each patch, [grid height, grid width]."""
    pooled = functional.adaptive_avg_pool2d(as_tensor(backbone, image), grid)
    return pooled.mean(1)[0].numpy()


def _bright_side(components: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Sign each component [patches, components] so that it grows with brightness [patches]."""
    return components * np.where((brightness - brightness.mean()) @ components < 0, -1, 1)


def patch_similarity(
    backbone: Backbone | str,
    reference: np.ndarray,
    point: tuple[int, int],
    images: Sequence[np.ndarray],
) -> np.ndarray:
    """Compare one patch of an image, chosen as by a click, with every patch of other images.

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        reference: Image with the patch, uint8, [height, width] or [height, width, 3].
        point: Column and row of a pixel of the patch.
        images: The other images, uint8, [height, width] or [height, width, 3] each.

    Returns:
        Cosine similarity of the tokens, float32, [n, grid height, grid width].

    Raises:
        InputError: If the point lies outside the image; see also `patch_tokens`.
    """
    backbone = as_backbone(backbone)
    row, column = patch_at(backbone, reference, point)
    chosen = patch_tokens(backbone, reference)[row, column]
    tokens = np.stack([patch_tokens(backbone, image) for image in images])
    norms = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(chosen)
    return tokens @ chosen / np.maximum(norms, 1e-12)


def patch_at(backbone: Backbone, image: np.ndarray, point: tuple[int, int]) -> tuple[int, int]:
    """Return row and column, on the patch grid, of the patch that holds a pixel.

    Args:
        backbone: Any vision transformer of timm.
        image: [height, width] or [height, width, 3].
        point: Column and row of the pixel.

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
