"""Grey levels: values of any range as 8-bit images."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..core.errors import InputError, unknown_name

Window = tuple[float, float]
WINDOWS: dict[str, Window] = {  # of CT, in HU
    "abdomen": (-160.0, 240.0),  # width 400, level 40
    "bone": (-500.0, 1300.0),  # width 1800, level 400
    "brain": (0.0, 80.0),  # width 80, level 40
    "lung": (-1350.0, 150.0),  # width 1500, level -600
}


@dataclass(frozen=True)
class Percentiles:
    """Limits that follow the values of each image or volume.

    Attributes:
        low: Percentile that becomes 0.
        high: Percentile that becomes 255.
        over: Whether they are those of each image, or of the volume or series that it is part of.
    """

    low: float
    high: float
    over: Literal["image", "volume"] = "image"

    def __str__(self) -> str:
        return f"percentiles {self.low:g}..{self.high:g} of each {self.over}"


Rule = Window | Percentiles  # of the grey levels of a whole dataset
OPTIONS = ("window", "percentile", "over")  # of open names, see `parse_rule`


def checked_window(window: Rule | str | None, name: Path | str) -> Rule | None:
    """Return the lower and upper value of a window given by its values or by name.

    Args:
        window: Lower and upper value, a key of `WINDOWS`, percentiles, or `None`.
        name: Name of the file, for the message.

    Raises:
        InputError: If the name is unknown, or the upper value is not greater than the lower one.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise unknown_name("window", window, WINDOWS)
        return WINDOWS[window]
    if isinstance(window, tuple) and not window[0] < window[1]:
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
    if not -np.inf < low < high < np.inf:
        raise InputError(f"window {text}: the upper value must be greater than the lower one.")
    return low, high


def parse_rule(options: Mapping[str, str], *, over: tuple[str, ...] = ("image",)) -> Rule | None:
    """Return the intensity rule of a dataset from the options of its name.

    Args:
        options: Among them `window` (see `parse_window`), or `percentile`, a lower and an upper one
            with a comma, and `over`.
        over: What percentiles may be over, the default first.

    Raises:
        InputError: If an option has no such value, or they contradict each other.
    """
    text = options.get("percentile")
    if text is None:
        if "over" in options:
            raise InputError(f"over={options['over']}: belongs to percentile=LOWER,UPPER; add it.")
        return parse_window(options["window"]) if "window" in options else None
    if "window" in options:
        raise InputError(f"window={options['window']} and percentile={text}: give one of them.")
    scope = options.get("over", over[0])
    if scope not in over:
        raise unknown_name("value of over", scope, over)
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 100:
        raise InputError(f"percentile={text}: give two numbers from 0 to 100, such as 1,99.")
    return Percentiles(low, high, "volume" if scope == "volume" else "image")


def rule_text(rule: Rule | None) -> str:
    """Return a rule in words; empty for none."""
    if isinstance(rule, tuple):
        names = [f"{name}, " for name, window in WINDOWS.items() if window == rule]
        return f"window {''.join(names)}{rule[0]:g}..{rule[1]:g}"
    return str(rule or "")


def limits(values: np.ndarray, rule: Rule) -> Window:
    """Return the values that become 0 and 255.

    Args:
        values: Of the image or volume, any shape.
        rule: The rule.

    Returns:
        The lower and a greater upper value, whatever the values are.
    """
    if isinstance(rule, tuple):
        return rule
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (rule.low, rule.high))
    return float(low), float(high if high > low else low + 1)


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


def scaled(values: np.ndarray, window: Rule | None, name: Path | str) -> np.ndarray:
    """Convert the values of a file to grey levels, with a warning if no window says how.

    Args:
        values: Real numbers, of any shape.
        window: See `windowed`, or percentiles of `values`; by default the smallest and greatest
            value of the image.
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
    if window is not None:
        return windowed(values, limits(values, window))
    low, high = float(values.min()), float(values.max())
    warnings.warn(
        f"{name}: scaled from {low:g}..{high:g} to 0..255; give a window to choose otherwise.",
        stacklevel=4,
    )
    return windowed(values, (low, high)) if high > low else np.zeros(values.shape, np.uint8)
