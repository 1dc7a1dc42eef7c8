"""Images that cannot be read: found before a long run, listed, and left out."""

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core.errors import InputError
from ..core.files import value_hash
from .dataset import ImageDataset, Split
from .images import Images, LazyImages

LIMIT = 0.01  # greatest share of unreadable images that is tolerated


@dataclass(frozen=True)
class SelectedImages(LazyImages):
    """Some rows of other images.

    Attributes:
        images: The other images.
        rows: Rows of `images` that are kept.
    """

    images: Images
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> np.ndarray:
        """Read an image; see `LazyImages.read`."""
        return self.images[self.rows[row]]


class Readable(NamedTuple):
    """A dataset without its unreadable images.

    Attributes:
        dataset: The dataset; its digest is that of what was read.
        left_out: Split, id and reason of each image that was left out.
    """

    dataset: ImageDataset
    left_out: pd.DataFrame


def unreadable_images(dataset: ImageDataset, *, progress: bool = True) -> pd.DataFrame:
    """Decode each image that is not in memory, and list those that cannot be read.

    Args:
        dataset: The dataset.
        progress: Whether a progress bar is shown.

    Returns:
        Columns split, row, id and reason.
    """
    faults = []
    for name, split in dataset.splits.items():
        if not isinstance(split.images, LazyImages):
            continue
        rows = range(len(split))
        for row in tqdm(rows, desc=f"checking {name}", unit="image", disable=not progress):
            try:
                split.images.read(row)
            except InputError as error:
                faults.append((name, row, split.ids[row], str(error)))
    return pd.DataFrame(faults, columns=["split", "row", "id", "reason"])


def without_unreadable(
    dataset: ImageDataset, *, limit: float = LIMIT, progress: bool = True
) -> Readable:
    """Leave out the images of a dataset that cannot be read, with a warning.

    Args:
        dataset: The dataset.
        limit: Greatest share of unreadable images.
        progress: Whether a progress bar is shown.

    Returns:
        The dataset, itself if all images can be read, and what was left out.

    Raises:
        InputError: If more images are unreadable, or all images of a class of a split.
    """
    faults = unreadable_images(dataset, progress=progress)
    if faults.empty:
        return Readable(dataset, faults.drop(columns="row"))
    total, first = sum(map(len, dataset.splits.values())), faults["reason"].iloc[0]
    if len(faults) > limit * total:
        raise InputError(
            f"{dataset.name}: {len(faults)} of {total} images cannot be read, more than the limit "
            f"of {limit:.1%}; the first: {first}"
        )
    splits = {
        name: _without(split, faults.loc[faults["split"] == name, "row"].tolist(), dataset, name)
        for name, split in dataset.splits.items()
    }
    warnings.warn(
        f"{dataset.name}: {len(faults)} of {total} images cannot be read and are left out; the "
        f"first: {first}",
        stacklevel=2,
    )
    absent = faults[["split", "id"]].to_numpy().tolist()
    digest = value_hash([dataset.digest, absent])
    return Readable(replace(dataset, splits=splits, digest=digest), faults.drop(columns="row"))


def _without(split: Split, faults: list[int], dataset: ImageDataset, name: str) -> Split:
    """Return a split without some rows."""
    if not faults:
        return split
    kept = np.setdiff1d(np.arange(len(split)), faults)
    for label in np.setdiff1d(split.labels, split.labels[kept]):
        raise InputError(
            f"{dataset.name}: no image of '{dataset.classes[label]}' in {name} can be read."
        )
    return Split(
        SelectedImages(split.images, tuple(kept.tolist())),
        split.labels[kept],
        [split.ids[row] for row in kept],
        None if split.groups is None else [split.groups[row] for row in kept],
    )
