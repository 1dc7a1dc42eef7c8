"""Random crops of grey images for distillation."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .distillation_config import SIZE


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut and changed; values are drawn uniformly from the ranges.

    Attributes:
        scale: Share of the area of the image.
        aspect: Aspect ratio, drawn on a logarithmic scale.
        flip: Probability of a horizontal flip.
        brightness: Maximum change, as a share of the mean.
        contrast: Maximum change, as a share.
        gamma: Exponent, drawn on a logarithmic scale.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.4)


def random_crop(
    image: np.ndarray, generator: np.random.Generator, settings: CropSettings, *, size: int = SIZE
) -> np.ndarray:
    """Return a random resized crop with changed brightness, contrast and gamma.

    Args:
        image: uint8, [height, width].
        generator: Source of all random numbers.
        settings: Ranges.
        size: Edge in pixels.

    Returns:
        uint8, [size, size].
    """
    height, width = image.shape
    area = height * width * generator.uniform(*settings.scale)
    ratio = np.exp(generator.uniform(*np.log(settings.aspect)))
    w, h = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = generator.uniform(0, width - w), generator.uniform(0, height - h)
    crop = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)
    )
    values = np.asarray(crop, np.float32) / 255
    if generator.random() < settings.flip:
        values = values[:, ::-1]
    values = values ** np.exp(generator.uniform(*np.log(settings.gamma)))
    mean = values.mean()
    contrast = 1 + generator.uniform(-settings.contrast, settings.contrast)
    brightness = 1 + generator.uniform(-settings.brightness, settings.brightness)
    values = np.clip((values - mean) * contrast + mean * brightness, 0, 1)
    return np.rint(values * 255).astype(np.uint8)
