"""Folds of segmentation datasets whose split was drawn at random."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from .cross_validation import cross_validation
from .groups import near_duplicates
from .segmentation_dataset import SegmentationDataset


def segmentation_folds(
    datasets: Iterable[SegmentationDataset], *, folds: int = 5, seed: int = 0
) -> list[SegmentationDataset]:
    """Replace splits that were drawn at random by the folds of a cross-validation.

    Groups stay together: volumes, or else near duplicates. A line says so. Folds share images,
    masks and patch maps, and their results share rows.

    Args:
        datasets: Datasets returned by `load_segmentation_dataset`; those with a split of their own
            are returned unchanged.
        folds: Number of folds; as many as there are groups if these are fewer.
        seed: Seed of the folds.

    Returns:
        Datasets in the same order. A dataset of fewer than three groups keeps its split.
    """
    results: list[SegmentationDataset] = []
    for dataset in datasets:
        results += _folds(dataset, folds, seed) if dataset.drawn else [dataset]
    return results


def _folds(dataset: SegmentationDataset, folds: int, seed: int) -> list[SegmentationDataset]:
    labels, name = np.zeros(len(dataset), np.int64), dataset.name
    groups, unit, source = dataset.groups, dataset.unit, dataset.groups_from
    if groups is None:
        unit = "cluster"
        groups, source = near_duplicates(dataset.images, labels, name)
    folds = min(folds, len(set(groups or dataset.ids)))
    if folds < 3:
        print(f"{name}: {folds} folds or groups are too few for a cross-validation; one split.")
        return [dataset]
    splits = cross_validation(
        labels, groups, ("image",), folds=folds, repeats=1, seed=seed, name=name, unit=unit
    )
    kept = f"{unit}s in one fold" if groups else "images at random"
    protocol = f"{folds} folds, {kept}, seed {seed}"
    print(f"{name}: {protocol}")
    facts: dict[str, Any] = {
        "protocol": protocol,
        "groups": groups,
        "unit": unit,
        "groups_from": source,
    }
    return [replace(dataset, fold=fold, splits=parts, **facts) for fold, parts in enumerate(splits)]
