"""The look that all figures share."""

import textwrap

from ..core.extras import extra

with extra("notebooks"):
    import matplotlib.pyplot as plt
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
    "figure.dpi": 72,  # in a notebook; files are written with 200
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a $ in a class name is a $
}


def colour_of(i: int) -> str:
    """The colour of the i-th thing of a figure."""
    return COLOURS[i % len(COLOURS)]


def marker_of(i: int) -> str:
    """The marker of the i-th thing of a figure."""
    return MARKERS[i % len(MARKERS)]


def legend_below(figure: Figure, axis: plt.Axes) -> None:
    """Puts the legend of one panel below all of them, in as many columns as fit."""
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, min(len(labels), round(figure.get_figwidth() / 2.9)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def broken(text: str, inches: float) -> str:
    """Breaks a text of 9 points into lines that fit a width."""
    return textwrap.fill(text, int(14 * inches))


def shortened(text: str, length: int = 40) -> str:
    """Cuts a name that would leave no room for the figure."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def titled(figure: Figure, title: str, caveat: str = "") -> None:
    """Puts a title above a figure, and the caveat below it, broken to its width."""
    lines = (broken(line, figure.get_figwidth()) for line in (title, caveat) if line)
    figure.suptitle("\n".join(lines), fontsize=9)
