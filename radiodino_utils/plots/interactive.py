"""The interactive map: embeddings with their images, as one HTML page that needs no network."""

import base64
import io
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..core.errors import InputError
from ..core.extras import extra
from ..data.dataset import ImageDataset
from ..evaluation.knn import knn_probabilities
from ..evaluation.labels import label_of
from ..evaluation.neighbours import nearest
from ..features.features import Features
from .style import COLOURS, MARKERS, class_looks

_EDGE = 48  # greatest edge of a thumbnail in pixels
_NEIGHBOURS = 5
_K = 20  # neighbours that vote for the class, as in the protocol knn-k20
_LIMIT = 20_000  # images of a map; the page of more would not open in seconds
_MARKERS = dict(zip(MARKERS, ("circle", "triangle", "square", "diamond", "plus"), strict=True))
_METHODS = ("pca", "umap")


def interactive_map(
    dataset: ImageDataset,
    features: Sequence[Features],
    points: pd.DataFrame,
    *,
    columns: pd.DataFrame | None = None,
    seed: int = 0,
) -> str:
    """Return a page of the embeddings by PCA and UMAP, with the image under the pointer.

    Points are coloured by class, split, patient, prediction, correctness, cluster or any further
    column; a lasso selects images, whose ids the page exports as CSV. The prediction is DINO's
    weighted vote of the 20 nearest training images, the image itself left out.

    Args:
        dataset: Dataset of the images.
        features: Its features, of one or several backbones.
        points: Rows of `project` that include those of the features, and perhaps a column
            `cluster`. Their classes, those of other datasets too, decide the colours.
        columns: Further columns to colour by, with image ids as the index.
        seed: Seed of the sample that is drawn of more than 20 000 images.

    Returns:
        HTML, in which every name is escaped.

    Raises:
        InputError: If features or points are of another dataset.
    """
    with extra("notebooks"):
        from jinja2 import Environment

    table, images = _images(dataset)
    rows = np.arange(len(table))
    if len(rows) > _LIMIT:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _LIMIT, replace=False))
    if columns is not None:
        table = table.join(columns.drop(columns=list(table), errors="ignore"), on="id")
    views = {label_of(entry.backbone): _view(entry, points, table, rows) for entry in features}
    shown = table.iloc[rows].reset_index(drop=True)
    looks = class_looks(points["class"].astype(str))  # as in `scatter_grid` of the same points
    sprite, edge = _sprite(images, rows)
    data = {
        "columns": {name: _plain(shown[name]) for name in shown},
        "views": views,
        "looks": {name: colour for name, (colour, _) in looks.items()},
        "colours": COLOURS,
        "edge": edge,
        "tiles": _tiles(len(rows)),
    }
    markers = [_MARKERS[looks[name][1]] for name in shown["class"]]
    scripts, plots = _plots(next(iter(views.values())), markers)
    environment = Environment(autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    text = (resources.files(__package__) / "map_template.html").read_text(encoding="utf-8")
    options = {"total": len(table), "shown": len(rows), "caveat": dataset.caveat}
    return environment.from_string(text).render(
        name=dataset.name, data=data, scripts=scripts, plots=plots, sprite=sprite, **options
    )


def _images(dataset: ImageDataset) -> tuple[pd.DataFrame, list[tuple[Any, int]]]:
    """Return id, split, class and group of all images, and where each image is."""
    tables, images = [], []
    for name, split in dataset.splits.items():
        classes = [dataset.classes[label] for label in split.labels]
        part = pd.DataFrame({"id": split.ids, "split": name, "class": classes})
        tables.append(part if split.groups is None else part.assign(**{dataset.unit: split.groups}))
        images += [(split.images, row) for row in range(len(split))]
    return pd.concat(tables, ignore_index=True), images


def _view(
    features: Features, points: pd.DataFrame, table: pd.DataFrame, rows: np.ndarray
) -> dict[str, Any]:
    """Return coordinates, predictions and neighbours by one backbone, JSON values.

    Neighbours are positions among the shown rows.
    """
    is_own = (points["dataset"] == features.dataset) & (points["backbone"] == features.backbone)
    own = points[is_own]
    if own["id"].tolist() != table["id"].tolist() or len(features.labels) < own["split"].nunique():
        raise InputError(
            f"{features.dataset} x {features.backbone}: points and images differ; "
            "project the features of the dataset again."
        )
    embeddings = np.concatenate([features.embedding(split) for split in features.labels])[rows]
    similarities, neighbours = nearest(
        embeddings, embeddings, _NEIGHBOURS, exclude=np.arange(len(rows))
    )
    coordinates = own[[f"{method}{i}" for method in _METHODS for i in (1, 2)]].to_numpy()[rows]
    cluster = _plain(own["cluster"].iloc[rows].astype(str)) if "cluster" in own else None
    return {
        "cluster": cluster,
        "xy": np.round(coordinates.T.astype(float), 4).tolist(),
        "near": neighbours.tolist(),
        "similarity": np.round(similarities.astype(float), 3).tolist(),
        "prediction": _predicted(features, embeddings, rows),
    }


def _predicted(features: Features, embeddings: np.ndarray, rows: np.ndarray) -> list[str]:
    """Return the class that the nearest labelled images of the first split vote for."""
    first = next(iter(features.labels))
    bank, labels = features.labelled(first)
    exclude = np.where(rows < len(bank), rows, -1)
    options: dict[str, Any] = {"ks": (_K,), "classes": len(features.classes), "exclude": exclude}
    probabilities = knn_probabilities(bank, labels, embeddings, **options)[_K]
    return [features.classes[label] for label in probabilities.argmax(1)]


def _plain(values: pd.Series) -> list[Any]:
    """Return numbers as they are and everything else as text, JSON values."""
    if pd.api.types.is_numeric_dtype(values) and values.dtype != bool:
        return [None if pd.isna(value) else float(value) for value in values]
    return ["" if pd.isna(value) else str(value) for value in values]


def _tiles(count: int) -> int:
    """Return how many thumbnails lie beside each other in the sheet of all of them."""
    return math.ceil(math.sqrt(count))


def _sprite(images: Sequence[tuple[Any, int]], rows: np.ndarray) -> tuple[str, int]:
    """Return one WebP of all thumbnails, base64, in the order of the rows, and their edge."""
    thumbnails = [_thumbnail(*images[row]) for row in rows]
    edge = max(max(thumbnail.size) for thumbnail in thumbnails)
    tiles = _tiles(len(rows))
    sheet = Image.new("RGB", (tiles * edge, math.ceil(len(rows) / tiles) * edge))
    for position, thumbnail in enumerate(thumbnails):
        sheet.paste(thumbnail, (position % tiles * edge, position // tiles * edge))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=50)
    return base64.b64encode(buffer.getvalue()).decode(), edge


def _thumbnail(images: Any, row: int) -> Image.Image:
    thumbnail = Image.fromarray(images[row])
    thumbnail.thumbnail((_EDGE, _EDGE))
    return thumbnail


def _plots(view: dict[str, Any], markers: list[str]) -> tuple[str, dict[str, str]]:
    """Return the scripts of Bokeh and the places of both plots, which share their selection."""
    with extra("notebooks"):
        from bokeh.embed import components
        from bokeh.models import ColumnDataSource, CustomJS, HoverTool
        from bokeh.plotting import figure
        from bokeh.resources import Resources

    names = [f"{method}{i}" for method in _METHODS for i in (1, 2)]
    columns = {name: np.array(values) for name, values in zip(names, view["xy"], strict=True)}
    colours = ["#888888"] * len(markers)
    source = ColumnDataSource(columns | {"marker": markers, "colour": colours}, name="images")
    plots = {}
    for method in _METHODS:
        plot = figure(
            tools="pan,wheel_zoom,box_zoom,lasso_select,tap,reset",
            active_scroll="wheel_zoom",
            active_drag="lasso_select",
            sizing_mode="stretch_width",
            height=460,
            match_aspect=True,
            toolbar_location="above",
        )
        plot.toolbar.logo = None
        look = {"marker": "marker", "size": 7, "color": "colour", "line_width": 0, "alpha": 0.8}
        drawn = plot.scatter(f"{method}1", f"{method}2", source=source, **look)
        drawn.nonselection_glyph.update(fill_alpha=0.08)
        plot.axis.visible = plot.grid.visible = False
        shown = CustomJS(code="radiodinoMap.show(cb_data.index.indices)")
        plot.add_tools(HoverTool(tooltips=None, callback=shown, renderers=[drawn]))
        plots[method] = plot
    source.selected.js_on_change("indices", CustomJS(code="radiodinoMap.count(cb_obj.indices)"))
    script, places = components(plots)
    inline = Resources(mode="inline", components=["bokeh"])
    return f"{inline.render_js()}\n{script}", places
