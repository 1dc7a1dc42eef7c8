"""BUSI: breast ultrasound images with lesion masks, and the ways to split them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..core.errors import InputError, unknown_name
from ..core.extras import extra
from ..core.files import data_folder, files_digest, value_hash
from .dataset import ImageDataset, Split
from .duplicates import duplicate_groups
from .images import ImageFiles, read_image

CLASSES = ("normal", "benign", "malignant")
PROTOCOLS = ("breastmnist", "folds", "lesions")
FOLDS = 5
BUSI_NAMES = ("busi", "busi-breastmnist", *(f"busi-fold{fold}" for fold in range(FOLDS)))
BUSI_HINT = "download it from https://scholar.cu.edu.eg/?q=afahmy/pages/dataset and name its folder with the environment variable BUSI"
_FILE = re.compile(rf"({'|'.join(CLASSES)}) \((\d+)\)(_mask(?:_\d+)?)?\.png")


@dataclass(frozen=True)
class LesionMasks(Sequence):
    """The lesion mask of each image, read when asked for: bool [height, width], the union of its mask files."""

    files: tuple[tuple[Path, ...], ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.logical_or.reduce([_read_mask(path) for path in self.files[index]])


@dataclass(frozen=True)
class Busi:
    """The BUSI images (Al-Dhabyani et al., Data in Brief 28 (2020) 104863), sorted by class and
    number.

    Attributes:
        names: As the files are called, such as "benign (433)".
        labels: int64, [n]: index into `CLASSES`.
        images: By index uint8 [height, width], grey; read when asked for.
        masks: By index bool [height, width], as large as the image; read when asked for. Nothing is
            marked in a normal one.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    images: ImageFiles
    masks: LesionMasks

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of each image, int64, [n]; exact and near duplicates share one (see `duplicate_groups`)."""
        return duplicate_groups(self.images)


def read_busi(folder: str | Path | None = None) -> Busi:
    """Finds the images and masks of BUSI and checks that they fit each other.

    Args:
        folder: With `benign`, `malignant` and `normal` in it, or in its `Dataset_BUSI_with_GT`;
            `$BUSI` or the data folder's `busi` by default.

    Returns:
        The set.

    Raises:
        InputError: If it is not there, or a image has no mask or one of another size.
    """
    root = find_busi(folder)
    if root is None:
        raise InputError(
            f"{_place(folder)}: BUSI is not there (folders {', '.join(CLASSES)}); {BUSI_HINT}."
        )
    images, masks = {}, {}
    for path in sorted(path for name in CLASSES for path in (root / name).iterdir()):
        if match := _FILE.fullmatch(path.name):
            key = (CLASSES.index(match[1]), int(match[2]))
            if match[3]:
                masks.setdefault(key, []).append(path)
            else:
                images[key] = path
    if not images:
        raise InputError(
            f"{root}: holds no images named as BUSI's are, such as 'benign (1).png'; unpack the release again."
        )
    for key, path in images.items():
        if key not in masks:
            raise InputError(
                f"{path}: the image has no mask; '{path.stem}_mask.png' belongs beside it."
            )
        size = _size(path)
        for mask in masks[key]:
            if _size(mask) != size:
                raise InputError(
                    f"{mask}: the mask is {_size(mask)} pixels and its image {size}; both must be of one size."
                )
    order = sorted(images)
    return Busi(
        tuple(images[key].stem for key in order),
        np.array([label for label, _ in order], np.int64),
        ImageFiles(root, [images[key].relative_to(root).as_posix() for key in order], grey=True),
        LesionMasks(tuple(tuple(masks[key]) for key in order)),
    )


def find_busi(folder: str | Path | None = None) -> Path | None:
    """The folder that holds BUSI's class folders, if there is one; see `read_busi`."""
    roots = [_place(folder) / "Dataset_BUSI_with_GT", _place(folder)]
    return next((root for root in roots if all((root / name).is_dir() for name in CLASSES)), None)


def _place(folder: str | Path | None) -> Path:
    return Path(folder or os.environ.get("BUSI") or data_folder() / "busi").expanduser()


def busi_set(name: str, folder: str | Path | None = None) -> ImageDataset:
    """BUSI's three classes as a labelled set.

    Args:
        name: `busi` (one split, "all"), `busi-breastmnist`, or `busi-fold0` to `busi-fold4`; see
            `busi_splits`.
        folder: See `read_busi`.

    Returns:
        The set; the ids are BUSI's names, the groups its duplicates.
    """
    busi, kind = read_busi(folder), name.removeprefix("busi-")
    if kind == "busi":
        rows = {"all": np.arange(len(busi))}
    elif kind == "breastmnist":
        rows = busi_splits(busi, "breastmnist")
    else:
        rows = busi_splits(busi, "folds", fold=int(kind.removeprefix("fold")))
    groups = busi.groups.astype(str)
    splits = {
        split: Split(
            ImageFiles(busi.images.root, [busi.images.names[row] for row in part], grey=True),
            busi.labels[part],
            [busi.names[row] for row in part],
            groups[part].tolist(),
        )
        for split, part in rows.items()
    }
    content = files_digest(busi.images.root, busi.images.names)
    caveat = "near duplicates lie across the official splits" if kind == "breastmnist" else ""
    return ImageDataset(
        name,
        CLASSES,
        splits,
        value_hash([content, {split: part.tolist() for split, part in rows.items()}]),
        caveat,
    )


def busi_splits(
    busi: Busi, protocol: str, *, seed: int = 0, fold: int = 0
) -> dict[str, np.ndarray]:
    """Splits BUSI by a named protocol.

    Args:
        busi: What `read_busi` gives.
        protocol: `breastmnist`: the official split of BreastMNIST, which is made from BUSI
            (duplicates lie across its splits). `folds`: one of five folds is the test split, one in
            five of the rest validation. `lesions`: images with a lesion only, 70 / 10 / 20 percent.
            The last two are stratified by class and keep duplicates together.
        seed: Of `folds` and `lesions`.
        fold: Which of the five `folds` is the test split.

    Returns:
        Rows of "train", "val" and "test": int64, sorted for `folds` and `lesions`, in BreastMNIST's
        order for `breastmnist`.

    Raises:
        InputError: If the protocol or fold is unknown, images of BreastMNIST are missing, or a
            class is too small.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("split of BUSI", protocol, PROTOCOLS)
    if not 0 <= fold < FOLDS:
        raise InputError(f"fold {fold}: there are {FOLDS} folds, 0 to {FOLDS - 1}.")
    if protocol == "breastmnist":
        return _official(busi)
    if protocol == "folds":
        rows = np.arange(len(busi))
        parts = _parts(busi, rows, FOLDS, seed)
        test, rest = rows[parts == fold], rows[parts != fold]
        parts = _parts(busi, rest, FOLDS, seed)
        return {"train": rest[parts != 0], "val": rest[parts == 0], "test": test}
    rows = np.flatnonzero(busi.labels != CLASSES.index("normal"))
    parts = _parts(busi, rows, 10, seed)
    return {"train": rows[parts > 2], "val": rows[parts == 2], "test": rows[parts < 2]}


def _parts(busi: Busi, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which of `count` parts each row falls into."""
    with extra("evaluation"):
        from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = busi.labels[rows], busi.groups[rows]
    for label in np.unique(labels):
        if (held := len(np.unique(groups[labels == label]))) < count:
            raise InputError(
                f"BUSI: {held} images of '{CLASSES[label]}' that are no duplicates; {count} parts need as many."
            )
    parts = np.empty(len(rows), np.int64)
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(rows, labels, groups)
    for part, (_, members) in enumerate(folds):
        parts[members] = part
    return parts


def _official(busi: Busi) -> dict[str, np.ndarray]:
    with resources.as_file(resources.files(__package__) / "breastmnist_busi.csv") as path:
        table = pd.read_csv(path)
    row_of = {name: row for row, name in enumerate(busi.names)}
    if absent := [name for name in table["name"] if name not in row_of]:
        raise InputError(
            f"BUSI: {len(absent)} of BreastMNIST's images are missing, first '{absent[0]}'; use the whole release."
        )
    return {
        split: np.array([row_of[name] for name in part["name"]], np.int64)
        for split, part in table.groupby("split", sort=False)
    }


def _size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's head alone."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise InputError(
            f"{path}: not a image that can be read ({error}); copy or download it again."
        ) from error


def _read_mask(path: Path) -> np.ndarray:
    mask = read_image(path)
    if mask.ndim == 3:
        mask = mask.max(2)
    if odd := sorted(set(np.unique(mask).tolist()) - {0, 255}):
        raise InputError(
            f"{path}: the mask holds the values {', '.join(map(str, odd[:5]))}; only 0 and 255 are known."
        )
    return mask > 0
