"""Curves of classification: over k, labels per class, epochs and thresholds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.finetuning import FineTuned
from ..evaluation.metrics import BINS, classification_metrics, reliability
from ..evaluation.predictions import Prediction
from ..evaluation.results import METRIC_LABELS, label_of, notes, over_seeds
from .style import (
    add_title,
    colour_of,
    draw_chance,
    legend_below,
    marker_of,
    styled,
    wrapped,
)

with extra("evaluation"):
    from sklearn.metrics import roc_curve

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)


@styled
def k_curves(
    curves: pd.DataFrame,
    chosen: Mapping[tuple[str, str], int],
    *,
    metric: str = "accuracy",
    classes: Mapping[str, int] | None = None,
    caveat: str = "",
) -> Figure:
    """Draw a metric over k with 95 % intervals, per dataset; a ring marks the k chosen on val.

    Args:
        curves: Rows of `curve_rows`, of one or several datasets and backbones.
        chosen: The k chosen on validation by (dataset, backbone).
        metric: Name of the metric.
        classes: Number of classes by dataset, for the line of chance.
        caveat: Caveat to display below the title.
    """
    curves = curves[curves["metric"] == metric]
    datasets, backbones = curves["dataset"].unique(), curves["backbone"].unique()
    ticks = sorted(curves["k"].unique())
    size = (2.7 * len(datasets) + 0.6, 3.2)
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        of_dataset = curves[curves["dataset"] == dataset]
        for i, backbone in enumerate(backbones):
            curve = of_dataset[of_dataset["backbone"] == backbone]
            best = chosen.get((dataset, backbone))
            _draw_k_curve(axis, curve.sort_values("k"), best, i=i, label=label_of(backbone))
        draw_chance(axis, metric, (classes or {}).get(dataset))
        axis.set(xlabel="k, number of neighbours", title=wrapped(dataset, 2.6))
        _log_ticks(axis, ticks)
        axis.tick_params(axis="x", labelsize=8)
    axes[0, 0].set_ylabel(METRIC_LABELS.get(metric, f"{metric} %"))
    legend_below(figure, axes[0, 0])
    meaning = (
        "solid: test, with 95 % interval; dashed: validation; ring: the k chosen on validation"
    )
    caption = (
        "Solid lines with their 95 % bands are the test split, dashed ones the validation split. "
        "The ring marks the k that was chosen on validation; the test curve is not used for it."
    )
    title = f"Weighted kNN over k ({meaning})"
    add_title(figure, title, caveat, kind="Line chart", caption=caption)
    return figure


def _draw_k_curve(
    axis: Axes, curve: pd.DataFrame, chosen: int | None, *, i: int, label: str
) -> None:
    """Draw the curves of one backbone on the validation and the test split."""
    colour = colour_of(i)
    look: dict[str, Any] = {"color": colour, "marker": marker_of(i), "ms": 3.5}
    val, test = (curve[curve["split"] == split] for split in ("val", "test"))
    axis.plot(val["k"], 100 * val["value"], "--", **look)
    best = val[val["k"] == chosen]
    axis.plot(best["k"], 100 * best["value"], "o", mfc="none", mec=colour, ms=10)
    axis.plot(test["k"], 100 * test["value"], "-", **look, label=label)
    interval = (100 * test["ci_low"], 100 * test["ci_high"])
    axis.fill_between(test["k"], *interval, color=colour, alpha=0.12, lw=0)


def _log_ticks(axis: Axes, ticks: Sequence[int]) -> None:
    axis.set(xscale="log", xticks=ticks, xticklabels=ticks)
    axis.minorticks_off()
    axis.grid(alpha=0.25)


@styled
def few_shot_curves(
    results: pd.DataFrame, *, metric: str = "accuracy", classes: Mapping[str, int] | None = None
) -> Figure:
    """Draw a metric over the labels per class: mean and standard deviation over the draws.

    Args:
        results: Result rows; those of other protocols are ignored, and so are few-shot protocols
            whose name has a suffix.
        metric: Name of the metric.
        classes: Number of classes by dataset, for the line of chance.
    """
    is_shown = results["protocol"].str.fullmatch(r"fewshot-\d+-\w+") & (results["metric"] == metric)
    results = over_seeds(results[is_shown])
    results[["shots", "method"]] = results["protocol"].str.extract(r"fewshot-(\d+)-(\w+)")
    results = results.astype({"shots": int})
    datasets, ticks = results["dataset"].unique(), sorted(results["shots"].unique())
    size = (3.6 * len(datasets) + 1.6, 3.6)
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        _draw_few_shot(axis, results, dataset)
        draw_chance(axis, metric, (classes or {}).get(dataset))
        axis.set(xlabel="labels per class", title=wrapped(dataset, 3.5))
        _log_ticks(axis, ticks)
    axes[0, 0].set_ylabel(METRIC_LABELS[metric])
    legend_below(figure, axes[0, 0], "backbone, method")
    draws = results["runs"].max()
    title = f"Few-shot: mean and standard deviation over {draws} draws of the labels"
    caption = (
        "The left end says how much a backbone gives away with hardly any labels. Bars are the "
        "standard deviation over the draws of the labels, not an interval over test images."
    )
    add_title(figure, title, notes(results), kind="Line chart", caption=caption)
    return figure


def _draw_few_shot(axis: Axes, results: pd.DataFrame, dataset: str) -> None:
    """Draw a line per backbone and method, their error bars side by side."""
    backbones, methods = list(results["backbone"].unique()), list(results["method"].unique())
    of_dataset = results[results["dataset"] == dataset]
    for (backbone, method), curve in of_dataset.groupby(["backbone", "method"], sort=False):
        i, j = backbones.index(backbone), methods.index(method)
        curve = curve.sort_values("shots")
        aside = 1.02 ** (i + len(backbones) * (j - 0.5) - 1)  # a factor: the axis is logarithmic
        axis.errorbar(
            curve["shots"] * aside,
            100 * curve["value"],
            100 * curve["sd"],
            color=colour_of(i),
            marker=marker_of(i),
            ls=("-", "--")[j],
            ms=4,
            lw=1.2,
            capsize=2,
            label=f"{label_of(backbone)}, {method}",
        )


@styled
def tuning_curves(runs: Sequence[FineTuned]) -> Figure:
    """Draw training loss and validation macro-F1 over the epochs; a ring marks the kept epoch.

    Args:
        runs: Results of `finetune`; the seeds of a run share a colour.
    """
    labels = [_run_label(run.prediction) for run in runs]
    distinct = list(dict.fromkeys(labels))
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(7.2, 3.3))
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        i = distinct.index(label)
        curve, best = run.curve, run.curve.loc[run.curve["f1_macro"].idxmax()]
        look = {"color": colour_of(i), "marker": marker_of(i), "ms": 3.5, "lw": 1.2}
        first = label not in labels[:number]
        losses.plot(curve["epoch"], curve["loss"], **look, label=label if first else None)
        scores.plot(curve["epoch"], 100 * curve["f1_macro"], **look)
        ring = {"mfc": "none", "mec": colour_of(i), "ms": 10}
        scores.plot(best["epoch"], 100 * best["f1_macro"], "o", **ring)
    losses.set(title="training loss", xlabel="epoch")
    scores.set(title="macro-F1 % on validation (ring: kept)", xlabel="epoch")
    for axis in (losses, scores):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    legend_below(figure, losses, "dataset, protocol, backbone")
    seeds = dict.fromkeys(str(run.prediction.seed) for run in runs)
    title, caveat = f"Fine-tuning, seed {', '.join(seeds)}", runs[0].prediction.caveat
    caption = (
        "Training loss and macro-F1 on validation over the epochs. The ring marks the epoch that "
        "is kept; a loss that falls while the macro-F1 falls too is over-fitting."
    )
    add_title(figure, title, caveat, kind="Line charts", caption=caption)
    return figure


def _run_label(prediction: Prediction) -> str:
    return f"{prediction.dataset}, {prediction.protocol}, {label_of(prediction.backbone)}"


@styled
def roc_and_reliability(predictions: Sequence[Prediction]) -> Figure:
    """Draw the ROC curve and the reliability diagram of one or several backbones.

    Of more than two classes the ROC curve is the mean of the one-vs-rest curves.

    Args:
        predictions: Predictions of one dataset and protocol, one per backbone.
    """
    first = predictions[0]
    figure, (roc, calibration) = plt.subplots(1, 2, figsize=(7.2, 3.9))
    for i, prediction in enumerate(predictions):
        metrics = classification_metrics(prediction.labels, prediction.probabilities, resamples=0)
        auc, error = (100 * metrics[name].value for name in ("auc", "ece"))
        look = {"color": colour_of(i), "lw": 1.5}
        label = f"{label_of(prediction.backbone)}: AUC {auc:.1f} %"
        roc.plot(100 * _FALSE_POSITIVE_RATES, 100 * _mean_roc(prediction), **look, label=label)
        bins = reliability(prediction.labels, prediction.probabilities)
        points = 100 * bins["confidence"], 100 * bins["accuracy"]
        calibration.plot(*points, **look, label=f"calibration error {error:.1f} %")
        areas = 6 + 90 * bins["n"] / len(prediction.labels)
        calibration.scatter(*points, s=areas, marker=marker_of(i), color=colour_of(i))
    for axis, corner in ((roc, "lower right"), (calibration, "upper left")):
        label = "chance" if axis is roc else "calibrated"
        axis.plot([0, 100], [0, 100], color="0.6", lw=0.8, ls=":", label=label)
        axis.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc=corner, fontsize=8)
    kind = f"positive: {first.positive}" if len(first.classes) == 2 else "mean over classes"
    roc.set_title(wrapped(f"ROC ({kind})", 3.3))
    roc.set(xlabel="100 % − specificity", ylabel="sensitivity %")
    calibration.set(title=f"reliability, {BINS} bins (point size: images)")
    calibration.set(xlabel="confidence %", ylabel="accuracy %")
    caption = (
        "Left, the ROC curve; guessing lies on its diagonal. Right, the accuracy of the images of "
        "each stated confidence: below the diagonal a model is too confident."
    )
    add_title(figure, first.title, first.caveat, kind="ROC and reliability", caption=caption)
    return figure


def _mean_roc(prediction: Prediction) -> np.ndarray:
    """Return the sensitivities at `_FALSE_POSITIVE_RATES`, the mean over classes with images."""
    labels, probabilities = prediction.labels, prediction.probabilities
    is_binary = len(prediction.classes) == 2
    classes = [prediction.positive_label] if is_binary else np.unique(labels)
    curves = [roc_curve(labels == label, probabilities[:, label])[:2] for label in classes]
    return np.mean([np.interp(_FALSE_POSITIVE_RATES, *curve) for curve in curves], axis=0)
