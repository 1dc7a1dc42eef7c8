"""Figures of classification: images, confusion matrices, metrics and published numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..data.registry import ImageDataset
from ..evaluation.predictions import Prediction
from ..evaluation.published import compare_published, places
from ..evaluation.results import METRIC_LABELS, label_of, notes, over_seeds
from .style import (
    CHANCE,
    add_title,
    chance,
    draw_backbones,
    draw_intervals,
    label_rows,
    legend_below,
    shortened,
    styled,
    wrapped,
)

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLASSES = 24  # that a sheet or a matrix shows
_WIDEST = 8  # inches of the matrices of a row


@styled
def sample_sheet(dataset: ImageDataset, *, split: str | None = None, per_class: int = 8) -> Figure:
    """Draw the first images of each class of a split, a row per class.

    Of more than 24 classes those with the most images are drawn; the title says so.

    Args:
        dataset: Dataset with the images.
        split: Name of the split; by default the first one of the dataset.
        per_class: Images per class.
    """
    split = split or next(iter(dataset.splits))
    part = dataset.splits[split]
    classes = _largest_classes(part.labels, len(dataset.classes))
    size = (0.62 * per_class + 0.9, 0.64 * len(classes) + 0.5)
    figure, axes = plt.subplots(len(classes), per_class, figsize=size, squeeze=False)
    figure.get_layout_engine().set(wspace=0.02)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        sns.despine(ax=axis, left=True, bottom=True)
    for label, row in zip(classes, axes, strict=True):
        members = np.flatnonzero(part.labels == label)[:per_class]
        for axis, member in zip(row, members, strict=False):
            axis.imshow(part.images[member], cmap="gray", vmin=0, vmax=255)
        name = shortened(dataset.classes[label])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    title = f"{dataset.name}: first images of the {split} split"
    if len(classes) < len(dataset.classes):
        title += f", the {len(classes)} largest of {len(dataset.classes)} classes"
    caption = (
        f"The first {per_class} images of each class in the {split} split, as the backbones get "
        "them. A row without images is a class that the split lacks."
    )
    add_title(figure, title, dataset.caveat, kind="Sheet of images", caption=caption)
    return figure


def _largest_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the labels of the classes to show, in order: all, or those with the most images."""
    counts = np.bincount(labels, minlength=classes)
    return np.sort(np.argsort(-counts, kind="stable")[:_CLASSES])


@styled
def confusion_matrices(predictions: Sequence[Prediction]) -> Figure:
    """Draw confusion matrices in percent of the true class, as many side by side as fit.

    Of more than 24 classes the largest have their own row and column, and the others share the
    last ones.

    Args:
        predictions: Predictions of one dataset and protocol, one per backbone.
    """
    first = predictions[0]
    classes = _largest_classes(first.labels, len(first.classes))
    names = [shortened(first.classes[label]) for label in classes]
    if others := len(first.classes) - len(classes):
        names.append(f"{others} other classes")
    edge = max(0.27 * len(names) + 0.5, 1.7)  # inches
    margin = max(1.6, 0.9 + max(map(len, names)) / 13)  # for the names of classes
    columns = min(len(predictions), max(1, int(_WIDEST / edge)))
    rows = math.ceil(len(predictions) / columns)
    size = (edge * columns + margin, (edge + margin) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12)
    for axis in axes.flat[len(predictions) :]:
        axis.axis("off")
    for axis, prediction in zip(axes.flat, predictions, strict=False):
        is_first = axis in axes[:, 0]
        names_shown = {"xticklabels": names, "yticklabels": names if is_first else False}
        _draw_confusion(axis, _confusion(prediction, classes, len(names)), **names_shown)
        heading = [label_of(prediction.backbone), prediction.chosen]
        title = "\n".join(wrapped(line, edge) for line in heading if line)
        axis.set(xlabel="predicted", ylabel="true" if is_first else "", title=title)
    bar = {"ax": axes, "shrink": 0.6 / rows, "label": "% of the true class"}
    figure.colorbar(axes[0, 0].collections[0], **bar)
    caption = (
        "Each row is a true class and adds up to 100 % of its images, so that the diagonal holds "
        "the sensitivity of each class. A bright column beside the diagonal is a class that "
        "attracts the images of others."
    )
    add_title(figure, first.title, first.caveat, kind="Confusion matrices", caption=caption)
    return figure


def _confusion(prediction: Prediction, classes: np.ndarray, size: int) -> np.ndarray:
    """Return percentages of the true class, float64, [size, size]; [true, predicted]."""
    position = np.full(len(prediction.classes), len(classes))
    position[classes] = np.arange(len(classes))
    counts = np.zeros((size, size), np.int64)
    predicted = prediction.probabilities.argmax(1)
    np.add.at(counts, (position[prediction.labels], position[predicted]), 1)
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _draw_confusion(axis: Axes, percent: np.ndarray, **ticks: Any) -> None:
    rounded = np.floor(percent + 0.5).astype(int).astype(str)
    colours = {"cmap": "cividis", "vmin": 0, "vmax": 100, "cbar": False}
    numbers = {"annot": np.where(percent >= 0.5, rounded, ""), "annot_kws": {"size": 5.5}}
    sns.heatmap(percent, ax=axis, square=True, fmt="", **colours, **numbers, **ticks)
    axis.tick_params(axis="x", rotation=90)
    axis.tick_params(axis="y", rotation=0)


@styled
def metric_bars(
    results: pd.DataFrame,
    *,
    protocol: str = "knn",
    metrics: Sequence[str] = ("accuracy", "f1_macro", "auc"),
    classes: Mapping[str, int] | None = None,
) -> Figure:
    """Draw metrics with their 95 % intervals by dataset and backbone, a panel per metric.

    Args:
        results: Result rows; those of other protocols and splits are ignored.
        protocol: Name of the protocol.
        metrics: Names of the metrics.
        classes: Number of classes by dataset, for the line of chance in the accuracy.

    Raises:
        InputError: If there are no rows of the protocol.
    """
    results = over_seeds(results[(results["protocol"] == protocol) & (results["split"] == "test")])
    if results.empty:
        raise InputError(
            f"protocol {protocol}: there are no result rows of it on the test split; "
            "run its notebook first."
        )
    datasets, backbones = results["dataset"].unique(), results["backbone"].unique()
    height = len(datasets) * max(0.55, 0.18 * len(backbones))
    size = (2.7 * len(metrics) + 1, height + 1.7)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        of_metric = results[results["metric"] == metric]
        draw_backbones(axis, of_metric, datasets, backbones, key="dataset")
        levels = [chance(metric, (classes or {}).get(name)) for name in datasets]
        if np.isfinite(levels).any():
            rows = np.arange(len(datasets))
            axis.vlines(levels, rows - 0.48, rows + 0.48, **CHANCE)
        axis.set(xlabel=METRIC_LABELS.get(metric, f"{metric} %"), xlim=(0, 102))
    legend_below(figure, axes[0, 0])
    title = f"Protocol {protocol}, test split, with 95 % bootstrap intervals"
    caption = (
        "Points are values on the test split and lines their 95 % intervals; further right is "
        "better. Random weights and raw pixels are baselines, and chance is what guessing scores. "
        "A backbone whose interval holds the point of a baseline is not shown to be better."
    )
    add_title(figure, title, notes(results), kind="Points with intervals", caption=caption)
    return figure


@styled
def forest(results: pd.DataFrame, *, protocol: str) -> Figure:
    """Draw each published number of RadioDINO and what was measured on the same dataset.

    Args:
        results: Result rows.
        protocol: Protocol of the measured numbers; of segmentation the first one counts.
    """
    published = compare_published(results).drop_duplicates(["dataset", "task", "metric"])
    is_shown = (results["protocol"] == protocol) | (results["task"] == "segmentation")
    measured = over_seeds(results[is_shown])
    measured = measured[measured["split"] == "test"]
    figure, axis = plt.subplots(figsize=(7.2, 0.26 * len(published) + 1.6))
    look = {"color": "black", "mfc": "white", "ms": 6, "label": "published (RadioDINO)"}
    axis.plot(100 * published["published"], range(len(published)), "D", **look)
    groups = list(measured.groupby("backbone", sort=False))
    for i, (backbone, of_backbone) in enumerate(groups):
        matching = _beside_published(of_backbone, published)
        if len(matching):
            positions = matching["line"] + 0.5 * ((i + 1) / (len(groups) + 1) - 0.5)
            label = label_of(backbone)
            draw_intervals(axis, matching, positions, i=i, label=label, size=4)
    metrics = published["metric"].map(METRIC_LABELS).fillna("Dice").str.removesuffix(" %")
    label_rows(axis, published["dataset"] + ", " + metrics + " (" + published["model"] + ")")
    axis.set(xlabel="%", xlim=(0, 102))
    legend_below(figure, axis, "source")
    title = "Published numbers and what was measured on the same dataset"
    title += f" (protocol {protocol}, 95 % intervals)"
    caption = (
        "A diamond is a published number, a point with its line what was measured on the same "
        "dataset. The published protocols are not public, so that a distance between the two "
        "need not be an error of either."
    )
    add_title(figure, title, kind="Points with intervals", caption=caption)
    return figure


def _beside_published(measured: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the first measured row of each published one, with the number of its `line`."""
    matching = []
    keys = published[["dataset", "metric", "task"]]
    for line, (dataset, metric, task) in enumerate(keys.itertuples(index=False)):
        is_same = (
            measured["dataset"].isin(places(dataset))
            & (measured["metric"] == metric)
            & (measured["task"] == ("segmentation" if task == "segmentation" else "classification"))
        )
        matching.append(measured[is_same].head(1).assign(line=line))
    return pd.concat(matching)
