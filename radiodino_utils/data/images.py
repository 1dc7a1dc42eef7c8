"""Sequences of 8-bit images, read when needed, and how images are resized."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from PIL import Image

from ..core.errors import InputError
from .intensity import Rule
from .reading import SUFFIXES, read_image

__all__ = [
    "INTERPOLATIONS",
    "SUFFIXES",
    "ImageFiles",
    "Images",
    "LazyImages",
    "as_grey",
    "padded",
    "read_image",
    "reading_threads",
    "resized",
    "stacked",
]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Images(Protocol):
    """Images by index: an array, a list of arrays, or files that are read when needed."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...
    @overload
    def __getitem__(self, index: int, /) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice, /) -> "Images": ...


class LazyImages(Sequence[np.ndarray]):
    """Base of image sequences that read an image when it is needed."""

    @abstractmethod
    def read(self, row: int) -> np.ndarray:
        """Read one image; threads may call it at the same time.

        Args:
            row: Row of the image, from 0.

        Returns:
            uint8, [height, width] or [height, width, 3].
        """

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self.read(row) for row in range(len(self))[index]]
        return self.read(range(len(self))[index])


def reading_threads(images: Images) -> int | None:
    """Return 1 for sequences of a user's own, which threads may not share, else `None`."""
    return None if isinstance(images, np.ndarray | list | tuple | LazyImages) else 1


@dataclass(frozen=True)
class ImageFiles(LazyImages):
    """Image files as a sequence of uint8 arrays, each read when it is needed.

    Attributes:
        root: Folder that contains the files.
        names: Paths of the files in `root`.
        grey: Whether colour is converted to grey (luma).
        window: See `read_image`.
    """

    root: Path
    names: Sequence[str]
    grey: bool = False
    window: Rule | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Read the file of a row; see `read_image`."""
        image = read_image(self.root / self.names[row], window=self.window)
        return as_grey(image) if self.grey else image


def as_grey(image: np.ndarray) -> np.ndarray:
    """Convert colour to grey (luma).

    Args:
        image: uint8, [height, width] or [height, width, 3].

    Returns:
        uint8, [height, width]; a grey image is returned as it is.
    """
    return np.asarray(Image.fromarray(image).convert("L")) if image.ndim == 3 else image


def resized(image: np.ndarray, size: int | tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize an image as the published RadioDINO code does: by PIL, ignoring the aspect ratio.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        size: Edge of a square, or height and width, in pixels.
        interpolation: A key of `INTERPOLATIONS`.

    Returns:
        uint8, [height, width] or [height, width, 3]; `image` itself if it has the size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), INTERPOLATIONS[interpolation]))


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack images of one size.

    Args:
        images: uint8, each [height, width] or [height, width, 3].

    Returns:
        uint8, [n, height, width, 1], or [n, height, width, 3] if any image has colour.
    """
    if len({image.ndim for image in images}) > 1:
        images = [
            image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images
        ]
    batch = np.stack(images)
    return batch if batch.ndim == 4 else batch[..., None]


def padded(image: np.ndarray, size: int, fill: tuple[float, ...]) -> np.ndarray:
    """Centre a small image in a square instead of enlarging it, as the MedMNIST+ benchmark does.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        size: Edge of the square in pixels.
        fill: Colour around the image, as fractions. The mean that is subtracted later makes it
            zero for the backbone.

    Returns:
        uint8, [size, size, 3].

    Raises:
        InputError: If the image is larger than the square.
    """
    height, width = image.shape[:2]
    if max(height, width) > size:
        raise InputError(
            f"an image of {height} x {width} pixels does not fit into {size} x {size}; "
            "resize it instead of padding."
        )
    square = np.full((size, size, 3), np.round(255 * np.array(fill)), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = image if image.ndim == 3 else image[..., None]
    return square
