"""What a labelled set of images is: splits of images, labels and ids."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from ..core.checks import checked_labels
from ..core.errors import InputError
from ..core.files import value_hash

SPLITS = ("train", "val", "test")
T = TypeVar("T")


def images_digest(images: Sequence[np.ndarray]) -> str:
    """Identify images: in memory by their content, in files by their paths, which the dataset's own
    digest completes.

    Args:
        images: An array, a list of arrays, or what reads files when asked for.

    Returns:
        12 hexadecimal digits.
    """
    if (
        isinstance(images, np.memmap)
        and images._mmap is not None
        and images.filename
        and images.mode == "r"
    ):
        path = Path(images.filename)
        if (
            path.parent.parent.name == "unpacked"
        ):  # by `npz`, which names the folder by the digest and verifies the arrays
            place = images.ctypes.data - np.frombuffer(images._mmap, np.uint8).ctypes.data
            return value_hash(
                [path.parts[-2:], place, images.shape, images.strides, str(images.dtype)]
            )
    if isinstance(images, np.ndarray | list | tuple):
        digest = hashlib.sha256()
        for image in images:
            digest.update(f"{np.shape(image)} {np.asarray(image).dtype}".encode())
            digest.update(np.ascontiguousarray(image))
        return digest.hexdigest()[:12]
    return value_hash(
        [
            type(images).__name__,
            {name: str(value) for name, value in getattr(images, "__dict__", {}).items()},
        ]
    )


@dataclass(frozen=True, repr=False)
class Split:
    """Images in order, with the label and the id that belong to each.

    Attributes:
        images: By index a uint8 array [height, width] or [height, width, 3]; read when asked for.
        labels: int64, [n].
        ids: n names, unique within the split (for a folder: the files' paths in it).
        groups: What must stay together when rows are split further (patients, duplicates): n names,
            or `None` if not known.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    ids: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        groups = "" if self.groups is None else f", {len(set(self.groups))} groups"
        return f"Split({len(self)} images{groups})"

    def digest(self) -> str:
        """Identify labels, ids and images as they are now; with the dataset's digest, the content of its files too."""
        labels = np.asarray(self.labels)
        return value_hash(
            [labels.tolist(), [str(one) for one in self.ids], images_digest(self.images)]
        )


class Splits(dict[str, T]):
    """What belongs to each split, by the split's name; a missing split names those that exist.

    Args:
        owner: Name of the dataset, for the message.
        parts: The splits in their order.
    """

    def __init__(self, owner: str, parts: Mapping[str, T]) -> None:
        super().__init__(parts)
        self.owner = owner

    def __missing__(self, split: object) -> T:
        existing = ", ".join(self) or "none"
        raise InputError(f"{self.owner}: has no split '{split}'; its splits: {existing}.")


@dataclass(frozen=True, repr=False)
class ImageDataset:
    """A labelled set of images.

    Attributes:
        name: As given to `load_dataset`.
        classes: The name of each label.
        splits: The splits by name.
        digest: MD5 of the npz file, or a hash of the list, and of the sizes and times of its files.
        caveat: What must be said wherever results on it are shown; may be empty.
        positive: Of two classes the one that sensitivity, specificity and ROC curve speak of; the
            last class by default. Empty for more classes.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    digest: str
    caveat: str = ""
    positive: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits(self.name, self.splits))
        object.__setattr__(self, "positive", positive_class(self.classes, self.positive, self.name))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(part)}" for split, part in self.splits.items())
        return f"ImageDataset({self.name!r}, {len(self.classes)} classes, {sizes})"

    def checked_labels(self, split: str) -> np.ndarray:
        """The labels of a split, checked: int64, [n].

        Raises:
            InputError: If a label stands for no class, or there is not one for each image.
        """
        part = self.splits[split]
        what = f"{self.name}: labels of the {split} split"
        return checked_labels(part.labels, len(self.classes), shape=(len(part.images),), what=what)


def positive_class(classes: Sequence[str], positive: str = "", name: str = "classes") -> str:
    """Return the positive class of a dataset.

    Args:
        classes: Name of each label.
        positive: The declared one; empty takes the last of two classes.
        name: Of the dataset, for the message.

    Returns:
        One of two classes; empty for any other number of classes.

    Raises:
        InputError: If the declared class does not exist, or is declared for any other number of
            classes than two.
    """
    if positive and (len(classes) != 2 or positive not in classes):
        shown = f"{', '.join(classes[:9])}{', ...' if len(classes) > 9 else ''}"
        raise InputError(
            f"{name}: positive class '{positive}': it must be one of exactly two classes; the dataset has {len(classes)}: "
            f"{shown}."
        )
    return positive or (classes[-1] if len(classes) == 2 else "")


def summary(sets: Sequence[ImageDataset]) -> pd.DataFrame:
    """How many images of how many classes each split of each set holds, and the set's digest."""
    return pd.DataFrame(
        [
            {
                "dataset": one.name,
                **{split: len(part) for split, part in one.splits.items()},
                "classes": len(one.classes),
            }
            | {"positive": one.positive, "digest": one.digest, "caveat": one.caveat}
            for one in sets
        ]
    )
