"""Datasets and features whose splits are rows of the splits of others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from ..core.files import value_hash
from ..data.dataset import ImageDataset, Split
from ..data.images import Images, LazyImages
from ..features.features import Features

# by the name of a new split the old split and its rows; without rows the split stays as it is
Rows = Mapping[str, tuple[str, np.ndarray | None]]


@overload
def with_splits(
    data: ImageDataset, rows: Rows, *, name: str = "", fold_of: str = ""
) -> ImageDataset: ...


@overload
def with_splits(data: Features, rows: Rows, *, name: str = "", fold_of: str = "") -> Features: ...


def with_splits(
    data: ImageDataset | Features, rows: Rows, *, name: str = "", fold_of: str = ""
) -> ImageDataset | Features:
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
        changed = _of_features(data, rows)
        return replace(changed, dataset=name or data.dataset, fold_of=fold_of)
    kept = {split: part.tolist() for split, (_, part) in rows.items() if part is not None}
    splits = {split: _split_rows(data.splits[old], part) for split, (old, part) in rows.items()}
    digest = value_hash([data.digest, kept])
    return replace(data, name=name or data.name, splits=splits, digest=digest, fold_of=fold_of)


def _of_features(features: Features, rows: Rows) -> Features:
    arrays, labels, ids, groups = {}, {}, {}, {}
    for split, (old, part) in rows.items():
        outputs = features.arrays[old].items()
        arrays[split] = {output: _taken(array, part) for output, array in outputs}
        labels[split] = _taken(features.labels[old], part)
        ids[split] = _named(features.ids[old], part)
        if old in features.groups:
            groups[split] = _named(features.groups[old], part)
    return replace(features, arrays=arrays, labels=labels, ids=ids, groups=groups)


def _taken(array: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return array if rows is None else array[rows]


def _named(names: Sequence[str], rows: np.ndarray | None) -> list[str]:
    return list(names) if rows is None else [names[row] for row in rows]


def _split_rows(split: Split, rows: np.ndarray | None) -> Split:
    if rows is None:
        return split
    groups = None if split.groups is None else _named(split.groups, rows)
    return Split(_Rows(split.images, rows), split.labels[rows], _named(split.ids, rows), groups)


@dataclass(frozen=True)
class _Rows(LazyImages):
    """Some rows of a sequence of images, read when needed.

    The name of the class is part of cache keys, see `images_digest`.
    """

    images: Images
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> np.ndarray:
        """Return the image of a row."""
        return self.images[int(self.rows[row])]
