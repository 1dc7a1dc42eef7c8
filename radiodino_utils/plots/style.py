"""The look that all figures share, and how they are written to files."""

import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..core.files import atomic

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong's colour-blind-safe palette (Nature Methods 8:441) twice, told apart by the marker
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D")
STYLE = {
    "axes.grid": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.wspace": 0.05,
    "figure.dpi": 120,  # in a notebook
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a $ in a class name is a $
}
SAVED_DPI = 200
_CHARACTERS_PER_INCH = 14  # of text of 9 points

_Parameters = ParamSpec("_Parameters")


def styled(function: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Decorate a function that draws a figure so that it draws in `STYLE`."""

    @wraps(function)
    def draw(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF; the same figure gives the same files.

    Args:
        figure: Figure returned by a function of `plots`.
        folder: Folder of both files.
        name: File name without suffix.

    Returns:
        The paths of both files.
    """
    undated: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None},
    }
    paths = []
    for suffix, metadata in undated.items():
        path = folder / f"{name}.{suffix}"
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=SAVED_DPI, bbox_inches="tight", metadata=metadata)
        paths.append(path)
    return paths


def colour_of(i: int) -> str:
    """Return the colour of the i-th series of a figure."""
    return COLOURS[i % len(COLOURS)]


def marker_of(i: int) -> str:
    """Return the marker of the i-th series of a figure."""
    return MARKERS[i % len(MARKERS)]


def series_positions(categories: int, i: int, count: int, *, width: float = 0.7) -> np.ndarray:
    """Return where the i-th of several series is drawn, so that they stand beside each other.

    Args:
        categories: Number of categories, drawn at 0, 1, ...
        i: Number of the series.
        count: How many series there are.
        width: Room for all series of a category.

    Returns:
        Positions, float64, [categories].
    """
    return np.arange(categories) + width / count * (i - (count - 1) / 2)


def draw_intervals(
    axis: Axes,
    results: pd.DataFrame,
    positions: Sequence[float] | np.ndarray | pd.Series,
    *,
    i: int,
    label: str,
    scale: float = 100,
    size: float = 5,
) -> None:
    """Draw values as markers on their horizontal intervals.

    Args:
        axis: Panel to draw on.
        results: Rows with the columns value, ci_low and ci_high.
        positions: Vertical position of each row.
        i: Number of the series, which chooses its colour and marker.
        label: Entry of the legend.
        scale: Factor of the values; 100 for percent.
        size: Size of the markers, points.
    """
    low, high = scale * results["ci_low"], scale * results["ci_high"]
    axis.hlines(positions, low, high, color=colour_of(i), lw=1.5)
    values, colour = scale * results["value"], colour_of(i)
    axis.plot(values, positions, marker_of(i), color=colour, ms=size, label=label)


def label_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label the categories of a panel of intervals, the first one at the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.25)


def legend_below(figure: Figure, axis: Axes) -> None:
    """Put the legend of one panel below all of them, in as many columns as fit."""
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, min(len(labels), round(figure.get_figwidth() / 2.9)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def wrapped(text: str, inches: float) -> str:
    """Break a text of 9 points into lines that fit a width."""
    return textwrap.fill(text, int(_CHARACTERS_PER_INCH * inches))


def shortened(text: str, length: int = 40) -> str:
    """Cut a name that would leave no room for the figure."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def add_title(figure: Figure, title: str, caveat: str = "") -> None:
    """Put a title above a figure and the caveat below the title, wrapped to its width."""
    lines = (wrapped(line, figure.get_figwidth()) for line in (title, caveat) if line)
    figure.suptitle("\n".join(lines), fontsize=9)
