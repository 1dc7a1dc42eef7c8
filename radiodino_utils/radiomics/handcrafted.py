"""Handcrafted features of a region: first order, texture (fastrad) and shape (scikit-image)."""

import logging
import math
import warnings

import numpy as np

from ..core.extras import extra
from .options import RadiomicsOptions

TEXTURES = ("glcm", "glrlm", "glszm", "gldm", "ngtdm")
LEVELS = 512  # the matrices of more take gigabytes
Spacing = tuple[float, float, float]


def handcrafted_features(
    values: np.ndarray,
    inside: np.ndarray,
    *,
    spacing_mm: Spacing | None = None,
    options: RadiomicsOptions | None = None,
) -> tuple[dict[str, float], str]:
    """Return the handcrafted features of a region.

    Texture follows the Image Biomarker Standardisation Initiative (IBSI, Zwanenburg et al.,
    Radiology 295 (2020) 328): each direction has its own matrix, and the features are averaged.
    Grey levels count from the lowest of the region, not from the declared `lowest`. An image of one
    slice is taken as a plane.

    Args:
        values: Grey values around the region, [slices, rows, columns].
        inside: bool, of the same shape.
        spacing_mm: Distances of slices, rows and columns; 1 by default.
        options: Options of the discretisation; those of resampling do not count here.

    Returns:
        Features by name, and why some are missing, or "".
    """
    options = options or RadiomicsOptions()
    spacing = spacing_mm or (1.0, 1.0, 1.0)
    if not inside.any():
        return {}, "smaller than a voxel of the resampled image"
    flat = len(values) == 1
    features = _shape_of_plane(inside, spacing) if flat else _shape(inside, spacing)
    low, high = options.lowest, options.highest
    inside = inside & (values >= (-math.inf if low is None else low))
    inside &= values <= (math.inf if high is None else high)
    if not inside.any():
        return features, "no value between lowest and highest"
    levels = _levels(values, inside, options)
    features |= _first_order(values[inside], levels[inside], math.prod(spacing))
    if levels[inside].min() == levels.max():
        return features, "one grey level has no texture"
    if levels.max() > LEVELS:
        return features, f"more than {LEVELS} grey levels; choose a wider bin"
    for family in TEXTURES:
        features |= _texture(family, levels, flat)
    return features, ""


def resampled(
    values: np.ndarray,
    inside: np.ndarray,
    *,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    spacing_mm: Spacing,
    edge_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a part of an image to cubic voxels, as if the whole image were resampled.

    Values and mask are interpolated linearly, on a grid that shares its centre with the image (IBSI
    reference manual, section 2.4); the mask counts from one half.

    Args:
        values: Part of the image, [slices, rows, columns].
        inside: Mask, of the same shape.
        start: First slice, row and column of the part.
        shape: Shape of the whole image; an image of one slice keeps it.
        spacing_mm: Distances of slices, rows and columns.
        edge_mm: Edge of the new voxels.

    Returns:
        Values, float32, and mask, bool.
    """
    with extra("radiomics"):
        from scipy.ndimage import affine_transform

    steps, first, count = [], [], []
    for axis, whole in enumerate(shape):
        step = 1.0 if axis == 0 and whole == 1 else edge_mm / spacing_mm[axis]
        voxels = math.ceil(round(whole / step, 6))
        positions = (np.arange(voxels) - (voxels - 1) / 2) * step + (whole - 1) / 2 - start[axis]
        within = positions[(positions > -0.5) & (positions < values.shape[axis] - 0.5)]
        steps.append(step)
        first.append(within[0] if len(within) else 0.0)
        count.append(len(within))
    arrays = (
        affine_transform(array.astype(np.float32), steps, first, count, order=1, mode="nearest")
        for array in (values, inside)
    )
    grey, share = arrays
    return grey, share >= 0.5


def _levels(values: np.ndarray, inside: np.ndarray, options: RadiomicsOptions) -> np.ndarray:
    """Return grey levels from 1, 0 outside."""
    low, high = float(values[inside].min()), float(values[inside].max())
    if options.bin_count:
        shares = (values.astype(np.float64) - low) / ((high - low) or 1.0)
        levels = np.minimum(shares * options.bin_count // 1 + 1, options.bin_count)
    else:
        width = options.bin_width
        levels = (values - low // width * width) // width + 1
    return np.where(inside, levels, 0).astype(np.float32)


def _computed(family: str, values: np.ndarray, inside: np.ndarray, **settings: object) -> dict:
    """Return the features that fastrad computes."""
    with extra("radiomics"):
        import torch
        from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

    extractor = FeatureExtractor(
        FeatureSettings(feature_classes=[family], bin_width=1.0, device="cpu", **settings)
    )
    spacing = settings.get("spacing", (1.0, 1.0, 1.0))
    image, mask = (torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in (values, inside))
    # no `catch_warnings`, which threads would undo for each other
    warnings.filterwarnings("ignore", ".*is not isotropic")
    logging.getLogger("fastrad").setLevel(logging.ERROR)  # of one voxel: the reason says it
    found = extractor.extract(MedicalImage(image, spacing), Mask(mask, spacing))
    return {name.replace(":", "_"): value for name, value in found.items()}


def _first_order(values: np.ndarray, levels: np.ndarray, voxel: float) -> dict[str, float]:
    """Return first-order features of values, and entropy and uniformity of their levels."""
    row = (1, 1, len(values))
    everywhere = np.ones(row)
    features = _computed("firstorder", values.reshape(row), everywhere)
    of_levels = _computed("firstorder", levels.reshape(row), everywhere)
    features |= {f"firstorder_{n}": of_levels[f"firstorder_{n}"] for n in ("entropy", "uniformity")}
    # torch takes the lower of two medians, and its float32 excludes values equal to a percentile
    low, first, median, third, high = np.percentile(values.astype(np.float64), [10, 25, 50, 75, 90])
    central = values[(values >= low) & (values <= high)].astype(np.float64)
    robust = {
        "10th_percentile": low,
        "90th_percentile": high,
        "median": median,
        "interquartile_range": third - first,
        "robust_mean_absolute_deviation": np.abs(central - central.mean()).mean(),
    }
    features |= {f"firstorder_{name}": float(value) for name, value in robust.items()}
    features["firstorder_total_energy"] *= voxel
    if features["firstorder_variance"] > 0:
        features["firstorder_kurtosis"] -= 3  # IBSI's is that of a normal distribution
    else:
        del features["firstorder_kurtosis"], features["firstorder_skewness"]
    return features


def _texture(family: str, levels: np.ndarray, flat: bool) -> dict[str, float]:
    """Return the features of a family of texture matrices."""
    inside = levels > 0
    if family == "glszm":
        levels = _zones_in_line(levels)
        inside = levels > 0
    if family == "ngtdm":
        inside = _with_neighbours(inside)
        if not inside.any():
            return {}
    features = _computed(family, levels, inside)
    if family != "glrlm" or not flat:
        return features
    # fastrad averages 13 directions; 9 leave the plane and see runs of one pixel each
    apart = np.zeros((1, 1, 2 * int(inside.sum())), np.float32)
    apart[0, 0, ::2] = levels[inside]
    alone = _computed(family, apart, apart > 0)
    return {name: (13 * value - 9 * alone[name]) / 4 for name, value in features.items()}


def _zones_in_line(levels: np.ndarray) -> np.ndarray:
    """Return zones of one level as runs along a line, by level, with a gap after each.

    Their size zone matrix is the same, and fastrad finds it without a search of the whole box for
    each level.
    """
    with extra("radiomics"):
        from skimage.measure import label

    zones = label(levels.astype(np.int32), background=0, connectivity=3).ravel()
    _, first, sizes = np.unique(zones[zones > 0], return_index=True, return_counts=True)
    grey = levels.ravel()[zones > 0][first]
    order = np.argsort(grey, kind="stable")
    ends = np.cumsum(sizes[order] + 1)
    line = np.repeat(grey[order], sizes[order] + 1)
    line[ends - 1] = 0
    return line[None, None].astype(np.float32)


def _with_neighbours(inside: np.ndarray) -> np.ndarray:
    """Return the voxels that have a neighbour inside; NGTDM counts no others."""
    with extra("evaluation"):
        from scipy.ndimage import convolve

    return inside & (convolve(inside.astype(np.uint8), np.ones((3, 3, 3)), mode="constant") > 1)


def _shape(inside: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Return features of the mesh at the border of a mask, and of the axes of its voxels."""
    with extra("radiomics"):
        from scipy.spatial import ConvexHull
        from scipy.spatial.distance import pdist
        from skimage.measure import marching_cubes, mesh_surface_area

    corners, faces, *_ = marching_cubes(np.pad(inside, 1).astype(np.float32), 0.5, spacing=spacing)
    corners = corners.astype(np.float64)
    area = float(mesh_surface_area(corners, faces))
    a, b, c = np.moveaxis(corners[faces], 1, 0)
    volume = abs(float((np.cross(a, b) * c).sum())) / 6
    features = {
        "mesh_volume": volume,
        "voxel_volume": int(inside.sum()) * math.prod(spacing),
        "surface_area": area,
        "surface_volume_ratio": area / volume,
        "sphericity": (36 * math.pi * volume**2) ** (1 / 3) / area,
        "maximum_3d_diameter": float(pdist(corners[ConvexHull(corners).vertices]).max()),
    }
    centres = np.argwhere(inside) * np.array(spacing)
    if len(centres) > 1:
        least, minor, major = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(centres.T)), 0))
        features |= {
            "major_axis_length": 4 * major,
            "minor_axis_length": 4 * minor,
            "least_axis_length": 4 * least,
            "elongation": minor / major,
            "flatness": least / major,
        }
    return {f"shape_{name}": float(value) for name, value in features.items()}


def _shape_of_plane(inside: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Return the features of the outline of a mask of one slice."""
    padded = np.pad(inside, ((0, 0), (1, 1), (1, 1)))
    found = _computed("shape2d", padded, padded, spacing=spacing, force2D=True)
    return {_snake(name): value for name, value in found.items()}


def _snake(name: str) -> str:
    """Turn `shape2D_MaximumDiameter` into `shape2d_maximum_diameter`."""
    family, _, words = name.partition("_")
    return family.lower() + "".join(f"_{c.lower()}" if c.isupper() else c for c in words)
