"""BUSI as MedSegBench divides it: its images with a lesion at 512 px, 452 / 64 / 131."""

import os
from pathlib import Path

import numpy as np

from ..core.downloads import Missing, download
from ..core.errors import InputError
from ..core.files import data_folder
from .dataset import SPLITS
from .duplicates import duplicate_groups
from .npz import mapped_arrays
from .segmentation_dataset import SegmentationDataset

NAME = "busi-medsegbench"
FILE = "busi_512.npz"
URL = f"https://zenodo.org/records/13358372/files/{FILE}?download=1"
MD5 = "fab7550a6c5240e35da8ce5d31bc1c61"  # of medsegbench/info.py, as the address
HINT = f"name the folder that holds {FILE} with the environment variable MEDSEGBENCH"


def load_medsegbench(folder: str | Path | None = None) -> SegmentationDataset:
    """Load MedSegBench's BUSI; a missing file is downloaded into the data folder.

    Source: Kus and Aydin, Sci. Data 11:1283, 2024.

    Args:
        folder: Folder of the file; by default `$MEDSEGBENCH` or the data folder's `medsegbench`.

    Returns:
        The dataset; clusters of near duplicates are its groups.

    Raises:
        InputError: If the file has the wrong MD5 or another layout, or cannot be downloaded.
    """
    own = data_folder() / "medsegbench" / FILE
    path = find_medsegbench(folder) or download(URL, own, expected=MD5, hint=HINT)
    arrays, digest = mapped_arrays(path, md5=MD5)
    parts = {split: _part(arrays, split, path) for split in SPLITS}
    images, masks = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    ends = np.cumsum([len(part[0]) for part in parts.values()]).tolist()
    rows = np.split(np.arange(len(images)), ends[:-1])
    groups = duplicate_groups(images).astype(str)
    shared = sum(len(np.unique(groups[part])) for part in rows) > len(np.unique(groups))
    return SegmentationDataset(
        name=NAME,
        classes=("background", "lesion"),
        images=images,
        masks=masks,
        ids=[f"{split}/{row:06d}" for split, part in parts.items() for row in range(len(part[0]))],
        kinds=[""] * len(images),
        splits=dict(zip(SPLITS, rows, strict=True)),
        protocol="MedSegBench: images with a lesion only, 452 / 64 / 131, 512 px",
        spacing_mm=None,
        digest=digest,
        caveat="near duplicates lie across the official splits" if shared else "",
        groups=groups.tolist(),
        unit="cluster",
        groups_from="near duplicates",
    )


def find_medsegbench(folder: str | Path | None = None) -> Path | None:
    """Return the file if it is on this machine; see `load_medsegbench`."""
    named = folder or os.environ.get("MEDSEGBENCH") or data_folder() / "medsegbench"
    path = Path(named).expanduser() / FILE
    return path if path.is_file() else None


def missing_medsegbench() -> Missing | None:
    """Return what to do if the file is not on this machine; `None` if it is."""
    if find_medsegbench():
        return None
    return Missing(NAME, URL, f"download {URL} and {HINT}")


def _part(arrays: dict[str, np.ndarray], split: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images and masks of a split after checking them."""
    keys = f"{split}_images", f"{split}_label"
    if missing := [key for key in keys if key not in arrays]:
        raise InputError(
            f"{path}: the keys {', '.join(missing)} are missing; MedSegBench's layout is needed."
        )
    images, masks = (arrays[key] for key in keys)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape != masks.shape:
        raise InputError(
            f"{path}: {keys[0]} is {images.dtype} {images.shape} and {keys[1]} {masks.shape}; "
            "uint8 [n, height, width] and masks of the same shape are needed."
        )
    return images, masks
