"""Groups of images where nothing but the images is known."""

from dataclasses import replace

import numpy as np

from .cross_validation import fewest
from .dataset import ImageDataset
from .duplicates import DISTANCE, connected_groups, near_pairs, perceptual_hashes, pixel_hashes
from .images import Images

CLUSTERS = 5  # of each class, at least, that a cross-validation needs


def with_groups(dataset: ImageDataset) -> ImageDataset:
    """Group the near duplicates of a dataset that has neither splits nor groups.

    A line says what was found; see `near_duplicates`.

    Args:
        dataset: Dataset returned by `load_dataset`.

    Returns:
        The dataset with clusters as groups; the argument itself if it has splits or groups, a
        single class, or no two images that are alike.
    """
    split = dataset.splits.get("all")
    if split is None or split.groups is not None or len(dataset.classes) < 2:
        return dataset
    groups, source = near_duplicates(split.images, dataset.checked_labels("all"), dataset.name)
    if groups is None:
        return dataset
    splits = {"all": replace(split, groups=groups)}
    return replace(dataset, splits=splits, unit="cluster", groups_from=source)


def near_duplicates(images: Images, labels: np.ndarray, name: str) -> tuple[list[str] | None, str]:
    """Return the cluster of near duplicates of each image, and how it was found.

    Near duplicates are those of the audit (see `duplicates`). Images of one kind may all resemble
    each other. So the distance is halved, down to equal pixels, until each class has images of at
    least five clusters.

    Args:
        images: uint8, [height, width] or [height, width, 3].
        labels: Integers, [n].
        name: Name of the dataset, for the line that is printed.

    Returns:
        n names, or `None` if no two images are alike.
    """
    hashes = perceptual_hashes(images)
    for distance in (DISTANCE, DISTANCE // 2, 0):
        clusters = connected_groups(near_pairs(hashes, distance=distance)[0], len(hashes))
        source = f"near duplicates, up to {distance} of 64 bits"
        if fewest(labels, clusters) >= CLUSTERS:
            break
    else:
        clusters, source = np.unique(pixel_hashes(images), return_inverse=True)[1], "equal images"
    count = len(np.unique(clusters))
    if count == len(clusters):
        print(f"{name}: no groups are known and no near duplicates were found.")
        return None, ""
    n = len(clusters)
    print(f"{name}: no groups are known; near duplicates make {count} clusters of {n} images.")
    return clusters.astype(str).tolist(), source
