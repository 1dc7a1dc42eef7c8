"""Figure of the Dice that near duplicates across splits buy."""

import pandas as pd

from ..core.extras import extra
from ..evaluation.segmentation.twins import DEDUPLICATED, TRAIN_DEDUPLICATED
from .style import add_title, draw_backbones, legend_below, styled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

_PANELS = {
    DEDUPLICATED: "tested without the images that have a twin",
    TRAIN_DEDUPLICATED: "fitted without the twins, tested on the same images",
}


@styled
def twin_points(points: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draw by how many points Dice falls without near duplicates across splits.

    A row of panels per dataset with near duplicates in another split, a column per comparison.

    Args:
        points: Table of `evaluation.twin_points`, of one seed.
        caveat: Caveat to display below the title.
    """
    points = points[points["with_twin"] > 0].rename(columns={"difference": "value"})
    datasets, backbones = points["dataset"].unique(), points["backbone"].unique()
    protocols = points["protocol"].unique()
    probes = [protocol.removeprefix("seg-") for protocol in protocols]
    size = (8.6, 0.8 + len(datasets) * (0.5 + 0.5 * len(protocols)))
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(len(datasets), len(_PANELS), figsize=size, **shared)
    for row, dataset in zip(axes, datasets, strict=True):
        of_dataset = points[points["dataset"] == dataset]
        images, with_twin = of_dataset[["images", "with_twin"]].iloc[0]
        about = f"{dataset}\n{with_twin} of {images}\nhave a twin"
        row[0].set_ylabel(about, rotation=0, ha="right", va="center")
        for axis, comparison in zip(row, _PANELS, strict=True):
            compared = of_dataset[of_dataset["comparison"] == comparison]
            draw_backbones(axis, compared, protocols, backbones, key="protocol", labels=probes)
            axis.axvline(0, color="0.6", lw=0.8, zorder=0)
    for axis, title in zip(axes[0], _PANELS.values(), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("Dice with twins minus Dice without, points")
    legend_below(figure, axes[0, 0])
    title = "Points of Dice bought by near duplicates of test images, with paired 95 % intervals"
    reading = (
        "A point right of zero says that Dice is higher with near duplicates in the data. On the "
        "left the network is the same and the test images differ; on the right the network was "
        "fitted without the near duplicates and the test images are the same."
    )
    add_title(figure, title, caveat, kind="Points with intervals", caption=reading)
    return figure
