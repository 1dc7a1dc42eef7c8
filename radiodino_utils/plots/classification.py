"""Figures fit for print: each function draws one and gives it back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import atomic
from ..data.registry import ImageDataset
from ..evaluation.predictions import Prediction
from ..evaluation.results import label_of, notes, over_seeds
from .style import (
    COLOURS,
    MARKERS,
    STYLE,
    broken,
    colour_of,
    legend_below,
    marker_of,
    shortened,
    titled,
)

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as PNG (200 dpi) and PDF, without dates, so that the same figure gives the
    same file.

    Args:
        figure: What a function of this module gives.
        folder: Where to.
        name: File name without suffix.

    Returns:
        Both paths.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path, metadata in zip(
        paths, ({"Software": None}, {"CreationDate": None, "Producer": None}), strict=True
    ):
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=200, bbox_inches="tight", metadata=metadata)
    return paths


def sample_sheet(dataset: ImageDataset, *, split: str | None = None, per_class: int = 8) -> Figure:
    """Draws the first images of each class of a split (the set's first one by default), a line a
    class.

    Of more than 24 classes those with the most images are drawn; the title says so.
    """
    split = split or next(iter(dataset.splits))
    part = dataset.splits[split]
    drawn = _largest(part.labels, len(dataset.classes))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(drawn),
            per_class,
            figsize=(0.62 * per_class + 0.9, 0.64 * len(drawn) + 0.5),
            squeeze=False,
        )
        figure.get_layout_engine().set(wspace=0.02)
        for label, line in zip(drawn, axes, strict=True):
            shown = np.flatnonzero(part.labels == label)[:per_class]
            for axis in line:
                axis.set(xticks=[], yticks=[])
                sns.despine(ax=axis, left=True, bottom=True)
            for axis, row in zip(line, shown, strict=False):
                axis.imshow(part.images[row], cmap="gray", vmin=0, vmax=255)
            line[0].set_ylabel(
                shortened(dataset.classes[label]), rotation=0, ha="right", va="center"
            )
        some = (
            ""
            if len(drawn) == len(dataset.classes)
            else f", the {len(drawn)} largest of {len(dataset.classes)} classes"
        )
        titled(figure, f"{dataset.name}: first images of the {split} split{some}", dataset.caveat)
    return figure


_CLASSES = 24  # that a sheet or a matrix shows


def _largest(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels of the classes that are shown, in their order: all, or those with the most images."""
    counts = np.bincount(labels, minlength=classes)
    return np.sort(np.argsort(-counts, kind="stable")[:_CLASSES])


def k_curves(
    curves: pd.DataFrame,
    chosen: dict[tuple[str, str], int],
    *,
    metric: str = "accuracy",
    caveat: str = "",
) -> Figure:
    """Draws a metric over k, a panel a dataset, with 95 % intervals; a ring marks the k chosen on
    validation.

    Args:
        curves: What `rows.curve_rows` makes of `knn_curve`, of several datasets and backbones.
        chosen: k by (dataset, backbone).
        metric: Which one.
        caveat: Below the title.
    """
    datasets, backbones = curves["dataset"].unique(), curves["backbone"].unique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(2.7 * len(datasets) + 0.6, 3.2), sharey=True, squeeze=False
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            for i, backbone in enumerate(backbones):
                look = {"color": colour_of(i), "marker": marker_of(i), "ms": 3.5}
                for split, line in _LINES.items():
                    keys = {
                        "dataset": dataset,
                        "backbone": backbone,
                        "split": split,
                        "metric": metric,
                    }
                    one = curves[(curves[list(keys)] == pd.Series(keys)).all(axis=1)].sort_values(
                        "k"
                    )
                    axis.plot(
                        one["k"],
                        100 * one["value"],
                        line,
                        **look,
                        label=label_of(backbone) if split == "test" else None,
                    )
                    if split == "test":
                        axis.fill_between(
                            one["k"],
                            100 * one["ci_low"],
                            100 * one["ci_high"],
                            color=look["color"],
                            alpha=0.12,
                            lw=0,
                        )
                    else:
                        at = one[one["k"] == chosen.get((dataset, backbone))]
                        axis.plot(
                            at["k"], 100 * at["value"], "o", mfc="none", mec=look["color"], ms=10
                        )
            ticks = sorted(curves["k"].unique())
            axis.set(xscale="log", xlabel="k", title=dataset, xticks=ticks, xticklabels=ticks)
            axis.tick_params(axis="x", labelsize=8)
            axis.minorticks_off()
            axis.grid(alpha=0.25)
        axes[0, 0].set_ylabel(f"{_plain(metric)} %")
        legend_below(figure, axes[0, 0])
        titled(
            figure,
            "Weighted kNN over k (solid: test, with 95 % interval; dashed: validation; ring: the k chosen on validation)",
            caveat,
        )
    return figure


_LINES = {"val": "--", "test": "-"}


def confusion_matrices(predictions: Sequence[Prediction]) -> Figure:
    """Draws confusion matrices side by side, in percent of the true class.

    Of more than 24 classes the largest stand for themselves and the others together in the last row
    and column.
    """
    first = predictions[0]
    drawn = _largest(first.labels, len(first.classes))
    rest = len(first.classes) - len(drawn)
    names = [
        *(shortened(first.classes[label]) for label in drawn),
        *([f"{rest} other classes"] if rest else []),
    ]
    place = np.full(len(first.classes), len(drawn))
    place[drawn] = np.arange(len(drawn))
    edge = max(0.27 * len(names) + 0.5, 1.7)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(predictions), figsize=(edge * len(predictions) + 1.6, edge + 1.6), squeeze=False
        )
        for i, (axis, one) in enumerate(zip(axes[0], predictions, strict=True)):
            counts = np.zeros((len(names), len(names)), np.int64)
            np.add.at(counts, (place[one.labels], place[one.probabilities.argmax(1)]), 1)
            shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
            sns.heatmap(
                shares,
                ax=axis,
                cmap="cividis",
                vmin=0,
                vmax=100,
                square=True,
                annot=np.where(shares >= 0.5, np.floor(shares + 0.5).astype(int).astype(str), ""),
                fmt="",
                annot_kws={"size": 5.5},
                cbar=False,
                xticklabels=names,
                yticklabels=names if i == 0 else False,
            )
            title = "\n".join(
                broken(line, edge) for line in (label_of(one.backbone), one.chosen) if line
            )
            axis.set(xlabel="predicted", ylabel="true" if i == 0 else "", title=title)
            axis.tick_params(axis="x", rotation=90)
            axis.tick_params(axis="y", rotation=0)
        figure.colorbar(
            axes[0, -1].collections[0], ax=axes, shrink=0.6, label="% of the true class"
        )
        titled(figure, first.title, first.caveat)
    return figure


def scree(variances: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draws the cumulative share of variance over the principal components, a panel a dataset."""
    datasets, backbones = variances["dataset"].unique(), variances["backbone"].unique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(2.7 * len(datasets) + 0.4, 2.9), sharey=True, squeeze=False
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            for i, backbone in enumerate(backbones):
                one = variances[
                    (variances["dataset"] == dataset) & (variances["backbone"] == backbone)
                ]
                look = {
                    "color": colour_of(i),
                    "marker": marker_of(i),
                    "ms": 3.5,
                    "label": label_of(backbone),
                }
                axis.plot(one["component"], 100 * one["cumulative"], **look)
            axis.set(title=dataset, xlabel="principal components", ylim=(0, 103))
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.25)
        axes[0, 0].set_ylabel("cumulative variance %")
        legend_below(figure, axes[0, 0])
        titled(figure, "Scree: variance of the L2-normalised embeddings", caveat)
    return figure


def scatter_grid(points: pd.DataFrame, *, method: str, caveat: str = "") -> Figure:
    """Draws the projected images by class: a line a backbone, a column a dataset.

    Args:
        points: What `project` gives, of several datasets and backbones.
        method: "pca" or "umap".
        caveat: Below the title.
    """
    datasets, backbones = points["dataset"].unique(), points["backbone"].unique()
    points = points.astype({"class": str})
    classes = sorted(
        points["class"].unique(),
        key=lambda name: (len(name), name) if name.isdigit() else (0, name),
    )
    look = {
        "palette": {name: colour_of(i) for i, name in enumerate(classes)},
        "markers": {
            name: MARKERS[i // len(COLOURS) % len(MARKERS)] for i, name in enumerate(classes)
        },
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(backbones),
            len(datasets),
            figsize=(2.7 * len(datasets) + 0.3, 2.55 * len(backbones) + 1.2),
            squeeze=False,
        )
        for line, backbone in zip(axes, backbones, strict=True):
            for axis, dataset in zip(line, datasets, strict=True):
                one = points[(points["dataset"] == dataset) & (points["backbone"] == backbone)]
                place = {"x": f"{method}1", "y": f"{method}2", "hue": "class", "style": "class"}
                order = {
                    "hue_order": classes,
                    "style_order": classes,
                }  # points themselves lie in dataset order: no class on top
                sns.scatterplot(one, **place, **order, **look, s=10, lw=0, alpha=0.75, ax=axis)
                axis.set_aspect("equal", adjustable="datalim")
                handles = axis.get_legend_handles_labels()
                axis.get_legend().remove()
                axis.set(xticks=[], yticks=[], title=f"{dataset}\n{label_of(backbone)}")
                axis.set(
                    xlabel=f"{method.upper()} 1",
                    ylabel=f"{method.upper()} 2" if axis is line[0] else "",
                )
        figure.legend(*handles, loc="outside lower center", ncols=2 * len(datasets), frameon=False)
        titled(figure, f"{method.upper()} of the embeddings, every image of every split", caveat)
    return figure


def metric_bars(
    rows: pd.DataFrame,
    *,
    protocol: str = "knn",
    metrics: Sequence[str] = ("accuracy", "f1_macro", "auc"),
) -> Figure:
    """Draws metrics with their 95 % intervals by dataset and backbone, a panel a metric.

    Args:
        rows: Result rows.
        protocol: Which one.
        metrics: Which ones.

    Raises:
        InputError: If no row of the protocol is there.
    """
    rows = over_seeds(rows[(rows["protocol"] == protocol) & (rows["split"] == "test")])
    if rows.empty:
        raise InputError(
            f"protocol {protocol}: there are no result rows of it on the test split; run its notebook first."
        )
    datasets, backbones = rows["dataset"].unique(), rows["backbone"].unique()
    height = len(datasets) * max(0.55, 0.18 * len(backbones))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(metrics), figsize=(2.7 * len(metrics) + 1, height + 1.7), sharey=True
        )
        for axis, metric in zip(np.atleast_1d(axes), metrics, strict=True):
            for i, backbone in enumerate(backbones):
                one = (
                    rows[(rows["backbone"] == backbone) & (rows["metric"] == metric)]
                    .set_index("dataset")
                    .reindex(datasets)
                )
                place = np.arange(len(datasets)) + 0.7 / len(backbones) * (
                    i - (len(backbones) - 1) / 2
                )
                axis.hlines(
                    place, 100 * one["ci_low"], 100 * one["ci_high"], color=colour_of(i), lw=1.5
                )
                axis.plot(
                    100 * one["value"],
                    place,
                    marker_of(i),
                    color=colour_of(i),
                    ms=5,
                    label=label_of(backbone),
                )
            axis.set(
                xlabel=f"{_plain(metric)} %",
                xlim=(0, 102),
                yticks=range(len(datasets)),
                yticklabels=datasets,
            )
            axis.set_ylim(len(datasets) - 0.5, -0.5)
            axis.grid(axis="x", alpha=0.25)
        legend_below(figure, np.atleast_1d(axes)[0])
        caveats = notes(rows)
        titled(figure, f"Protocol {protocol}, test split, with 95 % bootstrap intervals", caveats)
    return figure


def training_curves(monitor: pd.DataFrame, *, title: str) -> Figure:
    """Draws the monitor of a pre-training: what is learnt, the signs of a collapse, schedules and
    speed.

    Args:
        monitor: Rows of a `monitor.csv`; with a column `run`, one line a run.
        title: Above the figure.
    """
    runs = dict(list(monitor.groupby("run", sort=False))) if "run" in monitor else {"": monitor}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, 3, figsize=(8.6, 6.2), sharex=True)
        for axis, (name, columns) in zip(axes.flat, _PANELS.items(), strict=True):
            for rows, line in zip(runs.values(), ("-", "--", ":"), strict=False):
                for (column, label), colour in zip(columns.items(), COLOURS, strict=False):
                    shown = (
                        pd.to_numeric(rows[column]).dropna()
                        if column in rows
                        else pd.Series(dtype=float)
                    )
                    if shown.empty:
                        continue
                    points = {"marker": "o", "ms": 3} if len(shown) < 12 else {}
                    text = label if line == "-" else None
                    axis.plot(
                        rows.loc[shown.index, "images"] / 1000,
                        shown,
                        line,
                        color=colour,
                        lw=1.2,
                        label=text,
                        **points,
                    )
            axis.set_title(name)
            axis.grid(alpha=0.25)
            if axis.get_legend_handles_labels()[1]:
                axis.legend(frameon=False, fontsize=7)
            if not axis.lines:
                axis.set_yticks([])
                axis.text(
                    0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center"
                )
        for axis in axes[-1]:
            axis.set_xlabel("images seen, thousands")
        titled(
            figure, f"{title} ({', '.join(runs)}: line, dashes, dots)" if len(runs) > 1 else title
        )
    return figure


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


def schedule_lines(table: pd.DataFrame) -> Figure:
    """Draws what changes during a run: a panel a column of `distillation.schedule_table`, against the step."""
    columns = [column for column in table if column != "step"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(columns), figsize=(2.15 * len(columns), 1.9))
        for axis, column, colour in zip(axes, columns, COLOURS, strict=False):
            axis.plot(table["step"], table[column], color=colour)
            axis.set(title=column.replace("_", " "), xlabel="step")
            axis.grid(alpha=0.25)
        titled(figure, f"Schedules of {len(table)} steps")
    return figure


def view_sheet(
    images: Sequence[np.ndarray], views: Sequence[np.ndarray], masks: np.ndarray, *, shown: int = 4
) -> Figure:
    """Draws images and the views cut from them, hidden patches of the global views in orange.

    Args:
        images: n images, uint8 [height, width] each.
        views: For each view grey levels in 0..1, [n, size, size], the two global ones first.
        masks: bool, [2 x n, grid, grid].
        shown: How many images, those with the most hidden patches, a line each.
    """
    masks = masks.reshape(2, len(images), *masks.shape[1:])
    chosen = np.argsort(-masks[0].sum((1, 2)), kind="stable")[:shown]
    images, views, masks = (
        [images[row] for row in chosen],
        [view[chosen] for view in views],
        masks[:, chosen],
    )
    names = ["image", "global 1", "global 2", *(f"local {i + 1}" for i in range(len(views) - 2))]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(images),
            len(names),
            figsize=(1.05 * len(names), 1.1 * len(images) + 0.5),
            squeeze=False,
        )
        for row, line in enumerate(axes):
            for column, axis in enumerate(line):
                axis.set(xticks=[], yticks=[], title=names[column] if row == 0 else "")
                image = images[row] / 255 if column == 0 else views[column - 1][row]
                axis.imshow(image, cmap="gray", vmin=0, vmax=1)
                if column in (1, 2) and masks[column - 1][row].any():
                    size = len(image) // masks.shape[-1]
                    hidden = np.kron(masks[column - 1][row], np.ones((size, size)))
                    axis.imshow(
                        np.ma.masked_equal(hidden, 0), cmap="autumn", vmin=0, vmax=2, alpha=0.85
                    )
        titled(figure, "Images and the views cut from them, hidden patches in orange")
    return figure


def _plain(metric: str) -> str:
    return {"f1_macro": "macro-F1", "auc": "AUC"}.get(metric, metric.replace("_", " "))
