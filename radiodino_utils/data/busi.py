"""BUSI: breast ultrasound images with lesion masks, as they are released."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import InputError
from ..core.files import data_folder
from .duplicates import duplicate_groups
from .images import ImageFiles, LazyImages, read_image

CLASSES = ("normal", "benign", "malignant")
HINT = (
    "download it from https://scholar.cu.edu.eg/?q=afahmy/pages/dataset "
    "and name its folder with the environment variable BUSI"
)
_FILE = re.compile(rf"({'|'.join(CLASSES)}) \((\d+)\)(_mask(?:_\d+)?)?\.png")


@dataclass(frozen=True)
class LesionMasks(LazyImages):
    """Lesion mask of each image, bool [height, width]: the union of its files, read when needed."""

    files: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, row: int) -> np.ndarray:
        """Return the mask of an image, bool [height, width]."""
        return np.logical_or.reduce([_read_mask(path) for path in self.files[row]])


@dataclass(frozen=True)
class Busi:
    """Images of BUSI, sorted by class and number.

    Source: Al-Dhabyani et al., Data in Brief 28 (2020) 104863.

    Attributes:
        names: Names of the files, such as "benign (433)".
        labels: Index into `CLASSES`, int64 [n].
        images: By row uint8 [height, width], grey; read when needed.
        masks: By row bool [height, width], of the size of the image, empty for a normal one; read
            when needed.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    images: ImageFiles
    masks: LesionMasks

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each image, int64 [n]; duplicates share one (see `duplicate_groups`)."""
        return duplicate_groups(self.images)


def read_busi(folder: str | Path | None = None) -> Busi:
    """Find the images and masks of BUSI and check that they fit each other.

    Args:
        folder: Folder that holds `benign`, `malignant` and `normal`, or `Dataset_BUSI_with_GT`
            with them; by default `$BUSI` or the data folder's `busi`.

    Returns:
        The release.

    Raises:
        InputError: If it is missing, or an image has no mask or one of another size.
    """
    root = find_busi(folder)
    if root is None:
        raise InputError(
            f"{_expected_folder(folder)}: BUSI is not there (folders {', '.join(CLASSES)}); {HINT}."
        )
    images: dict[tuple[int, int], Path] = {}
    masks: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(path for name in CLASSES for path in (root / name).iterdir()):
        if match := _FILE.fullmatch(path.name):
            key = (CLASSES.index(match[1]), int(match[2]))
            if match[3]:
                masks.setdefault(key, []).append(path)
            else:
                images[key] = path
    if not images:
        raise InputError(
            f"{root}: holds no images named as BUSI's are, such as 'benign (1).png'; "
            "unpack the release again."
        )
    for key, path in images.items():
        _require_masks(path, masks.get(key, []))
    order = sorted(images)
    return Busi(
        tuple(images[key].stem for key in order),
        np.array([label for label, _ in order], np.int64),
        ImageFiles(root, [images[key].relative_to(root).as_posix() for key in order], grey=True),
        LesionMasks(tuple(tuple(masks[key]) for key in order)),
    )


def find_busi(folder: str | Path | None = None) -> Path | None:
    """Return the folder that holds the class folders of BUSI, or `None`; see `read_busi`."""
    expected = _expected_folder(folder)
    for root in (expected / "Dataset_BUSI_with_GT", expected):
        if all((root / name).is_dir() for name in CLASSES):
            return root
    return None


def _expected_folder(folder: str | Path | None) -> Path:
    return Path(folder or os.environ.get("BUSI") or data_folder() / "busi").expanduser()


def _require_masks(image: Path, masks: list[Path]) -> None:
    """Check that an image has a mask, and that all its masks have its size."""
    if not masks:
        raise InputError(
            f"{image}: the image has no mask; '{image.stem}_mask.png' belongs beside it."
        )
    size = _size(image)
    for mask in masks:
        if _size(mask) != size:
            raise InputError(
                f"{mask}: the mask is {_size(mask)} pixels and its image {size}; "
                "both must be of one size."
            )


def _size(path: Path) -> tuple[int, int]:
    """Return width and height, reading only the header."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise InputError(
            f"{path}: not an image that can be read ({error}); copy or download it again."
        ) from error


def _read_mask(path: Path) -> np.ndarray:
    mask = read_image(path)
    if mask.ndim == 3:
        mask = mask.max(2)
    if others := sorted(set(np.unique(mask).tolist()) - {0, 255}):
        raise InputError(
            f"{path}: the mask holds the values {', '.join(map(str, others[:5]))}; "
            "only 0 and 255 are known."
        )
    return mask > 0
