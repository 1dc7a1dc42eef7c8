"""Twins: exact or near duplicates on both sides of the test split, and every protocol without them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from ..core.files import value_hash
from ..data.dataset import ImageDataset, Split, is_fold
from ..data.duplicates import DISTANCE, near_pairs, perceptual_hashes
from ..data.images import Images, LazyImages
from ..features.features import Features
from .predictions import Prediction, without_rows

DEDUPLICATED, TRAIN_DEDUPLICATED = (
    " (deduplicated)",
    " (train-deduplicated)",
)  # behind a protocol's name
Data = TypeVar("Data", ImageDataset, Features)


def find_twins(
    dataset: ImageDataset,
    split: str = "test",
    *,
    known: Sequence[str] = ("train", "val"),
    distance: int = DISTANCE,
) -> dict[str, np.ndarray]:
    """Find the images of a split that have an exact or near duplicate in the splits that are learnt
    or chosen from.

    Args:
        dataset: What `load_dataset` gives.
        split: The split that is evaluated.
        known: The splits that are learnt or chosen from; those that the dataset lacks are ignored.
        distance: Greatest number of bits (of 64) by which the perceptual hashes of twins differ.

    Returns:
        By split the rows that have a twin on the other side, int64, sorted: those of `split`, and
            those of each split of
        `known` whose twin lies in `split`. Empty where no image has a twin.
    """
    hashes = {
        name: perceptual_hashes(part.images)
        for name, part in dataset.splits.items()
        if name in (split, *known)
    }
    names = np.repeat(list(hashes), [len(one) for one in hashes.values()])
    starts = dict(zip(hashes, np.cumsum([0, *(len(one) for one in hashes.values())]), strict=False))
    pairs, _ = near_pairs(np.concatenate(list(hashes.values())), distance=distance)
    ends = np.vstack([pairs, pairs[:, ::-1]])
    ends = ends[(names[ends[:, 0]] == split) != (names[ends[:, 1]] == split), 0]
    found = {name: np.unique(ends[names[ends] == name]) - start for name, start in starts.items()}
    return {name: rows for name, rows in found.items() if len(rows)}


def find_all_twins(datasets: Iterable[ImageDataset]) -> dict[str, dict[str, np.ndarray]]:
    """Find the twins of several datasets.

    Args:
        datasets: Datasets with a test split. Folds of a cross-validation are left out: their
            splits keep duplicates together.

    Returns:
        By name of the dataset, the result of `find_twins`.
    """
    return {dataset.name: find_twins(dataset) for dataset in datasets if not is_fold(dataset.name)}


def without_twins(data: Data, twins: Mapping[str, np.ndarray]) -> Data:
    """Leave the train and validation images that have a twin in the test split out; the test split
    stays whole.

    Args:
        data: A dataset or features of one.
        twins: What `find_twins` gives of the dataset.

    Returns:
        The same with fewer rows; a dataset has another digest, so that no cache takes one for the
        other. Without twins as it is.
    """
    if not twins:
        return data
    sizes = {
        name: len(part)
        for name, part in (data.splits if isinstance(data, ImageDataset) else data.labels).items()
    }
    kept = {
        name: np.setdiff1d(np.arange(sizes[name]), rows)
        for name, rows in twins.items()
        if name != "test"
    }
    if isinstance(data, Features):
        return replace(
            data,
            arrays=data.arrays
            | {
                name: {output: array[rows] for output, array in data.arrays[name].items()}
                for name, rows in kept.items()
            },
            labels=data.labels | {name: data.labels[name][rows] for name, rows in kept.items()},
            ids=data.ids
            | {name: [data.ids[name][row] for row in rows] for name, rows in kept.items()},
        )
    digest = value_hash([data.digest, {name: rows.tolist() for name, rows in kept.items()}])
    return replace(
        data,
        digest=digest,
        splits=data.splits
        | {name: _subset(data.splits[name], rows) for name, rows in kept.items()},
    )


def _subset(split: Split, rows: np.ndarray) -> Split:
    groups = None if split.groups is None else [split.groups[row] for row in rows]
    return Split(
        _Rows(split.images, rows), split.labels[rows], [split.ids[row] for row in rows], groups
    )


@dataclass(frozen=True)
class _Rows(LazyImages):
    """Some rows of a sequence of images, read when needed."""

    images: Images
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> np.ndarray:
        """Return the image of a row."""
        return self.images[int(self.rows[row])]


def deduplicated(
    predictions: Iterable[Prediction], twins: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Prediction]:
    """Repeat predictions of the test split without the images that have a twin, as `PROTOCOL
    (deduplicated)`.

    Args:
        predictions: Of any datasets; those of datasets without twins and those of
            `train_deduplicated` are left out.
        twins: By dataset what `find_twins` gives.
    """
    official = [one for one in predictions if twins.get(one.dataset) and is_official(one)]
    return [without_rows(one, twins[one.dataset]["test"]) for one in official]


def is_official(prediction: Prediction) -> bool:
    """Whether a prediction was fitted and tested on the whole official splits."""
    return not prediction.protocol.endswith((DEDUPLICATED, TRAIN_DEDUPLICATED))


def train_deduplicated(prediction: Prediction, twins: Mapping[str, np.ndarray]) -> Prediction:
    """Name a prediction that was fitted `without_twins` `PROTOCOL (train-deduplicated)`; the caveat counts what was left out."""
    counts = " and ".join(f"{len(rows)} {name}" for name, rows in twins.items() if name != "test")
    said = f"fitted without {counts} images that have a twin in test"
    caveat = f"{prediction.caveat}; {said}" if prediction.caveat else said
    return replace(prediction, protocol=prediction.protocol + TRAIN_DEDUPLICATED, caveat=caveat)


def three_ways(
    fit: Callable[..., Prediction | list[Prediction]],
    data: Iterable[Data],
    twins: Mapping[str, Mapping[str, np.ndarray]],
    **options: object,
) -> list[Prediction]:
    """Fit and predict with and without twins.

    The difference between the official row and `(deduplicated)` is not the effect of the twins
    alone: leaving test images out changes which classes are tested (see `class_mix`).
    `(train-deduplicated)` tests the same images as the official row.

    Args:
        fit: Predicts the test split of a dataset or of its features.
        data: Datasets or features.
        twins: By dataset what `find_twins` gives; one that is not named has none.
        **options: Of `fit`.

    Returns:
        For each dataset the official predictions; where there are twins also `(deduplicated)` (the
        same without the test images that have a twin) and `(train-deduplicated)` (fitted without
        the train and validation images that have a twin in test).
    """

    def fitted(one: Data) -> list[Prediction]:
        found = fit(one, **options)
        return found if isinstance(found, list) else [found]

    groups = {}
    for one in data:
        groups.setdefault(one.name if isinstance(one, ImageDataset) else one.dataset, []).append(
            one
        )
    results = []
    for name, group in groups.items():
        official = [prediction for one in group for prediction in fitted(one)]
        results += [*official, *deduplicated(official, twins)]
        if here := twins.get(name):
            cleaned = [without_twins(one, here) for one in group]
            results += [
                train_deduplicated(prediction, here)
                for one in cleaned
                for prediction in fitted(one)
            ]
    return results


def class_mix(predictions: Iterable[Prediction]) -> pd.DataFrame:
    """Count the classes of the test images with a twin and of all others: why `(deduplicated)` is
    another test.

    Args:
        predictions: Official and `(deduplicated)` ones.

    Returns:
        A row per class of each dataset that has twins: dataset, class, with_twin and others
            (numbers of images), and the
        shares of the class among both, share_with_twin and share_others.
    """
    predictions, tables = list(predictions), {}
    for rest in predictions:
        official = rest.protocol.removesuffix(DEDUPLICATED)
        if rest.dataset in tables or official == rest.protocol:
            continue
        whole = next(
            one for one in predictions if (one.dataset, one.protocol) == (rest.dataset, official)
        )
        others = np.bincount(rest.labels, minlength=len(rest.classes))
        twin = np.bincount(whole.labels, minlength=len(rest.classes)) - others
        table = {
            "dataset": rest.dataset,
            "class": rest.classes,
            "with_twin": twin,
            "others": others,
        }
        tables[rest.dataset] = pd.DataFrame(
            table
            | {
                "share_with_twin": twin / max(1, twin.sum()),
                "share_others": others / max(1, others.sum()),
            }
        )
    columns = ["dataset", "class", "with_twin", "others", "share_with_twin", "share_others"]
    return (
        pd.concat(tables.values(), ignore_index=True) if tables else pd.DataFrame(columns=columns)
    )
