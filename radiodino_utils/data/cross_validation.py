"""Folds of a cross-validation: stratified by class, with groups such as patients kept together."""

import warnings
from collections.abc import Sequence

import numpy as np

from ..core.errors import InputError
from ..core.extras import extra


def stratified_parts(
    labels: np.ndarray, groups: Sequence[str] | np.ndarray | None, count: int, *, seed: int
) -> np.ndarray:
    """Assign images to parts of similar size and class mix; a group stays in one part.

    Args:
        labels: Integers, [n].
        groups: Group of each image, [n]; `None` if each image stands for itself.
        count: Number of parts.
        seed: Seed of the assignment.

    Returns:
        Part of each image, int64 [n].
    """
    with extra("evaluation"):
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer groups than parts
        splitter = kind(count, shuffle=True, random_state=seed)
        for part, (_, members) in enumerate(splitter.split(labels, labels, groups)):
            parts[members] = part
    return parts


def fewest(labels: np.ndarray, groups: Sequence[str] | np.ndarray | None) -> int:
    """Return the number of different groups, or of images, of the class that has the fewest."""
    units = np.arange(len(labels)) if groups is None else np.asarray(groups)
    return min(len(np.unique(units[labels == label])) for label in np.unique(labels))


def require_groups(
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    classes: Sequence[str],
    count: int,
    *,
    name: str,
    unit: str = "group",
) -> None:
    """Check that each class has images of as many groups as there are parts.

    Args:
        labels: Integers, [n].
        groups: See `stratified_parts`.
        classes: Name of each label.
        count: Number of parts.
        name: Name of the dataset, for the message.
        unit: What a group is, for the message.

    Raises:
        InputError: If a class has fewer.
    """
    units = np.arange(len(labels)) if groups is None else np.asarray(groups)
    what = "image" if groups is None else unit
    for label in np.unique(labels):
        distinct = len(np.unique(units[labels == label]))
        if distinct < count:
            raise InputError(
                f"{name}: {count} parts need {count} {what}s of each class, and the class "
                f"'{classes[label]}' has {distinct}; ask for fewer parts, or leave the class out."
            )


def cross_validation(
    labels: np.ndarray,
    groups: Sequence[str] | None,
    classes: Sequence[str],
    *,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    name: str = "dataset",
    unit: str = "group",
) -> list[dict[str, np.ndarray]]:
    """Split images for a repeated stratified cross-validation that keeps groups together.

    In each repeat every image is tested once. Of the images outside the test fold one part, of the
    size of a fold, is for validation.

    Args:
        labels: Integers, [n].
        groups: Group of each image, [n]; `None` if each image stands for itself.
        classes: Name of each label.
        folds: Folds of each repeat, at least 3.
        repeats: How often all images are divided anew.
        seed: Seed of the first repeat; the next ones count on.
        name: Name of the dataset, for messages.
        unit: What a group is, for messages.

    Returns:
        Rows of `train`, `val` and `test` of each fold of each repeat, int64, sorted.

    Raises:
        InputError: If there are fewer than 3 folds or no repeat, if a class has images of fewer
            groups than there are folds, or if a fold cannot learn every class.
    """
    if folds < 3 or repeats < 1:
        raise InputError(
            f"{folds} folds, {repeats} repeats: a cross-validation with validation needs at least "
            "3 folds and 1 repeat."
        )
    labels = np.asarray(labels)
    require_groups(labels, groups, classes, folds, name=name, unit=unit)
    units = None if groups is None else np.asarray(groups)
    splits = []
    for repeat in range(seed, seed + repeats):
        parts = stratified_parts(labels, units, folds, seed=repeat)
        for fold in range(folds):
            rest = np.flatnonzero(parts != fold)
            own = None if units is None else units[rest]
            inner = stratified_parts(labels[rest], own, folds - 1, seed=repeat)
            train = rest[inner != 0]
            if len(absent := np.setdiff1d(np.arange(len(classes)), labels[train])):
                raise InputError(
                    f"{name}: a fold has no image of the class '{classes[absent[0]]}' to learn "
                    f"from; its images are of too few {unit}s."
                )
            test = np.flatnonzero(parts == fold)
            splits.append({"train": train, "val": rest[inner == 0], "test": test})
    return splits
