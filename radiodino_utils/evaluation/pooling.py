"""One row per patient: probabilities or embeddings of all images of a group in one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from ..core.errors import InputError, unknown_name, wrong_type
from ..features.features import Features
from .predictions import Prediction

HOW: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "max": np.max, "median": np.median}
Data = TypeVar("Data", Prediction, Features)


def pool(data: Data, *, how: str = "mean") -> Data:
    """Pool the images of each patient, or of each other group, into one row.

    Args:
        data: A prediction, whose probabilities are pooled by class and then divided by their sum,
            or features, whose outputs are pooled value by value. Of a repeated cross-validation
            each repeat has rows of its own.
        how: "mean", "max" or "median" over the images.

    Returns:
        The same with a row per group, in the order of their first images; ids are the groups. The
        protocol of a prediction gets the unit in brackets, such as "knn (patient mean)".

    Raises:
        InputError: If no groups are known, if the images of a group have different labels, or if
            `how` is none of these.
    """
    if how not in HOW:
        raise unknown_name("pooling", how, HOW)
    if isinstance(data, Prediction):
        return _pooled_prediction(data, how)
    if isinstance(data, Features):
        return _pooled_features(data, how)
    raise wrong_type("pool", data, "a prediction or features")


def patient_level(predictions: Iterable[Prediction], *, how: str = "mean") -> list[Prediction]:
    """Pool every prediction whose groups are patients.

    Args:
        predictions: Predictions of any datasets.
        how: See `pool`.

    Returns:
        The pooled ones. Where a patient has images of several classes there is none, and a line
        says so.
    """
    pooled, refused = [], set()
    for prediction in predictions:
        if prediction.unit == "patient":
            try:
                pooled.append(pool(prediction, how=how))
            except InputError as error:
                refused.add(str(error))
    for sentence in sorted(refused):
        print(f"No rows of patients: {sentence}")
    return pooled


def _pooled_prediction(prediction: Prediction, how: str) -> Prediction:
    if prediction.groups is None or prediction.unit == "image":
        raise _unknown_groups(prediction.dataset, prediction.split)
    repeats = pd.Series(prediction.ids).groupby(prediction.ids).cumcount()
    keys = list(zip(prediction.groups, repeats, strict=True))
    units, firsts = _numbered(keys, prediction.labels, prediction.dataset, prediction.unit)
    pooled = _pooled(prediction.probabilities, units, how)
    groups = [prediction.groups[row] for row in firsts]
    return replace(
        prediction,
        protocol=f"{prediction.protocol} ({prediction.unit} {how})",
        labels=prediction.labels[firsts],
        probabilities=pooled / pooled.sum(1, keepdims=True),
        ids=groups,
        groups=groups,
        val_accuracy=None,  # it is that of images
    )


def _pooled_features(features: Features, how: str) -> Features:
    arrays, labels, groups = {}, {}, {}
    for split in features.labels:
        names = features.groups.get(split)
        if names is None:
            raise _unknown_groups(features.dataset, split)
        keys = [(name, 0) for name in names]
        units, firsts = _numbered(keys, features.labels[split], features.dataset, features.unit)
        arrays[split] = {
            output: _pooled(array, units, how) for output, array in features.arrays[split].items()
        }
        labels[split] = features.labels[split][firsts]
        groups[split] = [names[row] for row in firsts]
    return replace(features, arrays=arrays, labels=labels, ids=groups, groups=groups)


def _unknown_groups(dataset: str, split: str) -> InputError:
    return InputError(
        f"{dataset}: the groups of the {split} split are not known, so that its images cannot be "
        "pooled; add a column patient to the list."
    )


def _numbered(
    keys: Sequence[tuple[str, int]], labels: np.ndarray, dataset: str, unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's group and repeat, and the first row of each."""
    units = pd.MultiIndex.from_tuples(keys).factorize()[0]
    firsts = np.unique(units, return_index=True)[1]
    if len(mixed := np.flatnonzero(labels != labels[firsts][units])):
        raise InputError(
            f"{dataset}: the {unit} '{keys[mixed[0]][0]}' has images of several classes; only "
            "groups of one class can be pooled."
        )
    return units, firsts


def _pooled(array: np.ndarray, units: np.ndarray, how: str) -> np.ndarray:
    """Pool the rows of each group, [groups, width], in the type of the array."""
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    parts = np.split(array[order], starts[1:])
    return np.stack([HOW[how](part, axis=0) for part in parts]).astype(array.dtype)
