"""The look that all figures share, and how they are written to files."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from PIL import Image

from ..core.extras import extra
from ..core.files import atomic
from ..data.demo_ct import STRUCTURES
from ..evaluation.labels import label_of

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong's colour-blind-safe palette (Nature Methods 8:441), and five colours far from these and from
# each other in Oklab, also as red- and green-blind people see them
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#134F10", "#8800FF", "#27FDA7", "#6F0042", "#050195", "#000000"),
)
MARKERS = ("o", "^", "s", "D", "P")  # with the colours 60 pairs
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
_LINE_HEIGHT = 0.19  # of a legend, inches
CHANCE: dict[str, Any] = {"color": "0.45", "ls": ":", "lw": 1.2, "label": "chance", "zorder": 0.5}

_Parameters = ParamSpec("_Parameters")
_texts: WeakKeyDictionary[Figure, dict[str, str]] = WeakKeyDictionary()


def styled(function: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Decorate a function that draws a figure so that it draws in `STYLE`."""

    @wraps(function)
    def draw(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF; the same figure gives the same files.

    The PNG holds the caption and the alternative text of `texts_of`, for `read_texts`.

    Args:
        figure: Figure returned by a function of `plots`.
        folder: Folder of both files.
        name: File name without suffix.

    Returns:
        The paths of both files.
    """
    undated: dict[str, dict[str, Any]] = {
        "png": {"Software": None, **texts_of(figure)},
        "pdf": {"CreationDate": None, "Producer": None},
    }
    paths = []
    for suffix, metadata in undated.items():
        path = folder / f"{name}.{suffix}"
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=SAVED_DPI, bbox_inches="tight", metadata=metadata)
        paths.append(path)
    return paths


def texts_of(figure: Figure) -> dict[str, str]:
    """Return the `Caption` and the `Alt` text of a figure; empty where its function gave none."""
    return _texts.get(figure, {})


def read_texts(path: Path) -> dict[str, str]:
    """Return the `Caption` and the `Alt` text that `save_figure` wrote into a PNG, if any."""
    with Image.open(path) as image:
        texts = {name: image.info.get(name, "") for name in ("Caption", "Alt")}
    return {name: text for name, text in texts.items() if text}


def colour_of(i: int) -> str:
    """Return the colour of the i-th series of a figure."""
    return COLOURS[i % len(COLOURS)]


def marker_of(i: int) -> str:
    """Return the marker of the i-th series of a figure."""
    return MARKERS[i % len(MARKERS)]


def class_looks(classes: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the marker of each class, the same in every figure.

    Args:
        classes: Names of all classes of the datasets of a figure, without a background. Their
            order does not matter; a part of the structures of the demo has the looks of the whole.

    Returns:
        Colour and marker by name, in the order of numbers or of the alphabet; up to 12 classes
        differ in colour, up to 60 in the pair.
    """
    names = set(classes)
    ranked = sorted(names | set(STRUCTURES) if names <= set(STRUCTURES) else names, key=_rank)
    looks = {name: (colour_of(i), marker_of(i)) for i, name in enumerate(ranked)}
    return {name: look for name, look in looks.items() if name in names}


def _rank(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (0, name)


def chance(metric: str, classes: int | None) -> float:
    """Return what guessing among the classes scores in percent, NaN where it is not known.

    Args:
        metric: Name of the metric; it is known of accuracy, balanced accuracy and AUC.
        classes: Number of classes, if it is known.
    """
    if metric == "auc":
        return 50.0
    return 100 / classes if classes and metric in ("accuracy", "balanced_accuracy") else np.nan


def draw_chance(axis: Axes, metric: str, classes: int | None) -> None:
    """Draw a dotted line across a panel at `chance`, if that is known."""
    if np.isfinite(level := chance(metric, classes)):
        axis.axhline(level, **CHANCE)


def draw_intervals(
    axis: Axes,
    results: pd.DataFrame,
    positions: Sequence[float] | np.ndarray | pd.Series,
    *,
    i: int,
    label: str,
    size: float = 5,
) -> None:
    """Draw values in percent as markers on their horizontal intervals.

    Args:
        axis: Panel to draw on.
        results: Rows with the columns value, ci_low and ci_high, fractions.
        positions: Vertical position of each row.
        i: Number of the series, which chooses its colour and marker.
        label: Entry of the legend.
        size: Size of the markers, points.
    """
    low, high = 100 * results["ci_low"], 100 * results["ci_high"]
    axis.hlines(positions, low, high, color=colour_of(i), lw=1.5)
    values, colour = 100 * results["value"], colour_of(i)
    axis.plot(values, positions, marker_of(i), color=colour, ms=size, label=label)


def draw_backbones(
    axis: Axes,
    results: pd.DataFrame,
    names: Sequence[str],
    backbones: Sequence[str],
    *,
    key: str,
    labels: Sequence[str] | None = None,
) -> None:
    """Draw the intervals of each backbone side by side, with a row of the panel for each name.

    Args:
        axis: Panel to draw on.
        results: Rows with the columns backbone, value, ci_low and ci_high, fractions.
        names: Rows of the panel, from the top; some may have no result.
        backbones: Backbones of the figure, in the order of their colours.
        key: Column of the names.
        labels: What is written at each row; the names by default.
    """
    for i, backbone in enumerate(backbones):
        own = results[results["backbone"] == backbone].set_index(key).reindex(names)
        positions = np.arange(len(names)) + 0.7 / len(backbones) * (i - (len(backbones) - 1) / 2)
        draw_intervals(axis, own, positions, i=i, label=label_of(backbone))
    label_rows(axis, names if labels is None else labels)


def label_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label the categories of a panel of intervals, the first one at the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.25)


def legend_below(figure: Figure, handles: Axes | Sequence[Any], title: str = "backbone") -> None:
    """Put a legend below all panels, in as many columns as fit, and make the figure higher for it.

    Args:
        figure: The figure.
        handles: A panel, or labelled lines or patches. Lines of chance of other panels are added.
        title: What the entries are.
    """
    if isinstance(handles, Axes):
        drawn = [handle for axis in figure.axes for handle in _entries(axis)]
        own = [handle for handle in _entries(handles) if not _is_chance(handle)]
        handles = own + [handle for handle in drawn if _is_chance(handle)][:1]
    labels = [shortened(handle.get_label()) for handle in handles]
    width = max(map(len, labels)) / _CHARACTERS_PER_INCH + 0.5  # with the mark and the gap
    columns = max(1, min(len(labels), int(figure.get_figwidth() / width)))
    height = _LINE_HEIGHT * (len(labels) / columns - 2)  # beyond two lines
    figure.set_figheight(figure.get_figheight() + max(0, height))
    place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, title=title, **place)


def _entries(axis: Axes) -> list[Any]:
    return axis.get_legend_handles_labels()[0]


def _is_chance(handle: Any) -> bool:
    return handle.get_label() == CHANCE["label"]


def wrapped(text: str, inches: float) -> str:
    """Break a text of 9 points into lines that fit a width."""
    return textwrap.fill(text, int(_CHARACTERS_PER_INCH * inches))


def shortened(text: str, length: int = 40) -> str:
    """Cut a name that would leave no room for the figure."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def add_title(
    figure: Figure, title: str, caveat: str = "", *, kind: str = "", caption: str = ""
) -> None:
    """Put a title above a figure and the caveat below the title, wrapped to its width.

    Args:
        figure: The figure.
        title: What is shown, without a full stop.
        caveat: Caveat to display below the title.
        kind: Kind of figure; with the title it is the alternative text, see `texts_of`.
        caption: Sentences that say how to read the figure, for the report.
    """
    lines = (wrapped(line, figure.get_figwidth()) for line in (title, caveat) if line)
    figure.suptitle("\n".join(lines), fontsize=9)
    _texts[figure] = {"Caption": caption or f"{title}.", "Alt": f"{kind or 'Figure'}: {title}."}
