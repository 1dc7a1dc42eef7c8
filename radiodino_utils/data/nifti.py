"""Slices of NIfTI volumes: their stored values, and 8-bit images."""

import gzip
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import InputError, unknown_name
from .intensity import Rule, scaled
from .limits import require_size

PLANES = ("sagittal", "coronal", "axial")  # by their axis: right, anterior, superior
THICK = 1.5  # slices of this many times the pixels' spacing are of the plane of acquisition
UNPACKED_LIMIT = 4 << 30  # bytes of a volume that is unpacked in memory
_MM = {"meter": 1000.0, "micron": 0.001}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Grid:
    """Voxels of a volume by the axes that point right, anterior and superior.

    Attributes:
        shape: Number of voxels along each axis.
        spacing_mm: Distance of voxels along each axis; units that are not named are mm.
        affine: Position of voxels in the units of the file, float64 [4, 4].
        volumes: Number of volumes, such as time points.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    volumes: int

    @property
    def plane(self) -> str:
        """Plane of acquisition: that of a single slice or of thick slices, else axial."""
        if self.shape.count(1) == 1:
            return PLANES[self.shape.index(1)]
        between, *within = sorted(self.spacing_mm, reverse=True)
        return PLANES[self.spacing_mm.index(between)] if between > THICK * within[0] else "axial"

    def pixel_mm(self, plane: str) -> tuple[float, float]:
        """Return the distance of rows and of columns in a plane."""
        columns, rows = (mm for axis, mm in enumerate(self.spacing_mm) if PLANES[axis] != plane)
        return rows, columns


def read_nifti(
    source: Path | bytes,
    *,
    window: Rule | None = None,
    index: int | None = None,
    plane: str | None = None,
    volume: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read a slice of a NIfTI file as radiologists look at it.

    Anterior (axial) or superior (coronal, sagittal) is up, and the patient's right (axial, coronal)
    or anterior (sagittal) at the left.

    Args:
        source: A .nii or .nii.gz file, or its content.
        window: Lower and upper value that become 0 and 255; by default the smallest and greatest
            value of the slice, see `intensity.scaled`.
        index: Slice across the plane; the middle one by default.
        plane: One of `PLANES`, by default `Grid.plane`; oblique volumes are taken by their nearest
            axes.
        volume: Volume of several, such as a time point; by default the first one, with a warning.
        name: Name of the file, for messages; by default its path.

    Returns:
        uint8, [height, width], or [height, width, 3] for RGB volumes.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    values = read_nifti_values(source, index=index, plane=plane, volume=volume, name=name)
    return values if values.ndim == 3 else scaled(values, window, name)


def read_nifti_values(
    source: Path | bytes,
    *,
    index: int | None = None,
    plane: str | None = None,
    volume: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read the values of a slice, for instance the labels of a mask.

    Args:
        source: A .nii or .nii.gz file, or its content.
        index: See `read_nifti`.
        plane: See `read_nifti`.
        volume: See `read_nifti`.
        name: Name of the file, for messages; by default its path.

    Returns:
        [height, width] by slope and intercept of the file, or uint8 [height, width, 3] for RGB
        volumes; oriented as in `read_nifti`.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    if plane is not None and plane not in PLANES:
        raise unknown_name("plane", plane, PLANES)
    with _opened(source, name) as image:
        grid = _grid(image, name)
        axis = PLANES.index(plane or grid.plane)
        values = _slice(image, axis, index, _volume_number(volume, grid.volumes, name), name)
    return values.swapaxes(0, 1)[::-1, ::-1]  # canonical axes point right, anterior, superior


def volume_grid(path: Path) -> Grid:
    """Return the grid of a NIfTI file from its header.

    Raises:
        InputError: If the file is damaged.
    """
    with _opened(path, str(path), header_only=True) as image:
        return _grid(image, str(path))


def read_volume(path: Path, volume: int) -> np.ndarray:
    """Return the values of a whole volume of a file as they are stored, [x, y, z].

    Raises:
        InputError: If the file is damaged, or holds colours.
    """
    with _opened(path, str(path)) as image:
        at = _place(image, volume)
        values = np.asarray(image.dataobj[(*[slice(None)] * len(image.shape[:3]), *at)])
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: holds {values.dtype}, not numbers of one channel.")
    return values


@contextmanager
def _opened(source: Path | bytes, name: str, *, header_only: bool = False) -> Iterator[Any]:
    """Open a file as an image of nibabel; what its parser raises becomes an `InputError`."""
    import nibabel

    try:
        with _stream(source, name, header_only) as file:
            size = file.read(4)
            file.seek(0)
            is_version_2 = 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
            kind = nibabel.Nifti2Image if is_version_2 else nibabel.Nifti1Image
            yield kind.from_stream(file)
    except InputError:
        raise
    except Exception as error:  # nibabel raises anything on damaged headers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: the NIfTI file is damaged or truncated ({reason}).") from error


def _stream(source: Path | bytes, name: str, header_only: bool) -> BinaryIO | gzip.GzipFile:
    """Return the unpacked file, whether or not its name says that it is packed."""
    if isinstance(source, bytes):
        return io.BytesIO(_unpacked(source, name) if source[:2] == _GZIP else source)
    with source.open("rb") as file:
        if file.read(2) != _GZIP:
            return source.open("rb")
    if header_only:
        return gzip.open(source)
    facts = source.stat()
    return io.BytesIO(_unpacked_file(source, facts.st_size, facts.st_mtime_ns))


@lru_cache(maxsize=2)  # a volume and its labels, whose slices are read one after another
def _unpacked_file(path: Path, size: int, changed: int) -> bytes:
    return _unpacked(path.read_bytes(), str(path))


def _unpacked(content: bytes, name: str) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(UNPACKED_LIMIT + 1)
    if len(unpacked) > UNPACKED_LIMIT:
        limit = UNPACKED_LIMIT / 1e9
        raise InputError(f"{name}: more than the limit of {limit:.1f} GB when unpacked.")
    return unpacked


def _grid(image: Any, name: str) -> Grid:
    """Return the grid of an opened image."""
    from nibabel.orientations import inv_ornt_aff

    if len(image.shape) < 2 or min(image.shape) < 1 or max(image.shape[:3]) == 1:
        raise InputError(f"{name}: holds no slices (shape {tuple(image.shape)}).")
    shape = (*image.shape, 1)[:3]
    orientation = _orientation(image, name)
    affine = image.affine @ inv_ornt_aff(orientation, shape)
    steps = np.linalg.norm(affine[:3, :3], axis=0) * _MM.get(image.header.get_xyzt_units()[0], 1)
    order = np.argsort(orientation[:, 0])
    along = (shape[order[0]], shape[order[1]], shape[order[2]])
    return Grid(along, tuple(steps.tolist()), affine, int(np.prod(image.shape[3:], dtype=int)))


def _orientation(image: Any, name: str) -> np.ndarray:
    """Return the canonical axis and the direction of each axis as it is stored, [3, 2]."""
    from nibabel.orientations import io_orientation

    orientation = io_orientation(image.affine)
    if not np.isfinite(orientation).all():
        raise InputError(f"{name}: the affine does not say how the volume lies; mend its header.")
    return orientation.astype(int)


def _volume_number(volume: int | None, volumes: int, name: str) -> int:
    """Return the number of a volume of several, from 0, after checking it."""
    if volume is None and volumes > 1:
        warnings.warn(f"{name}: the first of {volumes} volumes is read.", stacklevel=4)
    number = volume or 0
    if not -volumes <= number < volumes:
        raise InputError(f"{name}: volume {number} is outside the file's {volumes} volumes.")
    return number % volumes


def _place(image: Any, volume: int) -> list[int]:
    """Return the indices of a volume beyond the three axes of space."""
    return [int(number) for number in np.unravel_index(volume, image.shape[3:])]


def _slice(image: Any, axis: int, index: int | None, volume: int, name: str) -> np.ndarray:
    """Return a slice across a canonical axis, [a, b] or [a, b, 3] along the other two."""
    orientation, shape = _orientation(image, name), (*image.shape, 1)[:3]
    across = int(np.flatnonzero(orientation[:, 0] == axis)[0])
    slices = shape[across]
    index = slices // 2 if index is None else index
    if not -slices <= index < slices:
        raise InputError(f"{name}: slice {index} is outside the volume of {slices} slices.")
    index %= slices
    first, second = np.delete(shape, across).tolist()
    require_size(first, second, name)
    at: list[slice | int] = [slice(None)] * len(image.shape[:3])
    if across < len(at):
        at[across] = index if orientation[across, 1] > 0 else slices - 1 - index
    values = np.asarray(image.dataobj[(*at, *_place(image, volume))])
    values = values.reshape(np.delete(shape, across))
    kept = np.delete(orientation, across, axis=0)
    order = np.argsort(kept[:, 0])
    directions = tuple(slice(None, None, int(step)) for step in kept[order, 1])
    values = values.transpose(order)[directions]
    if values.dtype.names:  # RGB or RGBA, one byte per channel
        return np.stack([values[channel] for channel in values.dtype.names[:3]], axis=-1)
    if values.dtype.kind == "c":
        raise InputError(f"{name}: holds complex numbers; convert them to magnitudes.")
    return values
