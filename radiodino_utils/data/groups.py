"""Groups of images where nothing but the images is known."""

from dataclasses import replace

import numpy as np

from .dataset import ImageDataset
from .duplicates import DISTANCE, connected_groups, near_pairs, perceptual_hashes
from .images import Images

CLUSTERS = 5  # of each class, at least, that a cross-validation needs


def with_groups(dataset: ImageDataset) -> ImageDataset:
    """Group the near duplicates of a dataset that has neither splits nor groups.

    A line says what was found; see `near_duplicates`.

    Args:
        dataset: Dataset returned by `load_dataset`.

    Returns:
        The dataset with clusters as groups; the argument itself if it has splits or groups, or if
        no two images are alike.
    """
    split = dataset.splits.get("all")
    if split is None or split.groups is not None:
        return dataset
    groups, source = near_duplicates(split.images, dataset.checked_labels("all"), dataset.name)
    if groups is None:
        return dataset
    splits = {"all": replace(split, groups=groups)}
    return replace(dataset, splits=splits, unit="cluster", groups_from=source)


def near_duplicates(images: Images, labels: np.ndarray, name: str) -> tuple[list[str] | None, str]:
    """Return the cluster of near duplicates of each image, and how it was found.

    Near duplicates are those of the audit (see `duplicates`). Images of one kind may all resemble
    each other. So the distance is halved, down to equal hashes, until each class has images of at
    least five clusters.

    Args:
        images: uint8, [height, width] or [height, width, 3].
        labels: Integers, [n].
        name: Name of the dataset, for the line that is printed.

    Returns:
        n names, or `None` if no two images are alike.
    """
    hashes, distance = perceptual_hashes(images), DISTANCE
    clusters = _clusters(hashes, distance)
    while distance and min(_counts(clusters, labels)) < CLUSTERS:
        distance //= 2
        clusters = _clusters(hashes, distance)
    count = len(np.unique(clusters))
    if count == len(clusters):
        print(f"{name}: no groups are known and no near duplicates were found.")
        return None, ""
    n = len(clusters)
    print(f"{name}: no groups are known; near duplicates make {count} clusters of {n} images.")
    return clusters.astype(str).tolist(), f"near duplicates, up to {distance} of 64 bits"


def _clusters(hashes: np.ndarray, distance: int) -> np.ndarray:
    return connected_groups(near_pairs(hashes, distance=distance)[0], len(hashes))


def _counts(groups: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the number of clusters of each class."""
    return [len(np.unique(groups[labels == label])) for label in np.unique(labels)]
