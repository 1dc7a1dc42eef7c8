"""Figures of explanations: maps over images on the true patch grid, patches in colours, scores of maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..evaluation.results import label_of
from ..explain.attention import Attention, mass_masks
from ..explain.faithfulness import CONTROLS, METRICS
from ..explain.patches import PatchColours
from .style import STYLE, colour_of, legend_below, marker_of, titled

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

_OUTLINE, _CHOICE = "#56B4E9", "#00FF7F"


@dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Attributes:
        title: Above it.
        image: uint8, [height, width] or [height, width, 3].
        map: Over the image, [grid height, grid width] or, as colours, [grid height, grid width, 3];
            `None` for none.
        outlines: Masks in pixels or patches whose borders are drawn, bool, [height, width].
        grid: Rows and columns of the patch grid; that of the map where there is one.
        patch: Row and column of a patch that is framed.
    """

    title: str
    image: np.ndarray
    map: np.ndarray | None = None
    outlines: Sequence[np.ndarray] = ()
    grid: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None


def map_sheet(
    lines: Mapping[str, Sequence[Panel]],
    *,
    title: str,
    label: str = "times the map's mean",
    top: float | None = 3.0,
    caveat: str = "",
) -> Figure:
    """Draws panels in lines, all maps of the sheet on one colour scale, with the patch grid over
    the images.

    Under a map the image is dimmed, so that the map's colours can be read by the scale.

    Args:
        lines: The panels of each line by its name, which stands at its left.
        title: Above the figure.
        label: Of the colour bar.
        top: Upper end of the colour scale, after each map is divided by its mean; `None`: the maps
            as they are, from the least to the greatest value.
        caveat: Below the title.
    """
    columns = max(len(panels) for panels in lines.values())
    if top is not None:
        lines = {name: [_relative(panel) for panel in panels] for name, panels in lines.items()}
    values = [
        panel.map.ravel() for panels in lines.values() for panel in panels if _is_scalar(panel.map)
    ]
    low, high = (
        (0.0, top) if top is not None else (min(map(np.min, values)), max(map(np.max, values)))
    )
    tallest = [
        max(panel.image.shape[0] / panel.image.shape[1] for panel in panels)
        for panels in lines.values()
    ]
    with plt.rc_context(STYLE):
        size = (1.75 * columns + 0.9, sum(1.7 * one + 0.3 for one in tallest) + 0.5)
        figure, axes = plt.subplots(
            len(lines), columns, figsize=size, squeeze=False, height_ratios=tallest
        )
        layer, above = None, []
        for line, (name, panels) in zip(axes, lines.items(), strict=True):
            for axis in line:
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            line[0].set_ylabel(name, fontsize=8)
            titles = [panel.title for panel in panels]
            for axis, panel in zip(line, panels, strict=False):
                layer = _draw(axis, panel, low, high) or layer
                axis.set_title("" if titles == above else panel.title, fontsize=8)
            above = titles
        if layer is not None:
            extend = "max" if max(map(np.max, values)) > high else "neither"
            bar = figure.colorbar(
                layer,
                ax=axes,
                shrink=min(0.9, 2.6 / size[1] + 0.5),
                aspect=25,
                extend=extend,
                label=label,
            )
            bar.solids.set_alpha(1)
        titled(figure, title, caveat)
    return figure


def _is_scalar(map_: np.ndarray | None) -> bool:
    return map_ is not None and map_.ndim == 2


def _relative(panel: Panel) -> Panel:
    return (
        replace(panel, map=panel.map / max(panel.map.mean(), 1e-12))
        if _is_scalar(panel.map)
        else panel
    )


def _draw(axis: plt.Axes, panel: Panel, low: float, high: float) -> plt.cm.ScalarMappable | None:
    """Draws one panel and gives the layer that the colour bar belongs to."""
    height, width = panel.image.shape[:2]
    axis.imshow(
        panel.image if panel.map is None else panel.image // 2, cmap="gray", vmin=0, vmax=255
    )
    layer, grid = None, panel.grid
    if panel.map is not None:
        grid = panel.map.shape[:2]
        look = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "nearest"}
        if _is_scalar(panel.map):
            layer = axis.imshow(panel.map, alpha=0.7, cmap="inferno", vmin=low, vmax=high, **look)
        else:
            axis.imshow(panel.map, **look)
    if grid:
        rows, columns = grid
        for i in range(1, rows):
            axis.axhline(i * height / rows - 0.5, color="white", lw=0.25, alpha=0.35)
        for i in range(1, columns):
            axis.axvline(i * width / columns - 0.5, color="white", lw=0.25, alpha=0.35)
        if panel.patch:
            place = (panel.patch[1] * width / columns - 0.5, panel.patch[0] * height / rows - 0.5)
            axis.add_patch(
                plt.Rectangle(place, width / columns, height / rows, fill=False, ec=_CHOICE, lw=1.5)
            )
    for outline in panel.outlines:
        fine = np.kron(
            outline, np.ones((-(-height // outline.shape[0]), -(-width // outline.shape[1])))
        )  # patches to pixels
        xs, ys = (
            np.arange(-1, n + 1) * edge / n
            for n, edge in zip(fine.shape[::-1], (width, height), strict=True)
        )
        axis.contour(
            xs, ys, np.pad(fine, 1), levels=[0.5], colors=_OUTLINE, linewidths=0.9
        )  # padded: closed at the edge
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return layer


def map_panels(
    image: np.ndarray, maps: Mapping[str, np.ndarray], *, outlines: Sequence[np.ndarray] = ()
) -> list[Panel]:
    """A panel of the image and one of each map, with the same outlines on all of them."""
    return [
        Panel("image", image, outlines=outlines),
        *(Panel(n, image, one, outlines) for n, one in maps.items()),
    ]


def similarity_sheet(
    reference: np.ndarray,
    patch: tuple[int, int],
    lines: Mapping[str, tuple[np.ndarray, Sequence[np.ndarray]]],
    titles: Sequence[str],
    *,
    title: str,
    caveat: str = "",
) -> Figure:
    """Draws a image with a chosen patch and, beside it, how like every patch of other images is;
    the best is framed.

    Args:
        reference: The image with the patch.
        patch: Row and column of the patch, see `patch_at`.
        lines: By backbone, what `patch_similarity` gives and the images that it was given.
        titles: Of the other images.
        title: Above the figure.
        caveat: Below the title.
    """
    drawn = {}
    for name, (similarity, images) in lines.items():
        panels = [Panel("the chosen patch", reference, grid=similarity.shape[1:], patch=patch)]
        for text, image, one in zip(titles, images, similarity, strict=True):
            panels.append(Panel(text, image, one, patch=np.unravel_index(one.argmax(), one.shape)))
        drawn[label_of(name)] = panels
    return map_sheet(drawn, title=title, label="cosine similarity", top=None, caveat=caveat)


def attention_heads(
    attention: Attention, *, title: str, block: int = 0, share: float = 0.6, caveat: str = ""
) -> Figure:
    """Draws a image and, over it, where each head of the class token looks, with the patches that
    hold most of it.

    Args:
        attention: What `attention_maps` gives.
        title: Above the figure: the backbone and the image.
        block: Which of the computed blocks.
        share: Of the mass that the outlined patches hold, see `mass_masks`.
        caveat: Below the title.
    """
    named = [(f"head {i + 1}", one) for i, one in enumerate(attention.maps[block])]
    named.append(("mean of heads", attention.maps[block].mean(0)))
    panels = [Panel("image", attention.image)]
    panels += [Panel(name, attention.image, one, [mass_masks(one, share)]) for name, one in named]
    lines = {"" if i == 0 else " " * i: panels[i : i + 5] for i in range(0, len(panels), 5)}
    return map_sheet(
        lines,
        title=f"{title}. Outlined: the fewest patches that hold {100 * share:.0f}\u00a0% of a head's attention",
        label="times even attention",
        caveat=caveat,
    )


def colour_sheet(found: Mapping[str, PatchColours], *, title: str, caveat: str = "") -> Figure:
    """Draws images and, below, their patches in colours, a line a backbone.

    Args:
        found: What `patch_pca` gives, by backbone, of the same images.
        title: Above the figure.
        caveat: Below the title.
    """
    first = next(iter(found.values()))
    lines = {"image": [Panel("", image) for image in first.images]}
    for name, one in found.items():
        shares = ", ".join(f"{100 * share:.0f}" for share in one.shares)
        panels = [
            Panel("", image, colours)
            for image, colours in zip(one.images, one.colours, strict=True)
        ]
        lines[f"{label_of(name)}\nR, G, B: {shares} %"] = panels
    return map_sheet(lines, title=title, caveat=caveat)


def score_intervals(rows: pd.DataFrame, *, caveat: str = "") -> Figure:
    """Draws the scores of every type of map with 95 % intervals, a panel a score, backbones side by
    side.

    Args:
        rows: What `faithfulness.explanation_rows` gives, of several backbones.
        caveat: Below the title.
    """
    maps, backbones = list(rows["protocol"].unique()), rows["backbone"].unique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(METRICS), figsize=(2.7 * len(METRICS) + 1, 0.32 * len(maps) + 1.6), sharey=True
        )
        for axis, (metric, name) in zip(axes, METRICS.items(), strict=True):
            for i, backbone in enumerate(backbones):
                keys = (rows["backbone"] == backbone) & (rows["metric"] == metric)
                one = rows[keys].set_index("protocol").reindex(maps)
                place = np.arange(len(maps)) + 0.5 / len(backbones) * (i - (len(backbones) - 1) / 2)
                axis.hlines(place, one["ci_low"], one["ci_high"], color=colour_of(i), lw=1.5)
                look = {"color": colour_of(i), "ms": 5, "label": label_of(backbone)}
                axis.plot(one["value"], place, marker_of(i), **look)
            names = [f"{one} (control)" if one in CONTROLS else one for one in maps]
            axis.set(
                title=name, yticks=range(len(maps)), yticklabels=names, ylim=(len(maps) - 0.5, -0.5)
            )
            axis.set_xlabel("probability" if metric == "road" else "share")
            axis.axvline(0, color="0.6", lw=0.8)
            axis.grid(axis="x", alpha=0.25)
        legend_below(figure, axes[0])
        n = " to ".join(map(str, dict.fromkeys((rows["n"].min(), rows["n"].max()))))
        titled(
            figure,
            f"How good are the maps? Mean over n = {n} images, 95 % intervals; more is better",
            caveat,
        )
    return figure
