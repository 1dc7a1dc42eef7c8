"""Backbones for images of another size than that of the weights."""

from copy import deepcopy
from dataclasses import replace

from ..core.errors import InputError
from .backbone import Backbone, is_convolutional


def at_size(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """Return a backbone for images of another size.

    The position embedding of a copy is interpolated by timm.

    Args:
        backbone: Backbone returned by `load_backbone`; it stays as it is.
        size: Height and width in pixels, multiples of the patch.

    Returns:
        The same backbone for that size.

    Raises:
        InputError: If the backbone takes one size only, or the size is smaller than a patch or no
            multiple of it.
    """
    height, width = size
    if (height, width) == backbone.preprocessing.shape:
        return backbone
    edges = height if height == width else size
    resized = replace(backbone, preprocessing=replace(backbone.preprocessing, size=edges))
    if is_convolutional(backbone.model):
        require_multiple(size, backbone.patch_size, backbone.name)
        return resized
    if not hasattr(backbone.model, "set_input_size"):
        raise InputError(
            f"{backbone.name}: takes images of one size only; choose a vision transformer such as "
            "random-t16."
        )
    require_multiple(size, backbone.patch_size, backbone.name)
    model = deepcopy(backbone.model)
    model.set_input_size(img_size=(height, width))
    return replace(resized, model=model)


def patch_grid(backbone: Backbone) -> tuple[int, int]:
    """Return the rows and columns of patches, or of the last map of a convolutional network."""
    height, width = backbone.preprocessing.shape
    return height // backbone.patch_size, width // backbone.patch_size


def fitting_size(backbone: Backbone, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the size at which a backbone sees an image nearly undistorted.

    It has the aspect of the image, to the nearest patch, and about as many pixels as the images
    that the backbone was trained on.

    Args:
        backbone: Backbone returned by `load_backbone`.
        shape: Height and width of the image, and perhaps channels.

    Returns:
        Height and width for `at_size`.
    """
    height, width = backbone.preprocessing.shape
    scale = (height * width / (shape[0] * shape[1])) ** 0.5
    rows, columns = (max(1, round(edge * scale / backbone.patch_size)) for edge in shape[:2])
    return rows * backbone.patch_size, columns * backbone.patch_size


def require_multiple(size: tuple[int, int], patch: int, name: str) -> None:
    """Check that whole patches cover an image.

    Args:
        size: Height and width in pixels.
        patch: Edge of a patch in pixels.
        name: Name of the backbone, for the message.

    Raises:
        InputError: If the size is smaller than a patch or no multiple of it.
    """
    height, width = size
    if min(size) < patch:
        raise InputError(
            f"size {height} x {width}: smaller than a patch of {name} ({patch} x {patch} pixels)."
        )
    if height % patch or width % patch:
        near = " x ".join(str(max(1, round(edge / patch)) * patch) for edge in size)
        raise InputError(
            f"size {height} x {width}: no multiple of the patch of {name} ({patch}); take {near}."
        )
