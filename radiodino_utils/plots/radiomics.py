"""Figures of radiomics: stability by family of features, decision and survival curves."""

import numpy as np
import pandas as pd

from ..core.extras import extra
from .style import add_title, colour_of, legend_below, styled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

_LINES = {"treat all": ":", "treat none": "--"}


@styled
def stability_by_family(
    correlations: pd.DataFrame, *, threshold: float = 0.75, caveat: str = ""
) -> Figure:
    """Draw ICC(2,1) of each feature by family, with the median and the share above a threshold.

    Args:
        correlations: Table of `radiomics.feature_correlations`.
        threshold: A feature is stable if its whole interval lies above it.
        caveat: Caveat to display below the title.
    """
    families = correlations["family"].unique()
    figure, axis = plt.subplots(figsize=(7.2, 0.42 * len(families) + 1.4))
    generator = np.random.default_rng(0)
    for place, family in enumerate(families):
        rows = correlations[(correlations["family"] == family) & correlations["icc2"].notna()]
        stable = rows["icc2_low"] >= threshold
        heights = place + generator.uniform(-0.25, 0.25, len(rows))
        for chosen, colour in ((stable, colour_of(0)), (~stable, colour_of(1))):
            axis.plot(rows["icc2"][chosen], heights[chosen], ".", ms=4, alpha=0.5, color=colour)
        axis.plot([rows["icc2"].median()] * 2, [place - 0.35, place + 0.35], "k-", lw=1.5)
        share = f"{stable.sum()} of {len(rows)}"
        axis.text(1.03, place, share, va="center", fontsize=8)
    axis.axvline(threshold, color="0.5", lw=0.8, ls="--")
    axis.set(
        yticks=range(len(families)), yticklabels=families, xlabel="ICC(2,1)", xlim=(-0.2, 1.02)
    )
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.25)
    regions, measurements = correlations[["regions", "measurements"]].iloc[0]
    title = f"Stability of features: {regions} regions, {measurements} measurements each"
    meaning = (
        "Each point is a feature, the line the median of a family. Blue, and counted at the right: "
        f"the whole 95 % interval of ICC(2,1) lies above {threshold:g}."
    )
    add_title(figure, title, caveat, kind="Strip plot", caption=f"{title}. {meaning}")
    return figure


@styled
def decision_curves(curves: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draw the net benefit of models over the threshold probability.

    Args:
        curves: Table of `RadiomicsModels.decision_curves`.
        caveat: Caveat to display below the title.
    """
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    for i, (model, rows) in enumerate(curves.groupby("model", sort=False)):
        colour = "0.5" if model in _LINES else colour_of(i)
        line = _LINES.get(str(model), "-")
        axis.plot(rows["threshold"], rows["net_benefit"], line, color=colour, label=model)
    best = curves["net_benefit"].max()
    axis.set(xlabel="threshold probability", ylabel="net benefit", ylim=(-0.1 * best, 1.1 * best))
    axis.grid(alpha=0.25)
    legend_below(figure, axis, title="model")
    title = "Decision curves of out-of-fold predictions"
    meaning = (
        "Net benefit: true positives per patient, less false positives weighed by the odds of the "
        "threshold; a model helps where it is above treating all and treating none."
    )
    add_title(figure, title, caveat, kind="Line plot", caption=f"{title}. {meaning}")
    return figure


@styled
def survival_curves(curves: pd.DataFrame, *, time: str = "time", caveat: str = "") -> Figure:
    """Draw Kaplan-Meier curves of the patients of low and high risk, with their intervals.

    Args:
        curves: Table of `SurvivalModels.survival_curves`.
        time: Label of the time, with its unit.
        caveat: Caveat to display below the title.
    """
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    for i, (half, rows) in enumerate(curves.groupby("half", sort=False)):
        label, colour = f"{half} (n {rows['at_risk'].iloc[0]})", colour_of(i)
        axis.step(rows["time"], rows["survival"], where="post", color=colour, label=label)
        axis.fill_between(
            rows["time"],
            rows["ci_low"],
            rows["ci_high"],
            step="post",
            color=colour,
            alpha=0.2,
            lw=0,
        )
    axis.set(xlabel=time, ylabel="survival", ylim=(0, 1.02), xlim=(0, None))
    axis.grid(alpha=0.25)
    model = curves["model"].iloc[0]
    legend_below(figure, axis, title="out-of-fold risk")
    title = f"Survival by the risk of the model: {model}"
    meaning = (
        "Kaplan-Meier estimates with 95 % intervals. A patient is of high risk if the risk by a "
        "model that did not see the patient is above the median of its training fold."
    )
    add_title(figure, title, caveat, kind="Line plot", caption=f"{title}. {meaning}")
    return figure
