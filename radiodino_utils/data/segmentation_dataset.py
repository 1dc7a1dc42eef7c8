"""Segmentation datasets: images with masks, and the splits of their rows."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from PIL import Image

from ..core.errors import InputError
from .dataset import Splits
from .images import Images


@dataclass(frozen=True, repr=False)
class SegmentationDataset:
    """Images, the mask of each, and one way to split them.

    Attributes:
        name: Registered name, such as `busi-folds`.
        classes: Name of each value of a mask; 0 is the background.
        images: By row uint8, [height, width] or [height, width, 3]; files are read when needed.
        masks: By row uint8, [height, width].
        ids: n names.
        kinds: Class of each image ("benign"), or "" if there is none.
        splits: Rows of `train`, `val` and `test`, int64.
        protocol: How the rows are split, in words.
        spacing_mm: Distance of rows and of columns; `None` if it is not known.
        digest: Hash of the images.
        caveat: Caveat to display with every result; may be empty.
        intensity: See `dataset.ImageDataset`.
        fold: Number of the fold, of several.
        groups: Group of each image, such as its patient, [n]; `None` if not known.
        unit: What a group is; see `ImageDataset`.
        groups_from: Where the groups come from.
        drawn: Whether the splits were drawn at random, so that folds may take their place.
        unreadable: By name the reason of each image that was left out because it or its mask cannot
            be read.
        small: Masks of all rows reduced to squares, by their edge; a cache of `small_masks`, shared
            by the folds of a dataset.
    """

    name: str
    classes: tuple[str, ...]
    images: Images
    masks: Images
    ids: Sequence[str]
    kinds: Sequence[str]
    splits: dict[str, np.ndarray]
    protocol: str
    spacing_mm: tuple[float, float] | None
    digest: str
    caveat: str = ""
    intensity: str = ""
    fold: int = 0
    groups: Sequence[str] | None = None
    unit: str = "group"
    groups_from: str = ""
    drawn: bool = False
    unreadable: Mapping[str, str] = field(default_factory=dict)
    small: dict[int, tuple[Images, str, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits(self.name, self.splits))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows)}" for split, rows in self.splits.items())
        fold = f", fold {self.fold}" if self.fold else ""
        return f"SegmentationDataset({self.name!r}{fold}, {len(self.classes)} classes, {sizes})"

    def mask(self, row: int) -> np.ndarray:
        """Return the mask of an image after checking it, uint8 [height, width].

        Raises:
            InputError: If its size differs from that of the image, or a value has no class.
        """
        mask, shape = np.asarray(self.masks[row]), np.asarray(self.images[row]).shape[:2]
        if mask.shape != shape:
            raise InputError(
                f"{self.ids[row]}: its mask has {_edges(mask.shape)} pixels, "
                f"the image {_edges(shape)}; mend it."
            )
        if mask.dtype != np.uint8 or mask.max(initial=0) >= len(self.classes):
            unknown_values = np.setdiff1d(mask, np.arange(len(self.classes)))
            if len(unknown_values):
                raise InputError(
                    f"{self.ids[row]}: its mask holds the unknown value {unknown_values[-1]}; "
                    f"0 to {len(self.classes) - 1} are known ({', '.join(self.classes)})."
                )
        return np.ascontiguousarray(mask, np.uint8)  # NIfTI slices are turned views

    def small_masks(self, rows: np.ndarray, edge: int) -> np.ndarray:
        """Return masks reduced to squares without mixing values, uint8 [n, edge, edge].

        Args:
            rows: Rows of the masks.
            edge: Edge of the squares in pixels.

        Raises:
            InputError: See `mask`.
        """
        reduced = self.small.get(edge)
        digest = self._masks_digest()
        if reduced is None or reduced[0] is not self.masks or reduced[1] != digest:
            nearest = Image.Resampling.NEAREST
            masks = (
                Image.fromarray(self.mask(row)).resize((edge, edge), nearest)
                for row in range(len(self))
            )
            small = np.stack([np.asarray(mask) for mask in masks])
            reduced = self.small[edge] = (self.masks, digest, small)
        return reduced[2][rows]

    def _masks_digest(self) -> str:
        """Return a hash of masks in memory, which may have been edited, but not of files."""
        digest = hashlib.sha256(repr(self.classes).encode())
        if isinstance(self.masks, np.ndarray | list | tuple):
            for mask in self.masks:
                digest.update(np.ascontiguousarray(mask).data)
        return digest.hexdigest()


def _edges(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def segmentation_summary(datasets: Sequence[SegmentationDataset]) -> pd.DataFrame:
    """Return one row per dataset and fold: split protocol, images of each split, classes."""
    rows = []
    for dataset in datasets:
        sizes = {split: len(members) for split, members in dataset.splits.items()}
        rows.append(
            {"dataset": dataset.name, "fold": dataset.fold, "split": dataset.protocol, **sizes}
            | {"classes": len(dataset.classes) - 1, "spacing mm": dataset.spacing_mm or "unknown"}
        )
    return pd.DataFrame(rows)


def with_labelled(
    dataset: SegmentationDataset, images: int, *, seed: int = 0
) -> SegmentationDataset:
    """Keep only some images of the train split, drawn at random.

    Args:
        dataset: Dataset to reduce.
        images: Number of train images; a smaller number draws a subset of a larger one.
        seed: Seed of the draw.
    """
    train = np.random.default_rng(seed).permutation(dataset.splits["train"])[:images]
    return replace(dataset, splits=dataset.splits | {"train": np.sort(train)})
