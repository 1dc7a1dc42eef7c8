"""Figures of pre-training: the monitor of a run, its schedules and the views of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core.extras import extra
from .style import COLOURS, add_title, styled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# columns of the monitor by panel, each with its name in the legend
_PANELS = {
    "loss": {"loss": "all", "dino": "class token", "ibot": "patches", "koleo": "KoLeo"},
    "entropy and KL (nats)": {
        "teacher_entropy": "teacher",
        "student_entropy": "student",
        "kl": "KL",
    },
    "kNN probe": {"probe": "accuracy", "probe_auc": "AUC"},
    "spread of features (1 = even)": {"feature_std": ""},
    "effective rank": {"effective_rank": ""},
    "gradient norm": {"gradient_norm": ""},
    "learning rate": {"lr": ""},
    "teacher momentum": {"momentum": ""},
    "images per second": {"images_per_second": ""},
}
# the same of a run from a trained start, whose drift is measured in place of a probe
_ADAPTATION_PANELS = {
    "loss": {"loss": "all", "dino": "class token", "anchor": "anchor", "ibot": "patches"},
    "held-out images (1: as the start)": {"overlap": "neighbours kept", "rank_of_start": "rank"},
    **{name: columns for name, columns in _PANELS.items() if name not in ("loss", "kNN probe")},
}
# the same of a distillation
_DISTILLATION_PANELS = {
    "loss": {"loss": "weighted sum"},
    "cosine distance": {
        "class_token": "class token",
        "mean_patch_token": "mean patch token",
        "map": "map",
    },
    "similarity in the batch": {"similarity": ""},
    "gradient norm": {"gradient_norm": ""},
    "learning rate": {"lr": ""},
    "edge of the crops (px)": {"size": ""},
}
_FEW_POINTS = 12  # below it the points of a line are marked


@styled
def training_curves(monitor: pd.DataFrame, *, title: str) -> Figure:
    """Draw the monitor of a pre-training: losses, signs of a collapse, schedules and speed.

    Args:
        monitor: Rows of a `monitor.csv`, or of a distillation; with a column `run`, a line per
            run, up to three.
        title: Title of the figure.
    """
    runs = dict(list(monitor.groupby("run", sort=False))) if "run" in monitor else {"": monitor}
    panels = _panels_of(monitor)
    lines = len(panels) // 3
    figure, axes = plt.subplots(lines, 3, figsize=(8.6, 0.2 + 2 * lines), sharex=True)
    for axis, (name, columns) in zip(axes.flat, panels.items(), strict=True):
        for rows, line in zip(runs.values(), ("-", "--", ":"), strict=False):
            _draw_run(axis, rows, columns, line)
        axis.set_title(name)
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize=7)
        if not axis.lines:
            axis.set_yticks([])
            centre = {"transform": axis.transAxes, "ha": "center", "va": "center"}
            axis.text(0.5, 0.5, "not measured", **centre)
    for axis in axes[-1]:
        axis.set_xlabel("images seen, thousands")
    names = f" ({', '.join(runs)}: line, dashes, dots)" if len(runs) > 1 else ""
    caption = (
        "A collapse shows as an entropy or a spread near zero. The kNN probe measures the features "
        "with labels that the training does not see."
    )
    add_title(figure, f"{title}{names}", kind="Line charts", caption=caption)
    return figure


def _panels_of(monitor: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return the panels of the kind of run that a monitor is of."""
    if "class_token" in monitor:
        return _DISTILLATION_PANELS
    return _ADAPTATION_PANELS if "overlap" in monitor else _PANELS


def _draw_run(axis: Axes, rows: pd.DataFrame, columns: Mapping[str, str], line: str) -> None:
    """Draw the measured columns of one run; only the first run is in the legend."""
    for (column, label), colour in zip(columns.items(), COLOURS, strict=False):
        if column not in rows:
            continue
        values = pd.to_numeric(rows[column]).dropna()
        if values.empty:
            continue
        look: dict[str, Any] = {"color": colour, "lw": 1.2, "label": label if line == "-" else None}
        if len(values) < _FEW_POINTS:
            look |= {"marker": "o", "ms": 3}
        axis.plot(rows.loc[values.index, "images"] / 1000, values, line, **look)


@styled
def schedule_lines(table: pd.DataFrame) -> Figure:
    """Draw the schedules of a run over its steps, a panel per schedule.

    Args:
        table: Table of `schedule_table`: the column `step`, and one column per schedule.
    """
    columns = [column for column in table if column != "step"]
    figure, axes = plt.subplots(1, len(columns), figsize=(2.15 * len(columns), 1.9))
    for axis, column, colour in zip(axes, columns, COLOURS, strict=False):
        axis.plot(table["step"], table[column], color=colour)
        axis.set(title=column.replace("_", " "), xlabel="step")
        axis.grid(alpha=0.25)
    caption = "What changes over the steps of a run: learning rate, weight decay and the like."
    add_title(figure, f"Schedules of {len(table)} steps", kind="Line charts", caption=caption)
    return figure


@styled
def view_sheet(
    images: Sequence[np.ndarray], views: Sequence[np.ndarray], masks: np.ndarray, *, shown: int = 4
) -> Figure:
    """Draw images and the views cut from them, hidden patches of the global views in orange.

    Args:
        images: n images, uint8, [height, width] each.
        views: Grey levels of each view, 0 to 1, [n, size, size]; the two global ones first.
        masks: Hidden patches of the global views, bool, [2 x n, grid, grid].
        shown: Number of images to draw, those with the most hidden patches, a row each.
    """
    masks = masks.reshape(2, len(images), *masks.shape[1:])
    chosen = np.argsort(-masks[0].sum((1, 2)), kind="stable")[:shown]
    names = ["image", "global 1", "global 2", *(f"local {i + 1}" for i in range(len(views) - 2))]
    size = (1.05 * len(names), 1.1 * len(chosen) + 0.5)
    figure, axes = plt.subplots(len(chosen), len(names), figsize=size, squeeze=False)
    for row, index in zip(axes, chosen, strict=True):
        panels = [images[index] / 255, *(view[index] for view in views)]
        for axis, panel in zip(row, panels, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.imshow(panel, cmap="gray", vmin=0, vmax=1)
        for axis, view, mask in zip(row[1:3], panels[1:3], masks[:, index], strict=False):
            _draw_hidden(axis, mask, len(view))
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    caption = (
        "The student sees every view and the teacher the global ones. Patches in orange are hidden "
        "from the student, which predicts what the teacher makes of them."
    )
    title = "Images and the views cut from them, hidden patches in orange"
    add_title(figure, title, kind="Sheet of images", caption=caption)
    return figure


def _draw_hidden(axis: Axes, mask: np.ndarray, edge: int) -> None:
    """Colour the hidden patches [grid, grid] of a view of `edge` pixels."""
    if mask.any():
        size = edge // len(mask)
        hidden = np.ma.masked_equal(np.kron(mask, np.ones((size, size))), 0)
        axis.imshow(hidden, cmap="autumn", vmin=0, vmax=2, alpha=0.85)
