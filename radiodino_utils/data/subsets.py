"""Some rows of a split, and two sequences of images as one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dataset import Split
from .images import Images, LazyImages


def split_rows(split: Split, rows: np.ndarray) -> Split:
    """Return a split with some rows of another, int64, in their order."""
    groups = None if split.groups is None else named_rows(split.groups, rows)
    return Split(_Rows(split.images, rows), split.labels[rows], named_rows(split.ids, rows), groups)


def named_rows(names: Sequence[str], rows: np.ndarray) -> list[str]:
    """Return the names of some rows."""
    return [names[row] for row in rows]


@dataclass(frozen=True)
class _Rows(LazyImages):
    """Some rows of a sequence of images, read when needed.

    The name of the class is part of cache keys, see `images_digest`.
    """

    images: Images
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> np.ndarray:
        """Return the image of a row."""
        return self.images[int(self.rows[row])]


@dataclass(frozen=True)
class JoinedImages(LazyImages):
    """Two sequences of images, one after the other.

    Attributes:
        first: Those of the first rows.
        second: Those of the rows after them.
    """

    first: Images
    second: Images

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, row: int) -> np.ndarray:
        """Return the image of a row."""
        row -= len(self.first)
        return self.first[row + len(self.first)] if row < 0 else self.second[row]
