"""Synthetic images with masks: bright squares on noise, small and seeded."""

import numpy as np

from radiodino_utils.data.segmentation import SegmentationDataset

COUNTS = {"train": 6, "val": 3, "test": 4}


def synthetic_segmentation(
    *, counts=COUNTS, shape=(64, 48), classes=2, seed=0, spacing_mm=None, normal=(), **changes
):
    """Return squares of one brightness per class; images of the rows in `normal` have none."""
    generator = np.random.default_rng(seed)
    n = sum(counts.values())
    images = generator.integers(0, 60, (n, *shape), dtype=np.uint8)
    masks = np.zeros((n, *shape), np.uint8)
    for row in range(n):
        if row in normal:
            continue
        for label in range(1, classes):
            top, left = generator.integers(0, shape[0] - 24), generator.integers(0, shape[1] - 24)
            masks[row, top : top + 24, left : left + 24] = label
    images += (masks * (190 // (classes - 1))).astype(np.uint8)
    ends = np.cumsum(list(counts.values()))
    splits = {
        split: np.arange(end - count, end)
        for (split, count), end in zip(counts.items(), ends, strict=True)
    }
    fields = {
        "name": "made-split",
        "classes": ("background", *(f"organ {label}" for label in range(1, classes))),
        "images": images,
        "masks": masks,
        "ids": [f"image {row}" for row in range(n)],
        "kinds": ["normal" if row in normal else "" for row in range(n)],
        "splits": splits,
        "protocol": "in order",
        "spacing_mm": spacing_mm,
        "digest": f"made {seed} {shape} {classes} {sorted(counts.values())} {sorted(normal)}",
    }
    return SegmentationDataset(**fields | changes)
