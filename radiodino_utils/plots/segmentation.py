"""Figures of segmentations: cases with their errors, Dice by class and size, learning curves."""

from typing import Any

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from ..evaluation.segmentation.metrics import image_overlap
from ..evaluation.segmentation.prediction import Segmentation
from ..evaluation.segmentation.tables import caption
from .style import (
    add_title,
    class_looks,
    colour_of,
    draw_backbones,
    legend_below,
    marker_of,
    shortened,
    styled,
    wrapped,
)

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

_CLASSES = 24  # that a figure of boxes shows
_ERRORS = {"right": "#FFFFFF", "missed": "#FF2D2D", "false": "#00E5FF", "another class": "#FFF200"}


def image_dice(scores: pd.DataFrame, *, empty: str = "skip") -> pd.DataFrame:
    """Return the mean foreground Dice of each image.

    Args:
        scores: Scores of `score_images`, of one or several probes of one dataset.
        empty: Rule for classes that an image lacks; see `image_overlap`.

    Returns:
        One row per image and probe: dataset, backbone, probe, seed, fold, id, kind, dice, and the
        number of foreground pixels in the truth as `size`.
    """
    foreground = _foreground(scores, empty)
    foreground["size"] = foreground["tp"] + foreground["fn"]
    keys = ["dataset", "backbone", "probe", "seed", "fold", "id", "kind"]
    return foreground.groupby(keys, sort=False, as_index=False).agg(
        dice=("dice", "mean"), size=("size", "sum")
    )


def _foreground(scores: pd.DataFrame, empty: str) -> pd.DataFrame:
    """Return the rows of the foreground classes with the column `dice`; the first is background."""
    foreground = scores[scores["class"] != scores["class"].iloc[0]].copy()
    counts = (foreground["tp"], foreground["fp"], foreground["fn"])
    foreground["dice"] = image_overlap(*counts, empty=empty)
    return foreground


@styled
def case_sheet(segmentation: Segmentation, scores: pd.DataFrame, *, empty: str = "skip") -> Figure:
    """Draw truth, prediction and errors of the best, the median and the worst image by Dice.

    Args:
        segmentation: Segmentation returned by a probe.
        scores: Scores of `score_images` for it.
        empty: Rule for classes that an image lacks, see `image_overlap`; images without a Dice are
            left out.
    """
    dataset = segmentation.dataset
    dice = image_dice(scores, empty=empty).dropna(subset="dice")
    ranked = dice.sort_values("dice", ascending=False, kind="stable")
    cases = {"best": 0, "median": len(ranked) // 2, "worst": -1}
    position_of = {dataset.ids[row]: position for position, row in enumerate(segmentation.rows)}
    figure, axes = plt.subplots(3, 4, figsize=(7.2, 6.4))
    for row, (name, rank) in zip(axes, cases.items(), strict=True):
        case = ranked.iloc[rank]
        _draw_case(row, segmentation, position_of[case["id"]])
        row[0].set_ylabel(f"{name}\n{shortened(case['id'], 16)}\nDice {100 * case['dice']:.0f} %")
    for axis, title in zip(axes[0], ("image", "truth", "prediction", "errors"), strict=True):
        axis.set_title(title)
    handles = _case_legend(dataset.classes[1:])
    legend_below(figure, handles, "class, and error map")
    probe = _probe_label(segmentation.backbone, segmentation.probe)
    title = f"{dataset.name}: {probe}, n = {len(ranked)} test images"
    reading = (
        "The best, the median and the worst test image by Dice. The error map shows where a class "
        "is missed, invented or taken for another one."
    )
    caveat = caption([dataset.caveat], empty=empty)
    add_title(figure, title, caveat, kind="Sheet of segmentations", caption=reading)
    return figure


def _draw_case(axes: np.ndarray, segmentation: Segmentation, position: int) -> None:
    """Draw image, truth, prediction and errors of one image on four panels."""
    dataset, row = segmentation.dataset, segmentation.rows[position]
    truth = dataset.mask(row)
    predicted = segmentation.predicted(position, truth.shape)
    looks = class_looks(dataset.classes[1:])
    classes = [looks[name][0] for name in dataset.classes[1:]]
    errors = _error_map(truth, predicted)
    layers = [None, (truth, classes), (predicted, classes), (errors, list(_ERRORS.values()))]
    rows, columns = dataset.spacing_mm or (1.0, 1.0)
    aspect = rows / columns  # pixels that are not square are shown at their true proportions
    for axis, layer in zip(axes, layers, strict=True):
        axis.imshow(dataset.images[row], cmap="gray", vmin=0, vmax=255, aspect=aspect)
        axis.set(xticks=[], yticks=[])
        if layer:
            values, colours = layer
            look = {"cmap": ListedColormap(colours), "vmin": 1, "vmax": max(len(colours), 2)}
            shown = np.ma.masked_equal(values, 0)
            axis.imshow(shown, **look, alpha=0.65, interpolation="nearest", aspect=aspect)


def _error_map(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return for each pixel its place in `_ERRORS`, from 1; 0 for true background."""
    errors = np.zeros(truth.shape, np.uint8)
    errors[(truth > 0) & (truth == predicted)] = 1
    errors[(truth > 0) & (predicted == 0)] = 2
    errors[(truth == 0) & (predicted > 0)] = 3
    errors[(truth > 0) & (predicted > 0) & (truth != predicted)] = 4
    return errors


def _case_legend(classes: tuple[str, ...]) -> list[Patch]:
    """Return the legend of the foreground classes and of the error map."""
    looks = class_looks(classes)
    handles = [Patch(color=looks[name][0], label=name) for name in classes]
    for name, colour in _ERRORS.items():
        if len(classes) > 1 or name != "another class":
            label = f"error map: {name}"
            handles.append(Patch(facecolor=colour, edgecolor="0.5", label=label))
    return handles


@styled
def dice_by_class(scores: pd.DataFrame, *, probe: str = "linear", empty: str = "skip") -> Figure:
    """Draw the Dice of each test image by class, and by kind of image where there are kinds.

    Of more than 24 classes or kinds those with the most images are drawn; the title says so.

    Args:
        scores: Scores of `score_images`, of one or several backbones and one dataset.
        probe: Name of the probe.
        empty: Rule for classes that an image lacks; see `image_overlap`.
    """
    scores_of_probe = scores[scores["probe"] == probe]
    backbones = list(scores_of_probe["backbone"].unique())
    shown = _foreground(scores, empty)
    shown = shown[shown["probe"] == probe].dropna(subset="dice")
    with_kind = shown["class"] + ", " + shown["kind"]
    shown = shown.assign(group=shown["class"].where(shown["kind"] == "", with_kind))
    order = {name: position for position, name in enumerate(scores["class"].unique())}
    by_class = shown.sort_values("class", key=lambda names: names.map(order), kind="stable")
    counts = by_class[by_class["backbone"] == backbones[0]].groupby("group", sort=False).size()
    most = counts.sort_values(ascending=False, kind="stable").index[:_CLASSES]
    groups = [name for name in by_class["group"].unique() if name in most]
    size = (7.2, max(0.3, 0.17 * len(backbones)) * len(groups) + 1.6)
    figure, axis = plt.subplots(figsize=size)
    _draw_boxes(axis, shown, groups, backbones)
    labels = [f"{shortened(name)}, n = {counts[name]}" for name in groups]
    axis.set_yticks(range(len(groups)), labels)
    handles, names = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    for handle, name in zip(handles, names, strict=True):
        handle.set_label(label_of(name))
    legend_below(figure, handles)
    title = f"{scores['dataset'].iloc[0]}, {probe} probe: Dice of each test image, by class"
    title += " (line: median, box: quartiles)"
    if len(groups) < len(counts):
        title += f", the {len(groups)} of {len(counts)} with the most images"
    reading = (
        "Each point is a test image; the line is the median, the box the quartiles. n counts the "
        "images in which the class has a Dice."
    )
    caveat = caption(scores["caveat"], empty=empty)
    add_title(figure, title, caveat, kind="Box plots", caption=reading)
    return figure


def _draw_boxes(axis: Axes, scores: pd.DataFrame, groups: list[str], backbones: list[str]) -> None:
    """Draw boxes and single points of the Dice by group and backbone."""
    options = {
        "x": "dice",
        "y": "group",
        "orient": "h",
        "hue": "backbone",
        "order": groups,
        "hue_order": backbones,
        "palette": {name: colour_of(i) for i, name in enumerate(backbones)},
        "ax": axis,
    }
    scores = scores.assign(dice=100 * scores["dice"])
    sns.boxplot(scores, **options, fliersize=0, fill=False, linewidth=1, gap=0.15)
    points = {"dodge": True, "size": 2, "alpha": 0.5, "jitter": 0.2, "legend": False}
    sns.stripplot(scores, **options, **points)
    axis.set(xlabel="Dice of an image, %", ylabel="", xlim=(-2, 102))
    axis.grid(axis="x", alpha=0.25)


@styled
def dice_by_size(
    scores: pd.DataFrame,
    *,
    probe: str = "linear",
    empty: str = "skip",
    spacing_mm: tuple[float, float] | None = None,
) -> Figure:
    """Draw the Dice of each test image and class over the area in the truth, per backbone.

    Args:
        scores: Scores of `score_images`, of one or several backbones and one dataset.
        probe: Name of the probe.
        empty: Rule for classes that an image lacks; see `image_overlap`.
        spacing_mm: Pixel spacing of the images, mm; without it areas are in pixels.
    """
    shown = _foreground(scores, empty)
    shown = shown[shown["probe"] == probe]
    pixel_area = np.prod(spacing_mm) / 100 if spacing_mm else 1  # cm² or pixels
    shown = shown.assign(size=(shown["tp"] + shown["fn"]) * pixel_area)
    shown = shown[(shown["size"] > 0) & shown["dice"].notna()]
    backbones = shown["backbone"].unique()
    hue = "class" if shown["class"].nunique() > 1 else "kind"
    names = [name for name in scores[hue].unique() if name in set(shown[hue])]
    looks = class_looks(_foreground(scores, empty)[hue])
    size = (2.9 * len(backbones) + 0.6, 4.0)
    figure, axes = plt.subplots(1, len(backbones), figsize=size, sharey=True, squeeze=False)
    for axis, backbone in zip(axes[0], backbones, strict=True):
        of_backbone = shown[shown["backbone"] == backbone]
        for name in names:
            points = of_backbone[of_backbone[hue] == name]
            look: dict[str, Any] = {"color": looks[name][0], "ms": 3, "alpha": 0.6, "mew": 0}
            label = name or "foreground"
            axis.plot(points["size"], 100 * points["dice"], looks[name][1], **look, label=label)
        rank = of_backbone[["size", "dice"]].corr("spearman").iloc[0, 1]
        axis.set_title(f"{wrapped(label_of(backbone), 2.6)}\nSpearman {rank:.2f}")
        axis.set(xscale="log", ylim=(-3, 103))
        axis.set_xlabel(f"area in truth, {'cm²' if spacing_mm else 'pixels'}")
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("Dice of an image, %")
    legend_below(figure, axes[0, 0], hue)
    title = f"{scores['dataset'].iloc[0]}, {probe} probe: Dice against size"
    title += f", n = {len(shown) // len(backbones)}"
    reading = (
        "Each mark is a class in a test image. Small structures have lower Dice because the same "
        "error at the border weighs more; Spearman is the rank correlation of Dice and area."
    )
    caveat = caption(scores["caveat"], empty=empty)
    add_title(figure, title, caveat, kind="Scatter plots", caption=reading)
    return figure


@styled
def learning_curve(results: pd.DataFrame, *, metric: str = "dice", empty: str = "skip") -> Figure:
    """Draw a metric with its 95 % interval over the number of labelled images.

    Args:
        results: Rows of `segmentation_rows` for several numbers of labelled images, one or several
            backbones, and one probe.
        metric: Name of the metric.
        empty: Rule for classes that an image lacks, that of the rows.
    """
    results = results[results["metric"] == metric].sort_values("labelled", kind="stable")
    ticks = sorted(results["labelled"].unique())
    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    for i, (backbone, curve) in enumerate(results.groupby("backbone", sort=False)):
        look = {"color": colour_of(i), "marker": marker_of(i), "ms": 4}
        axis.plot(curve["labelled"], 100 * curve["value"], **look, label=label_of(backbone))
        interval = (100 * curve["ci_low"], 100 * curve["ci_high"])
        axis.fill_between(curve["labelled"], *interval, color=colour_of(i), alpha=0.12, lw=0)
    axis.set(xscale="log", xticks=ticks, xticklabels=ticks)
    axis.set(xlabel="labelled training images", ylabel=f"{metric} %".capitalize())
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    legend_below(figure, axis)
    dataset, protocol = results["dataset"].iloc[0], results["protocol"].iloc[0]
    probe = protocol.removeprefix("seg-")
    title = f"{dataset}, {probe} probe over the number of labelled images"
    reading = (
        "Mean of the test images with its 95 % band. A curve that still rises at its right end "
        "would gain from more labels."
    )
    caveat = caption(results["caveat"], empty=empty)
    add_title(figure, title, caveat, kind="Line chart", caption=reading)
    return figure


@styled
def probe_bars(results: pd.DataFrame, *, metric: str = "dice", empty: str = "skip") -> Figure:
    """Draw a metric with its 95 % interval by probe and backbone, a panel per dataset.

    Args:
        results: Rows of `segmentation_rows`.
        metric: Name of the metric.
        empty: Rule for classes that an image lacks, that of the rows.
    """
    results = results[results["metric"] == metric]
    datasets, backbones = results["dataset"].unique(), results["backbone"].unique()
    protocols = results["protocol"].unique()
    probes = [protocol.removeprefix("seg-") for protocol in protocols]
    size = (3.4 * len(datasets) + 2.6, 3.2)
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        of_dataset = results[results["dataset"] == dataset]
        draw_backbones(axis, of_dataset, protocols, backbones, key="protocol", labels=probes)
        axis.set(
            xlabel=f"{'Dice' if metric == 'dice' else metric} %",
            xlim=(0, 100),
            title=wrapped(dataset, 3.2),
        )
    legend_below(figure, axes[0, 0])
    title = "Test images, with bootstrap 95 % intervals over images"
    reading = (
        "Points are means over the test images and lines their 95 % intervals; further right is "
        "better. Random weights and raw pixels are baselines."
    )
    caveat = caption(results["caveat"], empty=empty)
    add_title(figure, title, caveat, kind="Points with intervals", caption=reading)
    return figure


def _probe_label(backbone: str, probe: str) -> str:
    return "U-Net from scratch" if probe == "unet" else f"{label_of(backbone)}, {probe} probe"
