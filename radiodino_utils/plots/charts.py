"""Figures of protocols: ROC and reliability, few-shot curves, measured beside published numbers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.finetuning import FineTuned
from ..evaluation.metrics import BINS, classification_metrics, reliability
from ..evaluation.predictions import Prediction
from ..evaluation.published import compare_published, places
from ..evaluation.results import METRIC_LABELS, label_of, notes, over_seeds
from .style import STYLE, colour_of, legend_below, marker_of, titled

with extra("evaluation"):
    from sklearn.metrics import roc_curve

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

_GRID = np.linspace(0, 1, 201)


def roc_and_reliability(predictions: Sequence[Prediction]) -> Figure:
    """Draws the ROC curve (of several classes the mean of one-vs-rest) and the reliability diagram
    of some backbones.

    Args:
        predictions: Of one set and protocol, one a backbone.
    """
    first = predictions[0]
    with plt.rc_context(STYLE):
        figure, (roc, calibration) = plt.subplots(1, 2, figsize=(7.2, 3.9))
        for i, one in enumerate(predictions):
            metrics = classification_metrics(one.labels, one.probabilities, resamples=0)
            look = {"color": colour_of(i), "lw": 1.5}
            roc.plot(
                _GRID,
                _mean_roc(one),
                **look,
                label=f"{label_of(one.backbone)}: AUC {100 * metrics['auc'].value:.1f} %",
            )
            bins = reliability(one.labels, one.probabilities)
            sizes = 6 + 90 * bins["n"] / len(one.labels)
            calibration.plot(
                bins["confidence"],
                bins["accuracy"],
                **look,
                label=f"error {100 * metrics['ece'].value:.1f} %",
            )
            calibration.scatter(
                bins["confidence"],
                bins["accuracy"],
                s=sizes,
                marker=marker_of(i),
                color=colour_of(i),
            )
        for axis in (roc, calibration):
            axis.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls=":")
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axis.grid(alpha=0.25)
            axis.legend(
                frameon=False, loc="lower right" if axis is roc else "upper left", fontsize=8
            )
        kind = f"positive: {first.positive}" if len(first.classes) == 2 else "mean over classes"
        roc.set(title=f"ROC ({kind})", xlabel="1 − specificity", ylabel="sensitivity")
        calibration.set(
            title=f"reliability, {BINS} bins (point size: images)",
            xlabel="confidence",
            ylabel="accuracy",
        )
        titled(figure, first.title, first.caveat)
    return figure


def _mean_roc(one: Prediction) -> np.ndarray:
    """Sensitivity on `_GRID`, the mean over the classes that have images."""
    classes = [one.positive_label] if len(one.classes) == 2 else np.unique(one.labels)
    curves = [roc_curve(one.labels == label, one.probabilities[:, label])[:2] for label in classes]
    return np.mean([np.interp(_GRID, *curve) for curve in curves], axis=0)


def few_shot_curves(rows: pd.DataFrame, *, metric: str = "accuracy") -> Figure:
    """Draws a metric over the number of labels a class, mean and standard deviation over the draws,
    a panel a dataset.

    Args:
        rows: Result rows; those of other protocols, and of few-shot ones without twins, are
            ignored.
        metric: Which one.
    """
    rows = over_seeds(
        rows[rows["protocol"].str.fullmatch(r"fewshot-\d+-\w+") & (rows["metric"] == metric)]
    )
    rows[["shots", "method"]] = rows["protocol"].str.extract(r"fewshot-(\d+)-(\w+)")
    rows["shots"] = rows["shots"].astype(int)
    datasets, ticks = rows["dataset"].unique(), sorted(rows["shots"].unique())
    backbones, methods = list(rows["backbone"].unique()), list(rows["method"].unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(3.6 * len(datasets) + 1.6, 3.6), sharey=True, squeeze=False
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            lines = rows[rows["dataset"] == dataset].groupby(["backbone", "method"], sort=False)
            for (backbone, method), one in lines:
                i, j = backbones.index(backbone), methods.index(method)
                one = one.sort_values("shots")
                place = one["shots"] * 1.02 ** (
                    i + len(backbones) * (j - 0.5) - 1
                )  # bars beside each other
                look = {
                    "color": colour_of(i),
                    "marker": marker_of(i),
                    "ls": ("-", "--")[j],
                    "ms": 4,
                    "lw": 1.2,
                    "capsize": 2,
                }
                axis.errorbar(
                    place,
                    100 * one["value"],
                    100 * one["sd"],
                    **look,
                    label=f"{label_of(backbone)}, {method}",
                )
            axis.set(
                xscale="log",
                xlabel="labels a class",
                title=dataset,
                xticks=ticks,
                xticklabels=ticks,
            )
            axis.minorticks_off()
            axis.grid(alpha=0.25)
        axes[0, 0].set_ylabel(METRIC_LABELS[metric])
        legend_below(figure, axes[0, 0])
        caveats = notes(rows)
        titled(
            figure,
            f"Few-shot: mean and standard deviation over {rows['runs'].max()} draws of the labels",
            caveats,
        )
    return figure


def tuning_curves(runs: Sequence[FineTuned]) -> Figure:
    """Draws training loss and validation macro-F1 of fine-tunings over the epochs; a ring marks the epoch that was kept."""
    looks = list(
        dict.fromkeys(
            (one.prediction.dataset, one.prediction.protocol, one.prediction.backbone)
            for one in runs
        )
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.3))
        for run in runs:
            one, curve = run.prediction, run.curve
            i = looks.index((one.dataset, one.protocol, one.backbone))
            look = {"color": colour_of(i), "marker": marker_of(i), "ms": 3.5, "lw": 1.2}
            label = f"{one.dataset}, {one.protocol}, {label_of(one.backbone)}"
            known = axes[0].get_legend_handles_labels()[1]
            axes[0].plot(
                curve["epoch"], curve["loss"], **look, label=None if label in known else label
            )
            axes[1].plot(curve["epoch"], 100 * curve["f1_macro"], **look)
            best = curve.loc[curve["f1_macro"].idxmax()]
            axes[1].plot(
                best["epoch"], 100 * best["f1_macro"], "o", mfc="none", mec=look["color"], ms=10
            )
        for axis, title in zip(
            axes, ("training loss", "macro-F1 % on validation (ring: kept)"), strict=True
        ):
            axis.set(title=title, xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.25)
        legend_below(figure, axes[0])
        seeds = sorted({run.prediction.seed for run in runs})
        titled(figure, f"Fine-tuning, seed {', '.join(map(str, seeds))}", runs[0].prediction.caveat)
    return figure


def forest(rows: pd.DataFrame, *, protocol: str) -> Figure:
    """Draws every published number of RadioDINO and, on the same line, what was measured on the
    same dataset.

    Args:
        rows: Result rows.
        protocol: Of the measured ones; of segmentation the first one counts.
    """
    lines = compare_published(rows).drop_duplicates(["dataset", "task", "metric"])
    shown = over_seeds(rows[(rows["protocol"] == protocol) | (rows["task"] == "segmentation")])
    shown = shown[shown["split"] == "test"]
    backbones = list(shown["backbone"].unique())
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.2, 0.26 * len(lines) + 1.6))
        axis.plot(
            100 * lines["published"],
            range(len(lines)),
            "D",
            color="black",
            mfc="white",
            ms=6,
            label="published (RadioDINO)",
        )
        for i, backbone in enumerate(backbones):
            of_backbone = shown[shown["backbone"] == backbone]
            found = [
                of_backbone[_is_same(of_backbone, line)].assign(place=place)
                for place, line in enumerate(lines.itertuples())
            ]
            found = pd.concat(found).drop_duplicates("place")
            place = found["place"] + 0.5 * ((i + 1) / (len(backbones) + 1) - 0.5)
            axis.hlines(
                place, 100 * found["ci_low"], 100 * found["ci_high"], color=colour_of(i), lw=1.5
            )
            if len(found):
                axis.plot(
                    100 * found["value"],
                    place,
                    marker_of(i),
                    color=colour_of(i),
                    ms=4,
                    label=label_of(backbone),
                )
        labels = lines["metric"].map(METRIC_LABELS).fillna("Dice").str.removesuffix(" %")
        names = lines["dataset"] + ", " + labels + " (" + lines["model"] + ")"
        axis.set(
            yticks=range(len(lines)),
            yticklabels=names,
            xlabel="%",
            xlim=(0, 102),
            ylim=(len(lines) - 0.5, -0.5),
        )
        axis.grid(axis="x", alpha=0.25)
        legend_below(figure, axis)
        titled(
            figure,
            f"Published numbers and what was measured on the same dataset (protocol {protocol}, 95 % intervals)",
        )
    return figure


def _is_same(rows: pd.DataFrame, line: object) -> pd.Series:
    task = "segmentation" if line.task == "segmentation" else "classification"
    return (
        rows["dataset"].isin(places(line.dataset))
        & (rows["metric"] == line.metric)
        & (rows["task"] == task)
    )
