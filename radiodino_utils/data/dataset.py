"""Labelled datasets: splits of images with labels and ids."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from ..core.checks import checked_labels
from ..core.errors import InputError
from ..core.files import value_hash
from .images import Images

SPLITS = ("train", "val", "test")
UNPACKED = "unpacked"  # folder of arrays that `npz` names by the hash of their archive
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Split:
    """Images in order, with the label and the id of each.

    Attributes:
        images: By row uint8, [height, width] or [height, width, 3]; files are read when needed.
        labels: int64, [n].
        ids: n names, unique within the split (for a folder: the paths of the files in it).
        groups: n names of what must stay together when rows are split further (patients,
            duplicates), or `None` if not known.
    """

    images: Images
    labels: np.ndarray
    ids: Sequence[str]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        groups = "" if self.groups is None else f", {len(set(self.groups))} groups"
        return f"Split({len(self)} images{groups})"

    def first_of_each_class(self, count: int = 1) -> np.ndarray:
        """Return the rows of the first images of each class, by class and then by row, int64."""
        labels = np.asarray(self.labels)
        return np.concatenate(
            [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
        )

    def digest(self) -> str:
        """Return a hash of labels, ids and images as they are now.

        Files are identified by their paths; the digest of the dataset covers their content.
        """
        labels, ids = np.asarray(self.labels).tolist(), [str(name) for name in self.ids]
        return value_hash([labels, ids, images_digest(self.images)])


class Splits(dict[str, T]):
    """What belongs to each split, by the name of the split; a missing one is an `InputError`.

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
    """A dataset of images with labels.

    Attributes:
        name: Registered name, as given to `load_dataset`.
        classes: Name of each label.
        splits: Splits by name.
        digest: Hash of the dataset: MD5 of the npz file, or of the list and content of the files
            that were not left out.
        caveat: Caveat to display with every result; may be empty.
        positive: The one of two classes to which sensitivity, specificity and ROC curves refer;
            the last class by default. Empty for more classes.
        unit: What a group of images is: "patient", "cluster" (of near duplicates) or "group".
        groups_from: Where the groups come from, such as "column patient_id".
        fold_of: Name under which the folds of one cross-validation are scored together; empty for
            other datasets.
        unreadable: By id the reason of each image that was left out because it cannot be read.
        intensity: The one rule by which values became grey levels, in words; empty if each file
            has its own.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    digest: str
    caveat: str = ""
    positive: str = ""
    unit: str = "group"
    groups_from: str = ""
    fold_of: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    intensity: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits(self.name, self.splits))
        object.__setattr__(self, "positive", positive_class(self.classes, self.positive, self.name))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"ImageDataset({self.name!r}, {len(self.classes)} classes, {sizes})"

    def checked_labels(self, split: str) -> np.ndarray:
        """Return the labels of a split after checking them, int64 [n].

        Raises:
            InputError: If the split is missing, a label is not the number of a class, or there is
                not one label per image.
        """
        part = self.splits[split]
        what = f"{self.name}: labels of the {split} split"
        return checked_labels(part.labels, len(self.classes), shape=(len(part.images),), what=what)


def positive_class(classes: Sequence[str], positive: str = "", name: str = "classes") -> str:
    """Return the positive class of a dataset.

    Args:
        classes: Name of each label.
        positive: Declared positive class; empty takes the last of two classes.
        name: Name of the dataset, for the message.

    Returns:
        One of two classes; empty for any other number of classes.

    Raises:
        InputError: If the declared class does not exist, or if one is declared for any other
            number of classes than two.
    """
    if positive and (len(classes) != 2 or positive not in classes):
        shown = f"{', '.join(classes[:9])}{', ...' if len(classes) > 9 else ''}"
        raise InputError(
            f"{name}: positive class '{positive}': it must be one of exactly two classes; "
            f"the dataset has {len(classes)}: {shown}."
        )
    return positive or (classes[-1] if len(classes) == 2 else "")


def images_digest(images: Images) -> str:
    """Return a hash that identifies images: arrays by their content, files by their paths.

    Args:
        images: An array, a list of arrays, or files that are read when needed; the digest of the
            dataset covers the content of files.

    Returns:
        12 hexadecimal digits.
    """
    if (part := _unpacked_part(images)) is not None:
        return value_hash(part)
    if isinstance(images, np.ndarray | list | tuple):
        digest = hashlib.sha256()
        for image in images:
            digest.update(f"{np.shape(image)} {np.asarray(image).dtype}".encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()[:12]
    attributes = {
        name: str(value)
        for name, value in getattr(images, "__dict__", {}).items()
        if value is not None
    }
    return value_hash([type(images).__name__, attributes])


def _unpacked_part(images: Images) -> list[object] | None:
    """Return what identifies a view of an unpacked array, whose folder is named by its content."""
    if not isinstance(images, np.memmap) or images.mode != "r" or not images.filename:
        return None
    path, mapping = Path(images.filename), getattr(images, "_mmap", None)
    if mapping is None or path.parent.parent.name != UNPACKED:
        return None
    offset = images.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    return [path.parts[-2:], offset, images.shape, images.strides, str(images.dtype)]


class HasCaveat(Protocol):
    """What has a caveat: a dataset, features, a prediction."""

    @property
    def caveat(self) -> str:
        """Caveat to display with every result; may be empty."""


def print_caveats(sources: Iterable[str | HasCaveat]) -> None:
    """Print each caveat once, in the order of its first appearance; nothing where there is none.

    Args:
        sources: Datasets, features or predictions, or the caveats themselves.
    """
    caveats = (source if isinstance(source, str) else source.caveat for source in sources)
    for caveat in dict.fromkeys(caveats):
        if caveat:
            print(f"Remember: {caveat}.")


def summary(datasets: Sequence[ImageDataset]) -> pd.DataFrame:
    """Return one row per dataset: images of each split, classes, positive class, digest, caveat."""
    rows = []
    for dataset in datasets:
        sizes = {name: len(split) for name, split in dataset.splits.items()}
        rows.append(
            {"dataset": dataset.name, **sizes, "classes": len(dataset.classes)}
            | {"positive": dataset.positive, "digest": dataset.digest, "caveat": dataset.caveat}
        )
    return pd.DataFrame(rows)


def class_counts(dataset: ImageDataset) -> pd.DataFrame:
    """Return one row per split and class: split, class, images, groups (NaN if not known)."""
    rows = []
    for split, part in dataset.splits.items():
        labels = dataset.checked_labels(split)
        for label, name in enumerate(dataset.classes):
            chosen = np.flatnonzero(labels == label)
            groups = (
                np.nan
                if part.groups is None
                else len({part.groups[row] for row in chosen.tolist()})
            )
            rows.append({"split": split, "class": name, "images": len(chosen), "groups": groups})
    return pd.DataFrame(rows)
