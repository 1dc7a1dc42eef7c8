"""Preprocessing of images before a backbone."""

from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..data.images import padded, resized


@dataclass(frozen=True)
class Preprocessing:
    """Resize images to one size, scale them to 0..1 and standardise them.

    Attributes:
        size: Edge of a square, or height and width, in pixels.
        interpolation: A key of `images.INTERPOLATIONS`, or "pad" to place the image in the middle
            of the square.
        mean: Subtracted, per channel.
        std: Divided by, per channel.
    """

    size: int | tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """Return an image in this size, not yet scaled.

        Args:
            image: uint8, [height, width] or [height, width, 3].

        Returns:
            uint8, of this height and width.

        Raises:
            InputError: If the image is padded and larger than the square, or this is no square.
        """
        if self.interpolation == "pad":
            height, width = self.shape
            if height != width:
                raise InputError(
                    f"padding fits images into a square, not into {height} x {width}; resize them."
                )
            return padded(image, height, self.mean)
        return resized(image, self.size, self.interpolation)
