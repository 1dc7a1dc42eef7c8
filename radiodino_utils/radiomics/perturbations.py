"""Seeded perturbations of cases: what another scan, position or reader could have changed.

They follow Zwanenburg et al., "Assessing robustness of radiomic features by image perturbation",
Scientific Reports 9 (2019) 614.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np

from ..core.extras import extra
from .cases import Case, Region, find_regions

DEGREES = 10.0  # largest rotation
SUPERVOXEL = 32  # voxels
RARELY, SURELY = 0.2, 0.9  # less or more of a supervoxel leaves nothing to chance
GROWN = 6  # voxels around a region whose contour is randomised
Arrays = tuple[np.ndarray, np.ndarray]  # values and labels


def perturbed(case: Case, kind: str, *, labels: Sequence[int] = (), seed: int = 0) -> Case:
    """Return a case with one perturbation.

    Args:
        case: The case.
        kind: A key of `PERTURBATIONS`.
        labels: Labels whose contours may change; all by default.
        seed: Seed of what is drawn, together with the kind and the name of the case.

    Returns:
        A new case of the same shape and type of values.
    """
    generator = np.random.default_rng([seed, crc32(f"{kind} {case.name}".encode())])
    regions = [one for one in find_regions(case) if not labels or one.label in labels]
    values, changed = PERTURBATIONS[kind](case, regions, generator)
    stored = case.values.dtype
    if values.dtype != stored and stored.kind in "iu":
        values = np.rint(values).clip(np.iinfo(stored).min, np.iinfo(stored).max)
    return replace(case, values=values.astype(stored, copy=False), labels=changed)


def noise_level(values: np.ndarray) -> float:
    """Estimate the standard deviation of the noise of an image.

    Source: Immerkaer, Computer Vision and Image Understanding 64 (1996) 300; median of slices.

    Args:
        values: [slices, rows, columns].
    """
    with extra("evaluation"):
        from scipy.ndimage import convolve

    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)
    steps = max(1, len(values) // 20)
    means = [np.abs(convolve(plane.astype(float), kernel)).mean() for plane in values[::steps]]
    return float(math.sqrt(math.pi / 2) / 6 * np.median(means))


def _same(case: Case, _: list[Region], __: np.random.Generator) -> Arrays:
    return case.values, case.labels


def _translated(case: Case, _: list[Region], generator: np.random.Generator) -> Arrays:
    """Shift the grid by a quarter to half a voxel along rows and columns."""
    with extra("evaluation"):
        from scipy.ndimage import shift

    # less than half a voxel: the values change, the nearest label stays
    by = (0.0, *generator.uniform(0.25, 0.5, 2) * generator.choice([-1, 1], 2))
    return (
        shift(case.values.astype(np.float32), by, order=1, mode="nearest"),
        shift(case.labels, by, order=0),
    )


def _rotated(case: Case, _: list[Region], generator: np.random.Generator) -> Arrays:
    """Rotate in the plane of the slices, by 2 degrees to `DEGREES`."""
    with extra("evaluation"):
        from scipy.ndimage import rotate

    angle = generator.uniform(2, DEGREES) * generator.choice([-1, 1])
    turn = {"axes": (1, 2), "reshape": False}
    return (
        rotate(case.values.astype(np.float32), angle, order=1, mode="nearest", **turn),
        rotate(case.labels, angle, order=0, **turn),
    )


def _noisy(case: Case, _: list[Region], generator: np.random.Generator) -> Arrays:
    """Add noise of the level that the image has."""
    noise = generator.normal(0, noise_level(case.values), case.values.shape)
    return (case.values + noise).astype(np.float32), case.labels


def _grown(case: Case, regions: list[Region], _: np.random.Generator) -> Arrays:
    """Grow each region by a voxel where no other is."""
    with extra("evaluation"):
        from scipy.ndimage import binary_dilation

    labels = case.labels.copy()
    for region in regions:
        box, inside = _widened(case, region, 1)
        free = binary_dilation(inside) & (labels[box] == 0)
        labels[box][free] = region.label
    return case.values, labels


def _shrunk(case: Case, regions: list[Region], _: np.random.Generator) -> Arrays:
    """Take a voxel from the border of each region that keeps some."""
    with extra("evaluation"):
        from scipy.ndimage import binary_erosion

    labels = case.labels.copy()
    flat = len(labels) == 1
    for region in regions:
        box, inside = _widened(case, region, 1)
        structure = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]) if flat else None
        kept = binary_erosion(inside, structure, border_value=1)
        if kept.any():
            labels[box][inside & ~kept] = 0
    return case.values, labels


def _recontoured(case: Case, regions: list[Region], generator: np.random.Generator) -> Arrays:
    """Draw the contour anew along supervoxels: each belongs with the share that lies inside."""
    with extra("radiomics"):
        from skimage.segmentation import slic

    labels = case.labels.copy()
    for region in regions:
        box, inside = _widened(case, region, GROWN)
        values = case.values[box].astype(float)
        span = np.ptp(values) or 1.0
        parts = slic(
            (values - values.min()) / span,
            n_segments=max(8, values.size // SUPERVOXEL),
            compactness=0.1,
            spacing=case.spacing_mm,
            channel_axis=None,
            start_label=0,
        )
        count = parts.max() + 1
        share = np.bincount(parts[inside], minlength=count) / np.bincount(parts.ravel())
        drawn = (generator.random(count) < share) & (share >= RARELY) | (share >= SURELY)
        chosen = drawn[parts]
        if not chosen.any():
            continue
        labels[box][inside] = 0
        labels[box][chosen & (labels[box] == 0)] = region.label
    return case.values, labels


def _widened(
    case: Case, region: Region, voxels: int
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return the box of a region with voxels around it, within the image, and its mask there."""
    a, b, c = (
        slice(max(0, edge.start - voxels), min(size, edge.stop + voxels))
        for edge, size in zip(region.box, case.values.shape, strict=True)
    )
    around = [
        (inner.start - outer.start, outer.stop - inner.stop)
        for inner, outer in zip(region.box, (a, b, c), strict=True)
    ]
    return (a, b, c), np.pad(region.inside, around)


PERTURBATIONS: dict[str, Callable[[Case, list[Region], np.random.Generator], Arrays]] = {
    "none": _same,
    "translation": _translated,
    "rotation": _rotated,
    "noise": _noisy,
    "grown": _grown,
    "shrunk": _shrunk,
    "contour": _recontoured,
}
