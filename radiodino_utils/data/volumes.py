"""Segmentation datasets from volumes and label volumes, slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError, unknown_name
from ..core.files import files_digest, value_hash
from .dataset import SPLITS
from .images import LazyImages
from .intensity import Window, checked_window
from .masks import pair_masks
from .nifti import PLANES, read_nifti, read_nifti_values, volume_shape
from .segmentation_dataset import SegmentationDataset

SHARES = (0.7, 0.1, 0.2)  # of the volumes of train, val and test
PERCENTILES = (0.5, 99.5)  # of a volume without a window, which become 0 and 255


@dataclass(frozen=True)
class VolumeSlices(LazyImages):
    """Slices of volumes as a sequence of uint8 arrays, each read when it is needed.

    Attributes:
        paths: Volume of each slice.
        slices: Number of each slice.
        windows: Window of each slice; empty for label volumes, whose values stay as they are.
        plane: See `nifti.read_nifti`.
    """

    paths: tuple[Path, ...]
    slices: tuple[int, ...]
    windows: tuple[Window, ...]
    plane: str

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> np.ndarray:
        """Return a slice, uint8 [height, width], or the labels of a mask as they are stored."""
        path, index = self.paths[row], self.slices[row]
        if self.windows:
            return read_nifti(path, window=self.windows[row], index=index, plane=self.plane)
        labels = read_nifti_values(path, index=index, plane=self.plane)
        if labels.dtype.kind == "f":
            if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
                raise InputError(f"{path}: the mask holds fractions or NaN, not labels.")
            labels = labels.astype(np.int64)
        return labels


def volume_segmentation(
    images: str | Path,
    masks: str | Path,
    *,
    classes: Sequence[str] = ("background", "foreground"),
    window: Window | str | None = None,
    plane: str = "axial",
    step: int = 1,
    seed: int = 0,
) -> SegmentationDataset:
    """Load a folder of NIfTI volumes and a folder of label volumes as slices.

    Args:
        images: Folder of volumes.
        masks: Folder of label volumes on the same grids, each with the name of its volume (see
            `masks.pair_masks`).
        classes: Name of each label.
        window: Lower and upper value that become 0 and 255, or a key of `intensity.WINDOWS`, for
            all volumes; by default `PERCENTILES` of each volume.
        plane: One of `nifti.PLANES`.
        step: Every how many slices one is taken.
        seed: Seed of the split of the volumes, 70 / 10 / 20.

    Returns:
        The dataset; slices of a volume are in one split.

    Raises:
        InputError: If a folder is missing, there are fewer than three volumes, or a volume and its
            labels are not on one grid.
    """
    images, masks, window = Path(images), Path(masks), checked_window(window, str(images))
    if plane not in PLANES:
        raise unknown_name("plane", plane, PLANES)
    if step < 1:
        raise InputError(f"step {step}: give a number of slices above 0.")
    pairs = pair_masks(images, masks)
    if len(pairs) < 3:
        raise InputError(f"{images}: holds {len(pairs)} volumes; at least three are needed.")
    counts = [_shared_shape(*pair)[PLANES.index(plane)] for pair in pairs]
    windows = [window or _percentile_window(image) for image, _ in pairs]
    volume_of = np.concatenate([np.full(len(range(0, n, step)), v) for v, n in enumerate(counts)])
    slices = tuple(number for count in counts for number in range(0, count, step))
    kept = [pairs[volume] for volume in volume_of]
    names = [image.name for image, _ in pairs]
    return SegmentationDataset(
        name=f"volumes-{images.resolve().parent.name}",
        classes=tuple(classes),
        images=VolumeSlices(
            tuple(image for image, _ in kept),
            slices,
            tuple(windows[volume] for volume in volume_of),
            plane,
        ),
        masks=VolumeSlices(tuple(mask for _, mask in kept), slices, (), plane),
        ids=[
            f"{image.name} {plane} {number:03d}"
            for (image, _), number in zip(kept, slices, strict=True)
        ],
        kinds=[""] * len(slices),
        splits=_volume_splits(volume_of, len(pairs), seed),
        protocol=f"volumes 70 / 10 / 20 at random, seed {seed}",
        spacing_mm=None,
        digest=value_hash([files_digest(images, names), windows, plane, step]),
    )


def _volume_splits(volume_of: np.ndarray, volumes: int, seed: int) -> dict[str, np.ndarray]:
    """Return the rows of each split; a volume stays in one."""
    order = np.random.default_rng(seed).permutation(volumes)
    sizes = [max(1, round(share * volumes)) for share in SHARES[1:]]
    parts = np.split(order, [volumes - sum(sizes), volumes - sizes[1]])
    return {
        split: np.flatnonzero(np.isin(volume_of, part))
        for split, part in zip(SPLITS, parts, strict=True)
    }


def _shared_shape(image: Path, mask: Path) -> tuple[int, int, int]:
    """Return the shape of a volume after checking that its labels are on the same grid."""
    import nibabel

    shape, other = volume_shape(image), volume_shape(mask)
    grid, labelled = (
        nibabel.as_closest_canonical(nibabel.load(path)).affine for path in (image, mask)
    )
    if shape != other or not np.allclose(grid, labelled, atol=1e-2):
        raise InputError(
            f"{mask}: the labels are not on the grid of {image.name} (shapes {other} and {shape}); "
            "resample them."
        )
    return shape


def _percentile_window(path: Path) -> Window:
    """Return `PERCENTILES` of the finite values of a volume."""
    import nibabel

    try:
        values = np.asarray(nibabel.load(path).dataobj)
    except Exception as error:  # nibabel raises anything on damaged files
        raise InputError(f"{path}: the NIfTI file is damaged or truncated ({error}).") from error
    low, high = np.percentile(values[np.isfinite(values)], PERCENTILES)
    return float(low), float(high if high > low else low + 1)
