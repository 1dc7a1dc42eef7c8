"""Cross-validation of datasets that have no test split."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from ..data.cross_validation import cross_validation, fewest
from ..data.dataset import ImageDataset
from ..features.features import Features
from .subsets import with_splits

FOLDS, REPEATS = 5, 3
Data = TypeVar("Data", ImageDataset, Features)


def in_folds(
    data: Iterable[Data], *, folds: int = FOLDS, repeats: int = REPEATS, seed: int = 0
) -> list[Data]:
    """Replace whatever has no splits by the folds of a repeated stratified cross-validation.

    Groups stay together (see `cross_validation.cross_validation`), and all features of one dataset
    are divided in the same way. One line says so for each dataset. Predictions of the folds are
    scored together after `joined_folds`.

    Args:
        data: Datasets or features; those with another split than "all" are returned unchanged.
        folds: Folds of each repeat, at least 3; fewer where a class has images of fewer groups.
        repeats: How often all images are divided anew.
        seed: Seed of the first repeat.

    Returns:
        Datasets or features in the same order, each with `train`, `val` and `test`.

    Raises:
        InputError: See `cross_validation.cross_validation`.
    """
    results: list[Data] = []
    printed = set()
    for entry in data:
        name = entry.name if isinstance(entry, ImageDataset) else entry.dataset
        if list(entry.splits if isinstance(entry, ImageDataset) else entry.labels) != ["all"]:
            results.append(entry)
            continue
        labels, groups = _labels_and_groups(entry)
        possible = min(folds, max(fewest(labels, groups), 3))
        results += _folds(entry, name, possible, repeats, seed)
        if name not in printed:
            printed.add(name)
            print(f"{name}: {possible} folds x {repeats}, stratified by class, {_kept(entry)}")
    return results


def _folds(entry: Data, name: str, folds: int, repeats: int, seed: int) -> list[Data]:
    labels, groups = _labels_and_groups(entry)
    splits = cross_validation(
        labels,
        groups,
        entry.classes,
        folds=folds,
        repeats=repeats,
        seed=seed,
        name=name,
        unit=entry.unit,
    )
    return [
        with_splits(
            entry,
            {split: ("all", rows) for split, rows in parts.items()},
            name=f"{name}-fold{number}",
            fold_of=name,
        )
        for number, parts in enumerate(splits)
    ]


def _labels_and_groups(entry: ImageDataset | Features) -> tuple[np.ndarray, list[str] | None]:
    if isinstance(entry, ImageDataset):
        groups = entry.splits["all"].groups
        return entry.checked_labels("all"), None if groups is None else list(groups)
    return entry.labelled("all")[1], entry.groups.get("all")


def _kept(entry: ImageDataset | Features) -> str:
    """Say which groups stay together, and where they come from."""
    groups = _labels_and_groups(entry)[1]
    if groups is None:
        return "each image for itself (no groups are known)"
    return f"{len(set(groups))} {entry.unit}s kept together (from {entry.groups_from})"
