"""Grey levels: values of any range as 8-bit images."""

import warnings
from pathlib import Path

import numpy as np

from ..core.errors import InputError, unknown_name

Window = tuple[float, float]
WINDOWS: dict[str, Window] = {  # of CT, in HU
    "abdomen": (-160.0, 240.0),  # width 400, level 40
    "bone": (-500.0, 1300.0),  # width 1800, level 400
    "brain": (0.0, 80.0),  # width 80, level 40
    "lung": (-1350.0, 150.0),  # width 1500, level -600
}


def checked_window(window: Window | str | None, name: Path | str) -> Window | None:
    """Return the lower and upper value of a window given by its values or by name.

    Args:
        window: Lower and upper value, a key of `WINDOWS`, or `None`.
        name: Name of the file, for the message.

    Raises:
        InputError: If the name is unknown, or the upper value is not greater than the lower one.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise unknown_name("window", window, WINDOWS)
        return WINDOWS[window]
    if window is not None and not window[0] < window[1]:
        raise InputError(
            f"{name}: the window {window[0]:g}..{window[1]:g} is empty; "
            "give a lower and a greater upper value."
        )
    return window


def parse_window(text: str) -> Window:
    """Return a window by its name or as two numbers with a comma.

    Raises:
        InputError: If the text is neither, or the upper number is not greater.
    """
    if text in WINDOWS:
        return WINDOWS[text]
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise unknown_name("window", text, [*WINDOWS, "LOWER,UPPER"]) from None
    if not low < high:
        raise InputError(f"window {text}: the upper value must be greater than the lower one.")
    return low, high


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


def scaled(values: np.ndarray, window: Window | None, name: Path | str) -> np.ndarray:
    """Convert the values of a file to grey levels, with a warning if no window says how.

    Args:
        values: Real numbers, of any shape.
        window: See `windowed`; by default the smallest and greatest value of the image.
        name: Name of the file, for messages.

    Returns:
        uint8, of the shape of `values`; black where a value is NaN or infinite, which stands for no
        value, and if all values are equal.
    """
    values = values.astype(np.result_type(values, np.float32))
    finite = np.isfinite(values)
    if not finite.all():
        image = np.zeros(values.shape, np.uint8)
        if finite.any():
            image[finite] = scaled(values[finite], window, name)
        return image
    low, high = window or (float(values.min()), float(values.max()))
    if window is None:
        warnings.warn(
            f"{name}: scaled from {low:g}..{high:g} to 0..255; give a window to choose otherwise.",
            stacklevel=4,
        )
    return windowed(values, (low, high)) if high > low else np.zeros(values.shape, np.uint8)
