"""Twins: exact or near duplicates across splits, and every protocol without them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..data.dataset import ImageDataset
from ..data.duplicates import DISTANCE, near_pairs, perceptual_hashes
from ..features.features import Features
from .predictions import Prediction, without_rows
from .subsets import Data, with_splits

# suffixes of the name of a protocol
DEDUPLICATED, TRAIN_DEDUPLICATED = " (deduplicated)", " (train-deduplicated)"


def find_twins(
    dataset: ImageDataset,
    split: str = "test",
    *,
    known: Sequence[str] = ("train", "val"),
    distance: int = DISTANCE,
) -> dict[str, np.ndarray]:
    """Find the exact and near duplicates between a split and those that are learnt or chosen from.

    Args:
        dataset: Dataset returned by `load_dataset`.
        split: Split that is evaluated.
        known: Splits that are learnt or chosen from; those that the dataset lacks are ignored.
        distance: Maximum number of bits (of 64) by which the perceptual hashes of twins differ.

    Returns:
        By split the rows that have a twin on the other side, int64, sorted: those of `split`, and
        those of each split of `known` whose twin lies in `split`. Empty if no image has a twin.
    """
    hashes = {
        name: perceptual_hashes(part.images)
        for name, part in dataset.splits.items()
        if name in (split, *known)
    }
    sizes = [len(values) for values in hashes.values()]
    names, starts = np.repeat(list(hashes), sizes), np.cumsum([0, *sizes[:-1]])
    pairs, _ = near_pairs(np.concatenate(list(hashes.values())), distance=distance)
    both_ways = np.vstack([pairs, pairs[:, ::-1]])
    is_evaluated = names[both_ways] == split
    positions = both_ways[is_evaluated[:, 0] != is_evaluated[:, 1], 0]
    twins = {
        name: np.unique(positions[names[positions] == name]) - start
        for name, start in zip(hashes, starts, strict=True)
    }
    return {name: rows for name, rows in twins.items() if len(rows)}


def find_all_twins(datasets: Iterable[ImageDataset]) -> dict[str, dict[str, np.ndarray]]:
    """Find the twins of several datasets.

    Args:
        datasets: Datasets. Those without a test split are left out, and folds of a
            cross-validation, whose splits keep duplicates together.

    Returns:
        By name of the dataset, the result of `find_twins`.
    """
    return {
        dataset.name: find_twins(dataset)
        for dataset in datasets
        if "test" in dataset.splits and not dataset.fold_of
    }


def without_twins(data: Data, twins: Mapping[str, np.ndarray]) -> Data:
    """Leave out the train and validation images that have a twin in the test split.

    Args:
        data: A dataset, or the features of one.
        twins: Twins of the dataset returned by `find_twins`.

    Returns:
        The same with fewer rows in train and val; a dataset has another digest, so that no cache
        confuses the two. The argument itself if there are no twins.
    """
    if not twins:
        return data
    splits = data.splits if isinstance(data, ImageDataset) else data.labels
    rows: dict[str, tuple[str, np.ndarray | None]] = {name: (name, None) for name in splits}
    for name, with_twin in twins.items():
        if name != "test":
            rows[name] = (name, np.setdiff1d(np.arange(len(splits[name])), with_twin))
    return with_splits(data, rows)


def deduplicated(
    predictions: Iterable[Prediction], twins: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Prediction]:
    """Return predictions of the test split without the images that have a twin.

    Args:
        predictions: Predictions of any datasets; those of datasets without twins and those of
            `train_deduplicated` are left out.
        twins: Twins returned by `find_twins`, by dataset.

    Returns:
        Predictions whose protocol is called `PROTOCOL (deduplicated)`; none if every test image has
        a twin.
    """
    return [
        without_rows(prediction, own["test"])
        for prediction in predictions
        if (own := twins.get(prediction.dataset)) and is_official(prediction)
        if len(own["test"]) < len(prediction.labels)
    ]


def is_official(prediction: Prediction) -> bool:
    """Return whether a prediction was fitted and tested on the official splits as they are."""
    return not prediction.protocol.endswith((DEDUPLICATED, TRAIN_DEDUPLICATED))


def train_deduplicated(prediction: Prediction, twins: Mapping[str, np.ndarray]) -> Prediction:
    """Mark a prediction that was fitted `without_twins`.

    Args:
        prediction: Prediction of the official test split.
        twins: Twins of the dataset returned by `find_twins`.

    Returns:
        The prediction of the protocol `PROTOCOL (train-deduplicated)`; the caveat counts the images
        that were left out.
    """
    counts = " and ".join(f"{len(rows)} {name}" for name, rows in twins.items() if name != "test")
    left_out = f"fitted without {counts} images that have a twin in test"
    caveat = f"{prediction.caveat}; {left_out}" if prediction.caveat else left_out
    return replace(prediction, protocol=prediction.protocol + TRAIN_DEDUPLICATED, caveat=caveat)


def three_ways(
    fit: Callable[..., Prediction | list[Prediction]],
    data: Iterable[ImageDataset | Features],
    twins: Mapping[str, Mapping[str, np.ndarray]],
    **options: Any,
) -> list[Prediction]:
    """Fit and predict with and without twins.

    The difference between the official row and `(deduplicated)` is not the effect of the twins
    alone: leaving test images out changes which classes are tested (see `class_mix`).
    `(train-deduplicated)` tests the same images as the official row.

    Args:
        fit: Function that predicts the test split of a dataset or of its features.
        data: Datasets or features.
        twins: Twins returned by `find_twins`, by dataset; a missing dataset has none.
        **options: Options of `fit`.

    Returns:
        For each dataset the official predictions; where there are twins also `(deduplicated)` (the
        same without the test images that have a twin) and `(train-deduplicated)` (fitted without
        the train and validation images that have a twin in test), unless too few are left of a
        class, which a line says.
    """
    groups: dict[str, list[ImageDataset | Features]] = {}
    for member in data:
        name = member.name if isinstance(member, ImageDataset) else member.dataset
        groups.setdefault(name, []).append(member)
    results: list[Prediction] = []
    for name, group in groups.items():
        official = _fit_all(fit, group, options)
        results += [*official, *deduplicated(official, twins)]
        if own_twins := twins.get(name):
            cleaned = [without_twins(member, own_twins) for member in group]
            if lacking := _lacking(cleaned[0], options):
                print(f"{name}: nothing is train-deduplicated: {lacking}")
                continue
            results += [
                train_deduplicated(prediction, own_twins)
                for prediction in _fit_all(fit, cleaned, options)
            ]
    return results


def _lacking(data: ImageDataset | Features, options: Mapping[str, Any]) -> str:
    """Return which class has too few images without a twin to fit or to choose; empty if none."""
    splits = data.splits if isinstance(data, ImageDataset) else data.labels
    for split, needed in {"train": max(options.get("shots", (1,)), default=1), "val": 1}.items():
        if split not in splits:
            continue
        labels = data.labels[split] if isinstance(data, Features) else data.checked_labels(split)
        counts = np.bincount(labels, minlength=len(data.classes))
        if counts.min() < needed:
            label = data.classes[counts.argmin()]
            return f"{counts.min()} images of '{label}' in {split} have no twin in test"
    return ""


def _fit_all(
    fit: Callable[..., Prediction | list[Prediction]],
    group: Sequence[ImageDataset | Features],
    options: Mapping[str, object],
) -> list[Prediction]:
    predictions: list[Prediction] = []
    for member in tqdm(group, desc=str(options.get("protocol", "")), unit="fit"):
        result = fit(member, **options)
        predictions += result if isinstance(result, list) else [result]
    return predictions


def class_mix(predictions: Iterable[Prediction]) -> pd.DataFrame:
    """Count the classes of the test images with a twin and of all others.

    Where the two differ, `(deduplicated)` is another test than the official one.

    Args:
        predictions: Official and `(deduplicated)` predictions.

    Returns:
        A row per class of each dataset that has twins: dataset, class, with_twin and others
        (numbers of images), and the shares of the class in both, share_with_twin and share_others.
    """
    predictions = list(predictions)
    labels = {
        (prediction.dataset, prediction.protocol): prediction.labels
        for prediction in reversed(predictions)  # the first one counts
    }
    tables: dict[str, pd.DataFrame] = {}
    for prediction in predictions:
        protocol = prediction.protocol.removesuffix(DEDUPLICATED)
        if prediction.dataset in tables or protocol == prediction.protocol:
            continue
        classes = len(prediction.classes)
        others = np.bincount(prediction.labels, minlength=classes)
        every = np.bincount(labels[prediction.dataset, protocol], minlength=classes)
        with_twin = every - others
        tables[prediction.dataset] = pd.DataFrame(
            {
                "dataset": prediction.dataset,
                "class": prediction.classes,
                "with_twin": with_twin,
                "others": others,
                "share_with_twin": with_twin / max(1, with_twin.sum()),
                "share_others": others / max(1, others.sum()),
            }
        )
    if not tables:
        columns = ["dataset", "class", "with_twin", "others", "share_with_twin", "share_others"]
        return pd.DataFrame(columns=columns)
    return pd.concat(tables.values(), ignore_index=True)
