"""Figures of embeddings: explained variance and two-dimensional projections."""

import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from .style import COLOURS, MARKERS, add_title, colour_of, legend_below, marker_of, styled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure


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
    add_title(figure, "Scree: variance of the L2-normalised embeddings", caveat)
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
    look = _class_look(points["class"])
    size = (2.7 * len(datasets) + 0.3, 2.55 * len(backbones) + 1.2)
    figure, axes = plt.subplots(len(backbones), len(datasets), figsize=size, squeeze=False)
    name = method.upper()
    for row, backbone in zip(axes, backbones, strict=True):
        for axis, dataset in zip(row, datasets, strict=True):
            shown = points[(points["dataset"] == dataset) & (points["backbone"] == backbone)]
            columns = {"x": f"{method}1", "y": f"{method}2", "hue": "class", "style": "class"}
            sns.scatterplot(shown, **columns, **look, s=10, lw=0, alpha=0.75, ax=axis)
            axis.set_aspect("equal", adjustable="datalim")
            handles = axis.get_legend_handles_labels()
            axis.get_legend().remove()
            axis.set(xticks=[], yticks=[], title=f"{dataset}\n{label_of(backbone)}")
            axis.set(xlabel=f"{name} 1", ylabel=f"{name} 2" if axis is row[0] else "")
    figure.legend(*handles, loc="outside lower center", ncols=2 * len(datasets), frameon=False)
    add_title(figure, f"{name} of the embeddings, every image of every split", caveat)
    return figure


def _class_look(labels: pd.Series) -> dict[str, object]:
    """Return the options of seaborn that give each class its own colour and marker.

    Points are drawn in the order of the dataset, so that no class lies on top of the others.
    """
    classes = sorted(labels.unique(), key=_number_or_name)
    markers = [MARKERS[i // len(COLOURS) % len(MARKERS)] for i in range(len(classes))]
    return {
        "palette": {name: colour_of(i) for i, name in enumerate(classes)},
        "markers": dict(zip(classes, markers, strict=True)),
        "hue_order": classes,
        "style_order": classes,
    }


def _number_or_name(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (0, name)
