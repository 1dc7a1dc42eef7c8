"""Figures of embeddings: explained variance and two-dimensional projections."""

import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from .style import add_title, class_looks, colour_of, legend_below, marker_of, styled, wrapped

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure

_READING = {
    "pca": "The two directions of largest variance: distances can be read.",
    "umap": "Near neighbours lie near; distances between clusters have no meaning.",
}


@styled
def scree(variances: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draw the cumulative share of variance over the principal components, per dataset.

    Args:
        variances: Rows of `explained_variance`, of one or several datasets and backbones.
        caveat: Caveat to display below the title.
    """
    datasets, backbones = variances["dataset"].unique(), variances["backbone"].unique()
    size = (2.7 * len(datasets) + 0.4, 2.9)
    figure, axes = plt.subplots(1, len(datasets), figsize=size, sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        of_dataset = variances[variances["dataset"] == dataset]
        for i, backbone in enumerate(backbones):
            curve = of_dataset[of_dataset["backbone"] == backbone]
            look = {"color": colour_of(i), "marker": marker_of(i), "ms": 3.5}
            percent = 100 * curve["cumulative"]
            axis.plot(curve["component"], percent, **look, label=label_of(backbone))
        axis.set(title=dataset, xlabel="principal components", ylim=(0, 103))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("cumulative variance %")
    legend_below(figure, axes[0, 0])
    caption = (
        "Share of the variance of the L2-normalised embeddings that the first principal components "
        "hold together. A steep curve means that few directions hold most of it."
    )
    title = "Scree: variance of the L2-normalised embeddings"
    add_title(figure, title, caveat, kind="Line chart", caption=caption)
    return figure


@styled
def scatter_grid(points: pd.DataFrame, *, method: str, caveat: str = "") -> Figure:
    """Draw the projected images by class, a row per backbone and a column per dataset.

    Args:
        points: Rows of `project`, of one or several datasets and backbones.
        method: "pca" or "umap".
        caveat: Caveat to display below the title.
    """
    datasets, backbones = points["dataset"].unique(), points["backbone"].unique()
    points = points.astype({"class": str})
    looks = class_looks(points["class"])
    look = {
        "palette": {name: colour for name, (colour, _) in looks.items()},
        "markers": {name: marker for name, (_, marker) in looks.items()},
        "hue_order": list(looks),  # points keep the order of the dataset: no class lies on top
        "style_order": list(looks),
    }
    size = (max(2.7 * len(datasets) + 0.3, 3.6), 2.55 * len(backbones) + 1.2)
    figure, axes = plt.subplots(len(backbones), len(datasets), figsize=size, squeeze=False)
    name = method.upper()
    for row, backbone in zip(axes, backbones, strict=True):
        for axis, dataset in zip(row, datasets, strict=True):
            shown = points[(points["dataset"] == dataset) & (points["backbone"] == backbone)]
            columns = {"x": f"{method}1", "y": f"{method}2", "hue": "class", "style": "class"}
            sns.scatterplot(shown, **columns, **look, s=10, lw=0, alpha=0.75, ax=axis)
            axis.set_aspect("equal", adjustable="datalim")
            handles = axis.get_legend_handles_labels()[0]
            axis.get_legend().remove()
            title = "\n".join(wrapped(line, 2.6) for line in (dataset, label_of(backbone)))
            axis.set(xticks=[], yticks=[], title=title)
            axis.set(xlabel=f"{name} 1", ylabel=f"{name} 2" if axis is row[0] else "")
    legend_below(figure, handles, "class")
    title = f"{name} of the embeddings, every image of every split"
    caption = f"{_READING[method]} Each mark is one image; colours and markers are its true class."
    add_title(figure, title, caveat, kind="Scatter plots", caption=caption)
    return figure
