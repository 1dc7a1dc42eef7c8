"""Segmentation datasets from volumes and label volumes, slice by slice."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError, unknown_name
from ..core.files import files_digest, value_hash
from .dataset import SPLITS
from .images import LazyImages
from .intensity import Percentiles, Rule, checked_window, limits, rule_text
from .masks import pair_masks, readable_pairs, whole_numbers
from .nifti import PLANES, Grid, read_nifti, read_nifti_values, read_volume, volume_grid
from .readability import caveat_without
from .segmentation_dataset import SegmentationDataset
from .slices import chosen_slices

SHARES = (0.7, 0.1, 0.2)  # of the volumes of train, val and test
PERCENTILES = Percentiles(0.5, 99.5, "volume")  # without another rule


@dataclass(frozen=True)
class VolumeSlices(LazyImages):
    """Slices of volumes as a sequence of uint8 arrays, each read when it is needed.

    Attributes:
        paths: File of each slice.
        slices: Number of each slice.
        windows: Window of each slice; empty for label volumes, whose values stay as they are.
        plane: See `nifti.read_nifti`.
        volume: Volume of files that hold several.
    """

    paths: tuple[Path, ...]
    slices: tuple[int, ...]
    windows: tuple[Rule, ...]
    plane: str
    volume: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> np.ndarray:
        """Return a slice, uint8 [height, width], or the labels of a mask as they are stored."""
        path, index, plane = self.paths[row], self.slices[row], self.plane
        if self.windows:
            window = self.windows[row]
            return read_nifti(path, window=window, index=index, plane=plane, volume=self.volume)
        return whole_numbers(read_nifti_values(path, index=index, plane=plane), path)


def volume_segmentation(
    images: str | Path,
    masks: str | Path,
    *,
    classes: Sequence[str] = ("background", "foreground"),
    window: Rule | str | None = None,
    plane: str | None = None,
    slices: str = "all",
    volume: int = 0,
    seed: int = 0,
    tolerated: float | None = None,
) -> SegmentationDataset:
    """Load a folder of NIfTI volumes and a folder of label volumes as slices.

    Args:
        images: Folder of volumes.
        masks: Folder of label volumes on the same grids, each with the name of its volume (see
            `masks.pair_masks`).
        classes: Name of each label.
        window: Lower and upper value that become 0 and 255, a key of `intensity.WINDOWS`, or
            percentiles, for all volumes; by default `PERCENTILES`.
        plane: One of `nifti.PLANES`; by default the plane in which most were acquired.
        slices: Slices of each volume: `all`, `middle`, or a number of them, evenly from the first
            to the last.
        volume: Which one of files that hold several volumes, such as time points, from 0.
        seed: Seed of the split of the volumes, 70 / 10 / 20.
        tolerated: Share of volumes that are left out if they or their labels cannot be read; `None`
            reads nothing ahead.

    Returns:
        The dataset; slices of a volume are in one split.

    Raises:
        InputError: If a folder is missing, there are fewer than three volumes, a volume and its
            labels are not on one grid, or too many cannot be read.
    """
    images, masks = Path(images), Path(masks)
    rule = checked_window(window, str(images)) or PERCENTILES
    if plane is not None and plane not in PLANES:
        raise unknown_name("plane", plane, PLANES)
    pairs, unreadable = readable_pairs(
        pair_masks(images, masks),
        lambda image, mask: _read_ends(image, volume) + _read_ends(mask, None),
        facts=volume,
        source=images,
        tolerated=tolerated,
    )
    if len(pairs) < 3:
        raise InputError(f"{images}: holds {len(pairs)} volumes; at least three are needed.")
    grids = [_shared_grid(*pair, volume) for pair in pairs]
    plane = plane or Counter(grid.plane for grid in grids).most_common(1)[0][0]
    counts = [grid.shape[PLANES.index(plane)] for grid in grids]
    numbers = [chosen_slices(count, slices) for count in counts]
    windows = [_rule_of(image, volume, rule) for image, _ in pairs]
    volume_of = np.repeat(np.arange(len(pairs)), [len(chosen) for chosen in numbers])
    chosen = tuple(np.concatenate(numbers).tolist())
    kept = [pairs[row] for row in volume_of]
    shown = tuple(windows[row] for row in volume_of)
    shown_windows = [one if isinstance(one, tuple) else str(one) for one in windows]
    names = [image.relative_to(images).as_posix() for image, _ in pairs]
    return SegmentationDataset(
        name=f"volumes-{images.resolve().parent.name}",
        classes=tuple(classes),
        images=VolumeSlices(tuple(image for image, _ in kept), chosen, shown, plane, volume),
        masks=VolumeSlices(tuple(mask for _, mask in kept), chosen, (), plane),
        ids=[f"{names[v]} {plane} {n:03d}" for v, n in zip(volume_of, chosen, strict=True)],
        kinds=[""] * len(chosen),
        splits=_volume_splits(volume_of, len(pairs), seed),
        protocol=f"volumes 70 / 10 / 20 at random, seed {seed}",
        spacing_mm=_shared_spacing(grids, plane),
        digest=value_hash([files_digest(images, names), shown_windows, plane, slices, volume]),
        intensity=rule_text(rule),
        groups=[names[v] for v in volume_of],
        unit="volume",
        groups_from="files",
        drawn=True,
        caveat=caveat_without(unreadable, len(pairs) + len(unreadable), what="volumes"),
        unreadable=unreadable,
    )


def _read_ends(path: Path, volume: int | None) -> list[np.ndarray]:
    """Read the first and the last slice, between which a cut file ends."""
    return [read_nifti_values(path, index=end, volume=volume) for end in (0, -1)]


def _volume_splits(volume_of: np.ndarray, volumes: int, seed: int) -> dict[str, np.ndarray]:
    """Return the rows of each split; a volume stays in one."""
    order = np.random.default_rng(seed).permutation(volumes)
    sizes = [max(1, round(share * volumes)) for share in SHARES[1:]]
    parts = np.split(order, [volumes - sum(sizes), volumes - sizes[1]])
    return {
        split: np.flatnonzero(np.isin(volume_of, part))
        for split, part in zip(SPLITS, parts, strict=True)
    }


def _shared_grid(image: Path, mask: Path, volume: int) -> Grid:
    """Return the grid of a volume after checking that its labels are on the same one."""
    grid, labelled = volume_grid(image), volume_grid(mask)
    if grid.shape != labelled.shape or not np.allclose(grid.affine, labelled.affine, atol=1e-2):
        raise InputError(
            f"{mask}: the labels are not on the grid of {image.name} (shapes {labelled.shape} and "
            f"{grid.shape}); resample them."
        )
    if labelled.volumes > 1:
        raise InputError(f"{mask}: holds {labelled.volumes} volumes; labels are one volume.")
    if not 0 <= volume < grid.volumes:
        raise InputError(f"{image}: volume {volume} is outside the file's {grid.volumes} volumes.")
    return grid


def _shared_spacing(grids: Sequence[Grid], plane: str) -> tuple[float, float] | None:
    """Return the distance of rows and of columns that all volumes have, in mm, else `None`."""
    spacings = np.array([grid.pixel_mm(plane) for grid in grids])
    rows, columns = spacings[0].tolist()
    return (rows, columns) if np.allclose(spacings, spacings[0], rtol=1e-3, atol=0) else None


def _rule_of(path: Path, volume: int, rule: Rule) -> Rule:
    """Return the window that a rule over volumes means for a volume, or any other rule itself."""
    if not isinstance(rule, Percentiles) or rule.over == "image":
        return rule
    values = read_volume(path, volume)
    if not np.isfinite(values).any():
        raise InputError(f"{path}: holds no finite value; leave it out.")
    return limits(values, rule)
