"""Figures of single images: what is nearest to a query, and which images are confidently wrong."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..core.extras import extra
from ..data.dataset import ImageDataset, Split
from ..evaluation.labels import label_of
from ..evaluation.predictions import Prediction
from .style import add_title, shortened, styled, wrapped

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLASSES = 24  # that a sheet shows
_TILE = 0.95  # inches
_FRAMES = {True: "#009E73", False: "#D55E00"}


@styled
def query_strip(
    image: np.ndarray,
    neighbours: pd.DataFrame,
    split: Split,
    *,
    title: str,
    true_class: str = "",
    caveat: str = "",
) -> Figure:
    """Draw an image and, beside it, the images that are nearest to it, with their distances.

    Args:
        image: The query, uint8, [height, width] or [height, width, 3].
        neighbours: Result of `retrieve`.
        split: Split that was searched, for its images.
        title: Title of the figure: the backbone and the query.
        true_class: Class of the query, if it is known; neighbours of another one are framed.
        caveat: Caveat to display below the title.
    """
    figure, axes = plt.subplots(1, 1 + len(neighbours), figsize=(_TILE * (1 + len(neighbours)), 2))
    _draw(axes[0], image, f"query\n{shortened(true_class, 30)}")
    for axis, neighbour in zip(axes[1:], neighbours.to_dict("records"), strict=True):
        text = f"{neighbour['distance']:.3f}\n{shortened(neighbour['class'], 30)}"
        is_same = neighbour["class"] == true_class if true_class else None
        _draw(axis, split.images[neighbour["row"]], text, is_same)
    caption = (
        "The query and the images nearest to it, with their classes and cosine distances, 0 for "
        "the same direction. Green frames mark the class of the query, orange ones another class."
    )
    add_title(figure, title, caveat, kind="Strip of images", caption=caption)
    return figure


@styled
def error_sheet(
    prediction: Prediction, datasets: Iterable[ImageDataset], *, per_class: int = 4
) -> Figure:
    """Draw the most confident wrong images of each class, a row per true class.

    Of more than 24 classes those with the most errors are drawn; the title says so.

    Args:
        prediction: Prediction of a test split, or of joined folds.
        datasets: Datasets that include that of the prediction, or its folds, for the images.
        per_class: Images per class.
    """
    errors = _errors(prediction)
    counts = errors["label"].value_counts()
    classes = sorted(counts.index[:_CLASSES]) or [0]
    size = (_TILE * per_class + 1.2, 1.2 * len(classes) + 0.7)
    figure, axes = plt.subplots(len(classes), per_class, figsize=size, squeeze=False)
    places = _places(prediction.dataset, datasets)
    for row, label in zip(axes, classes, strict=True):
        wrong = errors[errors["label"] == label].head(per_class)
        for axis in row[len(wrong) :]:
            axis.axis("off")
        for axis, (name, predicted, confidence) in zip(
            row, wrong[["id", "predicted", "confidence"]].itertuples(index=False), strict=False
        ):
            split, position = places[name]
            predicted = shortened(prediction.classes[predicted], 30)
            _draw(axis, split.images[position], f"{predicted}\n{100 * confidence:.0f} %")
        heading = wrapped(shortened(prediction.classes[label], 30), 1.2)
        heading += f"\n{counts.get(label, 0)} wrong"
        row[0].set_ylabel(heading, rotation=0, ha="right", va="center")
    title = f"{prediction.title}, {label_of(prediction.backbone)}: most confident errors"
    if len(classes) < len(counts):
        title += f", the {len(classes)} classes with the most of {len(counts)}"
    caption = (
        "Test images that are classified wrongly, by their true class, the most confident first. "
        "Above each image stand the predicted class and its probability. Look for wrong labels, "
        "marks in the image and views that differ from the others of their class."
    )
    add_title(figure, title, prediction.caveat, kind="Sheet of images", caption=caption)
    return figure


def _errors(prediction: Prediction) -> pd.DataFrame:
    """Return id, label, predicted and confidence of the wrong images, the most confident first."""
    table = pd.DataFrame(
        {
            "id": prediction.ids,
            "label": prediction.labels,
            "predicted": prediction.probabilities.argmax(1),
            "confidence": prediction.probabilities.max(1),
        }
    )
    wrong = table[table["label"] != table["predicted"]]
    ranked = wrong.sort_values("confidence", ascending=False, kind="stable")
    return ranked.drop_duplicates("id")  # a repeated cross-validation has an image several times


def _places(name: str, datasets: Iterable[ImageDataset]) -> dict[str, tuple[Split, int]]:
    """Return split and row of each image of a dataset, or of all of its folds, by id.

    An id of several splits is that of the last one, the test split.
    """
    named = [dataset for dataset in datasets if name in (dataset.name, dataset.fold_of)]
    splits = [split for dataset in named for split in dataset.splits.values()]
    return {name: (split, row) for split in splits for row, name in enumerate(split.ids)}


def _draw(axis: Axes, image: np.ndarray, text: str, is_same: bool | None = None) -> None:
    """Draw an image below its text, with a frame if it is known whether the class is the same."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])
    axis.set_title("\n".join(wrapped(line, _TILE) for line in text.split("\n")), fontsize=7)
    axis.spines[:].set(visible=is_same is not None, color=_FRAMES.get(bool(is_same)), linewidth=2.5)
