"""Figures of segmentations: cases with their errors, Dice by class and by size, and the learning curve."""

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from ..evaluation.segmentation.metrics import image_overlap
from ..evaluation.segmentation.prediction import Segmentation
from ..evaluation.segmentation.tables import caption
from .style import STYLE, colour_of, legend_below, marker_of, titled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

_CLASS_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#A65628",
    "#CC79A7",
    "#8C6BB1",
    "#B2DF8A",
    "#9ECAE1",
    "#6B7A00",
    "#FDD0A2",
)
_ERRORS = {"right": "#FFFFFF", "missed": "#FF2D2D", "false": "#00E5FF", "another class": "#FFF200"}


def image_dice(scores: pd.DataFrame, *, empty: str = "skip") -> pd.DataFrame:
    """The mean foreground Dice of each image: columns backbone, probe, fold, id, kind, pixels of truth, dice."""
    some = scores[scores["class"] != scores["class"].iloc[0]].copy()
    some["dice"] = image_overlap(some["tp"], some["fp"], some["fn"], empty=empty)
    some["size"] = some["tp"] + some["fn"]
    keys = ["dataset", "backbone", "probe", "seed", "fold", "id", "kind"]
    return some.groupby(keys, sort=False, as_index=False).agg(
        dice=("dice", "mean"), size=("size", "sum")
    )


def case_sheet(segmentation: Segmentation, scores: pd.DataFrame, *, empty: str = "skip") -> Figure:
    """Draws image, truth, prediction and errors of the best, the median and the worst image by
    Dice.

    Args:
        segmentation: What a probe gives.
        scores: What `score_images` gives for it.
        empty: See `image_overlap`; images whose Dice does not count are left out.
    """
    dataset = segmentation.dataset
    ranked = (
        image_dice(scores, empty=empty)
        .dropna(subset="dice")
        .sort_values("dice", ascending=False, kind="stable")
    )
    cases = {
        "best": ranked.iloc[0],
        "median": ranked.iloc[len(ranked) // 2],
        "worst": ranked.iloc[-1],
    }
    position_of = {dataset.ids[row]: position for position, row in enumerate(segmentation.rows)}
    labels = list(range(1, len(dataset.classes)))
    colours = ListedColormap(
        [_CLASS_COLOURS[(label - 1) % len(_CLASS_COLOURS)] for label in labels]
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, 4, figsize=(7.2, 6.4))
        for line, (name, case) in zip(axes, cases.items(), strict=True):
            position = position_of[case["id"]]
            row = segmentation.rows[position]
            image, truth = dataset.images[row], dataset.mask(row)
            predicted = segmentation.predicted(position, truth.shape)
            errors = np.zeros(truth.shape, np.uint8)
            errors[(truth > 0) & (truth == predicted)] = 1
            errors[(truth > 0) & (predicted == 0)] = 2
            errors[(truth == 0) & (predicted > 0)] = 3
            errors[(truth > 0) & (predicted > 0) & (truth != predicted)] = 4
            layers = [None, (truth, colours, len(labels)), (predicted, colours, len(labels))]
            layers.append((errors, ListedColormap(list(_ERRORS.values())), len(_ERRORS)))
            titles = ("image", "truth", "prediction", "errors")
            for axis, layer, title in zip(line, layers, titles, strict=True):
                axis.imshow(image, cmap="gray", vmin=0, vmax=255)
                axis.set(xticks=[], yticks=[], title=title if name == "best" else "")
                if layer:
                    values, palette, top = layer
                    axis.imshow(
                        np.ma.masked_equal(values, 0),
                        cmap=palette,
                        vmin=1,
                        vmax=max(top, 2),
                        alpha=0.65,
                        interpolation="nearest",
                    )
            line[0].set_ylabel(f"{name}: {case['id']}\nDice {case['dice']:.2f}")
        handles = [
            Patch(color=colours(i), label=dataset.classes[label]) for i, label in enumerate(labels)
        ]
        errors = {
            name: colour
            for name, colour in _ERRORS.items()
            if len(labels) > 1 or name != "another class"
        }
        handles += [
            Patch(facecolor=colour, edgecolor="0.5", label=f"error map: {name}")
            for name, colour in errors.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        what = f"{dataset.name}: {_label(segmentation.backbone, segmentation.probe)}, n = {len(ranked)} test images"
        titled(figure, what, caption([dataset.caveat], empty=empty))
    return figure


def dice_by_class(scores: pd.DataFrame, *, probe: str = "linear", empty: str = "skip") -> Figure:
    """Draws the Dice of every test image by class, and by kind of image where there are kinds; a
    bar is the median.

    Args:
        scores: What `score_images` gives, of several backbones and of one set.
        probe: Which one.
        empty: See `image_overlap`.
    """
    shown = scores[(scores["probe"] == probe) & (scores["class"] != scores["class"].iloc[0])].copy()
    shown["dice"] = image_overlap(shown["tp"], shown["fp"], shown["fn"], empty=empty)
    shown["group"] = shown["class"].where(
        shown["kind"] == "", shown["class"] + ", " + shown["kind"]
    )
    shown, backbones = (
        shown.dropna(subset="dice"),
        list(scores["backbone"][scores["probe"] == probe].unique()),
    )
    order = {name: place for place, name in enumerate(scores["class"].unique())}
    groups = list(
        shown.sort_values("class", key=lambda names: names.map(order), kind="stable")[
            "group"
        ].unique()
    )
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(
            figsize=(max(5.0, 0.34 * len(groups) * len(backbones) + 1.2), 3.8)
        )
        palette = {name: colour_of(i) for i, name in enumerate(backbones)}
        options = {
            "x": "group",
            "y": "dice",
            "hue": "backbone",
            "order": groups,
            "hue_order": backbones,
            "palette": palette,
        }
        sns.boxplot(shown, **options, ax=axis, fliersize=0, fill=False, linewidth=1, gap=0.15)
        sns.stripplot(
            shown, **options, ax=axis, dodge=True, size=2, alpha=0.5, jitter=0.2, legend=False
        )
        counts = shown[shown["backbone"] == backbones[0]].groupby("group")["dice"].size()
        axis.set_xticks(
            range(len(groups)),
            [f"{name}\nn = {counts.get(name, 0)}" for name in groups],
            rotation=40,
            ha="right",
        )
        axis.set(xlabel="", ylabel="Dice of a image", ylim=(-0.02, 1.02))
        axis.grid(axis="y", alpha=0.25)
        handles, names = axis.get_legend_handles_labels()
        axis.get_legend().remove()
        figure.legend(
            handles,
            [label_of(name) for name in names],
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
        what = f"{scores['dataset'].iloc[0]}, {probe} probe: Dice of each test image, by class (line: median, box: quartiles)"
        titled(figure, what, caption(scores["caveat"], empty=empty))
    return figure


def dice_by_size(
    scores: pd.DataFrame,
    *,
    probe: str = "linear",
    empty: str = "skip",
    spacing_mm: tuple[float, float] | None = None,
) -> Figure:
    """Draws the Dice of every test image and class against the size of what is to be found, a panel
    a backbone.

    Args:
        scores: What `score_images` gives, of several backbones and of one set.
        probe: Which one.
        empty: See `image_overlap`.
        spacing_mm: Of the images; sizes are in pixels without it.
    """
    shown = scores[(scores["probe"] == probe) & (scores["class"] != scores["class"].iloc[0])].copy()
    shown["dice"] = image_overlap(shown["tp"], shown["fp"], shown["fn"], empty=empty)
    shown["size"] = (shown["tp"] + shown["fn"]) * (np.prod(spacing_mm) / 100 if spacing_mm else 1)
    shown = shown[(shown["size"] > 0) & shown["dice"].notna()]
    backbones, hues = (
        shown["backbone"].unique(),
        "class" if shown["class"].nunique() > 1 else "kind",
    )
    names = [name for name in scores[hues].unique() if name in set(shown[hues])]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(backbones), figsize=(2.9 * len(backbones) + 0.6, 4.0), sharey=True, squeeze=False
        )
        for axis, backbone in zip(axes[0], backbones, strict=True):
            one = shown[shown["backbone"] == backbone]
            for i, name in enumerate(names):
                part = one[one[hues] == name]
                colour = _CLASS_COLOURS[i % len(_CLASS_COLOURS)]
                axis.plot(
                    part["size"],
                    part["dice"],
                    "o",
                    color=colour,
                    ms=3,
                    alpha=0.6,
                    mew=0,
                    label=name or "foreground",
                )
            rank = one[["size", "dice"]].corr("spearman").iloc[0, 1]
            axis.set(
                xscale="log", ylim=(-0.03, 1.03), title=f"{label_of(backbone)}\nSpearman {rank:.2f}"
            )
            axis.set_xlabel("area in truth, cm²" if spacing_mm else "area in truth, pixels")
            axis.grid(alpha=0.25)
        axes[0, 0].set_ylabel("Dice of a image")
        legend_below(figure, axes[0, 0])
        what = f"{scores['dataset'].iloc[0]}, {probe} probe: Dice against size, n = {len(shown) // len(backbones)}"
        titled(figure, what, caption(scores["caveat"], empty=empty))
    return figure


def learning_curve(rows: pd.DataFrame, *, metric: str = "dice", empty: str = "skip") -> Figure:
    """Draws a metric with its 95 % interval over the number of labelled images.

    Args:
        rows: What `segmentation_rows` gives, of several numbers of labelled images, backbones, and
            one probe.
        metric: Which one.
        empty: The rule that the rows were made with.
    """
    rows = rows[rows["metric"] == metric].sort_values("labelled", kind="stable")
    ticks, probe = sorted(rows["labelled"].unique()), rows["protocol"].iloc[0].removeprefix("seg-")
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.2, 3.6))
        for i, (backbone, one) in enumerate(rows.groupby("backbone", sort=False)):
            look = {
                "color": colour_of(i),
                "marker": marker_of(i),
                "ms": 4,
                "label": label_of(backbone),
            }
            axis.plot(one["labelled"], 100 * one["value"], **look)
            axis.fill_between(
                one["labelled"],
                100 * one["ci_low"],
                100 * one["ci_high"],
                color=look["color"],
                alpha=0.12,
                lw=0,
            )
        axis.set(
            xscale="log",
            xticks=ticks,
            xticklabels=ticks,
            xlabel="labelled training images",
            ylabel=f"{metric} %".capitalize(),
        )
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        legend_below(figure, axis)
        what = f"{rows['dataset'].iloc[0]}, {probe} probe over the number of labelled images"
        titled(figure, what, caption(rows["caveat"], empty=empty))
    return figure


def _label(backbone: str, probe: str) -> str:
    return "U-Net from scratch" if probe == "unet" else f"{label_of(backbone)}, {probe} probe"


def probe_bars(rows: pd.DataFrame, *, metric: str = "dice", empty: str = "skip") -> Figure:
    """Draws a metric with its 95 % interval by probe and backbone, a panel a dataset.

    Args:
        rows: What `segmentation_rows` gives.
        metric: Which one.
        empty: The rule that the rows were made with.
    """
    rows = rows[rows["metric"] == metric]
    datasets, protocols, backbones = (
        list(rows[key].unique()) for key in ("dataset", "protocol", "backbone")
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(3.4 * len(datasets) + 2.6, 3.2), sharey=True, squeeze=False
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            for i, backbone in enumerate(backbones):
                one = (
                    rows[(rows["dataset"] == dataset) & (rows["backbone"] == backbone)]
                    .set_index("protocol")
                    .reindex(protocols)
                )
                place = np.arange(len(protocols)) + 0.7 / len(backbones) * (
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
                xlabel="Dice %" if metric == "dice" else f"{metric} %", xlim=(0, 100), title=dataset
            )
            axis.set_yticks(range(len(protocols)), [one.removeprefix("seg-") for one in protocols])
            axis.set_ylim(len(protocols) - 0.5, -0.5)
            axis.grid(axis="x", alpha=0.25)
        legend_below(figure, axes[0, 0])
        titled(
            figure,
            "Test images, with bootstrap 95 % intervals over images",
            caption(rows["caveat"], empty=empty),
        )
    return figure
