"""Grey levels: values of any range as 8-bit images."""

import warnings
from pathlib import Path

import numpy as np

from ..core.errors import InputError

Window = tuple[float, float]


def windowed(values: np.ndarray, window: Window) -> np.ndarray:
    """Convert values such as Hounsfield units to grey levels.

    Args:
        values: Array of any shape.
        window: Lower and upper value, which become 0 and 255; values outside are clipped.

    Returns:
        uint8, of the shape of `values`.
    """
    low, high = window
    return np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def scaled(values: np.ndarray, window: Window | None, path: Path) -> np.ndarray:
    """Convert the values of a file to grey levels, with a warning if no window says how.

    Args:
        values: Real numbers, of any shape.
        window: See `windowed`; by default the smallest and greatest value of the image.
        path: The file, for messages.

    Returns:
        uint8, of the shape of `values`; black if all values are equal.

    Raises:
        InputError: If a value is NaN or infinite.
    """
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"{path}: the image holds NaN or infinite values; repair or leave out the file."
        )
    low, high = window or (float(values.min()), float(values.max()))
    if window is None:
        warnings.warn(
            f"{path}: scaled from {low:g}..{high:g} to 0..255; give a window to choose otherwise.",
            stacklevel=4,
        )
    return windowed(values, (low, high)) if high > low else np.zeros(values.shape, np.uint8)
