"""Figures of explanations: maps over images on the patch grid, patch colours, scores of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from ..explain.attention import Attention, mass_masks
from ..explain.faithfulness import CONTROLS, METRICS
from ..explain.patches import PatchColours
from .style import (
    add_title,
    draw_backbones,
    legend_below,
    styled,
)

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_OUTLINE, _FRAME = "#56B4E9", "#00FF7F"
_PANELS_PER_ROW = 5
_MAPS = (
    "Each map has one value per patch and lies over its image. All maps of the sheet share the "
    "scale on the right. A map has a meaning only where it differs from that of random weights."
)


@dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Attributes:
        title: Title of the panel.
        image: uint8, [height, width] or [height, width, 3].
        map: Map over the image, [grid height, grid width], or colours,
            [grid height, grid width, 3]; `None` for none.
        outlines: Masks whose borders are drawn, in pixels or patches, bool, [height, width].
        grid: Rows and columns of the patch grid; by default that of the map.
        patch: Row and column of a patch to frame.
    """

    title: str
    image: np.ndarray
    map: np.ndarray | None = None
    outlines: Sequence[np.ndarray] = ()
    grid: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None

    @property
    def scalar_map(self) -> np.ndarray | None:
        """The map if it holds values, `None` if it holds colours or there is none."""
        return self.map if self.map is not None and self.map.ndim == 2 else None


@styled
def map_sheet(
    rows: Mapping[str, Sequence[Panel]],
    *,
    title: str,
    label: str = "times the map's mean",
    top: float | None = 3.0,
    caveat: str = "",
    caption: str = _MAPS,
) -> Figure:
    """Draw rows of panels, all maps on one colour scale, with the patch grid over the images.

    Under a map the image is dimmed, so that the colours of the map can be read by the scale.

    Args:
        rows: Panels of each row by its name, which is written at its left.
        title: Title of the figure.
        label: Label of the colour bar.
        top: Upper end of the colour scale, after each map is divided by its mean; `None` leaves the
            maps as they are, and the scale reaches from the smallest to the largest value.
        caveat: Caveat to display below the title.
        caption: Sentences that say how to read the figure.
    """
    columns = max(len(panels) for panels in rows.values())
    if top is not None:
        rows = {name: [_over_mean(panel) for panel in panels] for name, panels in rows.items()}
    heights = [max(_aspect(panel) for panel in panels) for panels in rows.values()]
    size = (1.75 * columns + 0.9, sum(1.7 * height + 0.3 for height in heights) + 0.5)
    layout = {"figsize": size, "squeeze": False, "height_ratios": heights}
    figure, axes = plt.subplots(len(rows), columns, **layout)
    maps = [panel.scalar_map for panels in rows.values() for panel in panels]
    low, high, greatest = _colour_scale([map_ for map_ in maps if map_ is not None], top)
    titles_above: list[str] = []
    scale = None
    for axes_row, (name, panels) in zip(axes, rows.items(), strict=True):
        for axis in axes_row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        axes_row[0].set_ylabel(name, fontsize=8)
        titles = [panel.title for panel in panels]
        for axis, panel in zip(axes_row, panels, strict=False):
            scale = _draw_panel(axis, panel, low, high) or scale
            axis.set_title("" if titles == titles_above else panel.title, fontsize=8)
        titles_above = titles
    if scale is not None:
        look = {"shrink": min(0.9, 2.6 / size[1] + 0.5), "aspect": 25, "label": label}
        extend = "max" if greatest > high else "neither"
        bar = figure.colorbar(scale, ax=axes, extend=extend, **look)
        bar.solids.set_alpha(1)
    add_title(figure, title, caveat, kind="Sheet of images", caption=caption)
    return figure


def _over_mean(panel: Panel) -> Panel:
    """Return the panel with its map divided by the mean of the map."""
    map_ = panel.scalar_map
    return panel if map_ is None else replace(panel, map=map_ / max(map_.mean(), 1e-12))


def _aspect(panel: Panel) -> float:
    return panel.image.shape[0] / panel.image.shape[1]


def _colour_scale(maps: Sequence[np.ndarray], top: float | None) -> tuple[float, float, float]:
    """Return both ends of the colour scale and the greatest value of the maps."""
    if not maps:
        return 0.0, 1.0, 1.0
    smallest, greatest = min(map(np.min, maps)), max(map(np.max, maps))
    return (smallest, greatest, greatest) if top is None else (0.0, top, greatest)


def _draw_panel(axis: Axes, panel: Panel, low: float, high: float) -> ScalarMappable | None:
    """Draw one panel and return the layer that the colour bar belongs to."""
    height, width = panel.image.shape[:2]
    layer, grid = None, panel.grid
    image = panel.image if panel.map is None else panel.image // 2
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    if panel.map is not None:
        grid = panel.map.shape[:2]
        look: dict[str, Any] = {
            "extent": (-0.5, width - 0.5, height - 0.5, -0.5),
            "interpolation": "nearest",
        }
        if panel.scalar_map is None:
            axis.imshow(panel.map, **look)
        else:
            layer = axis.imshow(panel.map, alpha=0.7, cmap="inferno", vmin=low, vmax=high, **look)
    if grid:
        _draw_grid(axis, (height, width), grid, panel.patch)
    for outline in panel.outlines:
        _draw_outline(axis, outline, (height, width))
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return layer


def _draw_grid(
    axis: Axes, size: tuple[int, int], grid: tuple[int, int], patch: tuple[int, int] | None
) -> None:
    """Draw the borders of the patches over an image, and a frame around one patch."""
    (height, width), (rows, columns) = size, grid
    for row in range(1, rows):
        axis.axhline(row * height / rows - 0.5, color="white", lw=0.25, alpha=0.35)
    for column in range(1, columns):
        axis.axvline(column * width / columns - 0.5, color="white", lw=0.25, alpha=0.35)
    if patch:
        corner = (patch[1] * width / columns - 0.5, patch[0] * height / rows - 0.5)
        edges = (width / columns, height / rows)
        axis.add_patch(plt.Rectangle(corner, *edges, fill=False, ec=_FRAME, lw=1.5))


def _draw_outline(axis: Axes, mask: np.ndarray, size: tuple[int, int]) -> None:
    """Draw the border of a mask of pixels or patches over an image of a size (height, width)."""
    repeats = [-(-edge // cells) for edge, cells in zip(size, mask.shape, strict=True)]
    pixels = np.kron(mask, np.ones(repeats))
    ys, xs = (np.arange(-1, n + 1) * edge / n for n, edge in zip(pixels.shape, size, strict=True))
    padded = np.pad(pixels, 1)  # so that the outline is closed at the edge of the image
    axis.contour(xs, ys, padded, levels=[0.5], colors=_OUTLINE, linewidths=0.9)


def map_panels(
    image: np.ndarray, maps: Mapping[str, np.ndarray], *, outlines: Sequence[np.ndarray] = ()
) -> list[Panel]:
    """Return a panel of the image and one of each map, with the same outlines on all of them.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        maps: Maps by title, [grid height, grid width] each.
        outlines: See `Panel`.
    """
    panels = [Panel(title, image, map_, outlines) for title, map_ in maps.items()]
    return [Panel("image", image, outlines=outlines), *panels]


def similarity_sheet(
    reference: np.ndarray,
    patch: tuple[int, int],
    similarities: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]],
    titles: Sequence[str],
    *,
    title: str,
    caveat: str = "",
) -> Figure:
    """Draw an image with a chosen patch and the similarity of every patch of other images.

    The most similar patch of each image is framed.

    Args:
        reference: The image with the patch.
        patch: Row and column of the patch; see `patch_at`.
        similarities: By backbone, the result of `patch_similarity` and the images it was given.
        titles: Titles of the other images.
        title: Title of the figure.
        caveat: Caveat to display below the title.
    """
    rows = {}
    for name, (similarity, images) in similarities.items():
        panels = [Panel("the chosen patch", reference, grid=similarity.shape[1:], patch=patch)]
        for image_title, image, map_ in zip(titles, images, similarity, strict=True):
            row, column = np.unravel_index(map_.argmax(), map_.shape)
            panels.append(Panel(image_title, image, map_, patch=(int(row), int(column))))
        rows[label_of(name)] = panels
    caption = (
        "Similarity of each patch to the framed one of the first image. The frame in another image "
        "is its most similar patch."
    )
    look: dict[str, Any] = {"label": "cosine similarity", "top": None, "caption": caption}
    return map_sheet(rows, title=title, caveat=caveat, **look)


def attention_heads(
    attention: Attention, *, title: str, block: int = 0, share: float = 0.6, caveat: str = ""
) -> Figure:
    """Draw the attention of each head and their mean over the image.

    The smallest set of patches that holds a share of the attention is outlined.

    Args:
        attention: Result of `attention_maps`.
        title: Title of the figure: the backbone and the image.
        block: Which of the computed blocks.
        share: Share of the attention that the outlined patches hold; see `mass_masks`.
        caveat: Caveat to display below the title.
    """
    heads = attention.maps[block]
    maps = {f"head {i + 1}": map_ for i, map_ in enumerate(heads)}
    maps["mean of heads"] = heads.mean(0)
    panels = [Panel("image", attention.image)]
    for name, map_ in maps.items():
        panels.append(Panel(name, attention.image, map_, [mass_masks(map_, share)]))
    starts = range(0, len(panels), _PANELS_PER_ROW)
    rows = {" " * start: panels[start : start + _PANELS_PER_ROW] for start in starts}
    percent = f"{100 * share:.0f}\u00a0%"
    title = f"{title}. Outlined: the fewest patches that hold {percent} of a head's attention"
    caption = (
        "Attention of the class token to each patch, by head; 1 is what even attention gives. "
        f"The outline holds {percent} of it in the fewest patches: a small one is a focused head."
    )
    return map_sheet(
        rows, title=title, label="times even attention", caveat=caveat, caption=caption
    )


def colour_sheet(colours: Mapping[str, PatchColours], *, title: str, caveat: str = "") -> Figure:
    """Draw images and, below, their patches in colours, a row per backbone.

    Args:
        colours: Results of `patch_pca` by backbone, of the same images.
        title: Title of the figure.
        caveat: Caveat to display below the title.
    """
    first = next(iter(colours.values()))
    rows = {"image": [Panel("", image) for image in first.images]}
    for name, coloured in colours.items():
        shares = ", ".join(f"{100 * share:.0f}" for share in coloured.shares)
        pairs = zip(coloured.images, coloured.colours, strict=True)
        rows[f"{label_of(name)}\nR, G, B: {shares} %"] = [Panel("", *pair) for pair in pairs]
    caption = (
        "The first three principal components of the patch features as red, green and blue, with "
        "their shares of the variance. Patches of one colour have like features."
    )
    return map_sheet(rows, title=title, caveat=caveat, caption=caption)


@styled
def score_intervals(results: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draw the scores of each type of map with 95 % intervals, a panel per score.

    Args:
        results: Rows of `explanation_rows`, of one or several backbones.
        caveat: Caveat to display below the title.
    """
    maps, backbones = results["protocol"].unique(), results["backbone"].unique()
    names = [f"{name} (control)" if name in CONTROLS else name for name in maps]
    size = (2.7 * len(METRICS) + 1, 0.32 * len(maps) + 1.6)
    figure, axes = plt.subplots(1, len(METRICS), figsize=size, sharey=True)
    for axis, (metric, name) in zip(axes, METRICS.items(), strict=True):
        of_metric = results[results["metric"] == metric]
        draw_backbones(axis, of_metric, maps, backbones, key="protocol", labels=names)
        axis.set(title=name, xlabel="probability %" if metric == "road" else "share %")
        axis.axvline(0, color="0.6", lw=0.8)
    legend_below(figure, axes[0])
    n = " to ".join(map(str, dict.fromkeys((results["n"].min(), results["n"].max()))))
    title = f"How good are the maps? Mean over n = {n} images, 95 % intervals; more is better"
    caption = (
        "Points are means over the images and lines their 95 % intervals. A kind of map that is no "
        "better than the controls explains nothing by this score."
    )
    add_title(figure, title, caveat, kind="Points with intervals", caption=caption)
    return figure
