"""Datasets and features whose splits are rows of the splits of others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..core.files import value_hash
from ..data.dataset import ImageDataset
from ..data.subsets import named_rows, split_rows
from ..features.features import Features

# by the name of a new split the old split and its rows; without rows the split stays as it is
Rows = Mapping[str, tuple[str, np.ndarray | None]]
Data = TypeVar("Data", bound=ImageDataset | Features)


def with_splits(data: Data, rows: Rows, *, name: str = "", fold_of: str = "") -> Data:
    """Return a dataset or features with other splits.

    Args:
        data: A dataset, or the features of one.
        rows: Old split and rows of each new split, int64; all other splits are left out.
        name: New name of the dataset; empty keeps it.
        fold_of: See `ImageDataset`; empty keeps it.

    Returns:
        The same with these splits. A dataset has another digest, so that no cache confuses the two.
    """
    fold_of = fold_of or data.fold_of
    if isinstance(data, Features):
        return replace(
            data, dataset=name or data.dataset, fold_of=fold_of, **_of_features(data, rows)
        )
    kept = {split: part.tolist() for split, (_, part) in rows.items() if part is not None}
    splits = {
        split: data.splits[old] if part is None else split_rows(data.splits[old], part)
        for split, (old, part) in rows.items()
    }
    digest = value_hash([data.digest, kept])
    return replace(data, name=name or data.name, splits=splits, digest=digest, fold_of=fold_of)


def _of_features(features: Features, rows: Rows) -> dict[str, Any]:
    """Return the fields of the features that have new splits."""
    arrays, labels, ids, groups = {}, {}, {}, {}
    for split, (old, part) in rows.items():
        outputs = features.arrays[old].items()
        arrays[split] = {output: _taken(array, part) for output, array in outputs}
        labels[split] = _taken(features.labels[old], part)
        ids[split] = _names(features.ids[old], part)
        if old in features.groups:
            groups[split] = _names(features.groups[old], part)
    return {"arrays": arrays, "labels": labels, "ids": ids, "groups": groups}


def _taken(array: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return array if rows is None else array[rows]


def _names(names: list[str], rows: np.ndarray | None) -> list[str]:
    return names if rows is None else named_rows(names, rows)
