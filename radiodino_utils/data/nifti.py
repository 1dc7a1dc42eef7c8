"""Slices of NIfTI volumes: their stored values, and 8-bit images."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, unknown_name
from .intensity import Window, scaled

PLANES = ("sagittal", "coronal", "axial")  # by their axis: right, anterior, superior
UNPACKED_LIMIT = 4 << 30  # bytes of a volume that is unpacked in memory
_GZIP = b"\x1f\x8b"


def read_nifti(
    source: Path | bytes,
    *,
    window: Window | None = None,
    index: int | None = None,
    plane: str = "axial",
    name: str | None = None,
) -> np.ndarray:
    """Read a slice of a NIfTI file as radiologists look at it.

    Anterior (axial) or superior (coronal, sagittal) is up, and the patient's right (axial, coronal)
    or anterior (sagittal) at the left.

    Args:
        source: A .nii or .nii.gz file, 2-D or 3-D, or its content.
        window: Lower and upper value that become 0 and 255; by default the smallest and greatest
            value of the slice, see `intensity.scaled`.
        index: Slice across the plane; the middle one by default.
        plane: One of `PLANES`; oblique volumes are taken by their nearest axes.
        name: Name of the file, for messages; by default its path.

    Returns:
        uint8, [height, width], or [height, width, 3] for RGB volumes; NaN, which stands for no
        value, is black.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    values = read_nifti_values(source, index=index, plane=plane, name=name)
    if values.ndim == 3:
        return values
    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if not absent.any() or absent.all():
        return scaled(np.zeros(values.shape) if absent.any() else values, window, name)
    image = np.zeros(values.shape, np.uint8)
    image[~absent] = scaled(values[~absent], window, name)
    return image


def read_nifti_values(
    source: Path | bytes,
    *,
    index: int | None = None,
    plane: str = "axial",
    name: str | None = None,
) -> np.ndarray:
    """Read the values of a slice, for instance the labels of a mask.

    Args:
        source: A .nii or .nii.gz file, 2-D or 3-D, or its content.
        index: Slice across the plane; the middle one by default.
        plane: One of `PLANES`; oblique volumes are taken by their nearest axes.
        name: Name of the file, for messages; by default its path.

    Returns:
        [height, width] by slope and intercept of the file, or uint8 [height, width, 3] for RGB
        volumes; oriented as in `read_nifti`.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    if plane not in PLANES:
        raise unknown_name("plane", plane, PLANES)
    try:
        values = _slice(source, index, PLANES.index(plane), name)
    except InputError:
        raise
    except Exception as error:  # nibabel raises anything on damaged headers
        raise InputError(f"{name}: the NIfTI file is damaged or truncated ({error}).") from error
    return values.swapaxes(0, 1)[::-1, ::-1]  # canonical axes point right, anterior, superior


def _slice(source: Path | bytes, index: int | None, axis: int, name: str) -> np.ndarray:
    """Return a slice across an axis of the canonical volume, [a, b] or [a, b, 3]."""
    import nibabel

    image: Any = nibabel.load(source) if isinstance(source, Path) else _from_bytes(source, name)
    volume = nibabel.as_closest_canonical(image).dataobj
    shape = tuple(volume.shape)
    if any(edge != 1 for edge in shape[3:]) or len(shape) < 2:
        raise InputError(f"{name}: a volume of shape {shape}; only 2-D and 3-D files are read.")
    if len(shape) > 2:
        index = shape[axis] // 2 if index is None else index
        if not -shape[axis] <= index < shape[axis]:
            raise InputError(
                f"{name}: slice {index} is outside the volume of {shape[axis]} slices."
            )
        at: list[slice | int] = [slice(None)] * 3 + [0] * (len(shape) - 3)
        at[axis] = index
        values = np.asarray(volume[tuple(at)])
    else:
        values = np.asarray(volume)
    if values.dtype.names:  # RGB or RGBA, one byte per channel
        return np.stack([values[channel] for channel in values.dtype.names[:3]], axis=-1)
    if values.dtype.kind == "c":
        raise InputError(f"{name}: holds complex numbers; convert them to magnitudes.")
    return values


def volume_shape(path: Path) -> tuple[int, int, int]:
    """Return the number of voxels to the right, anterior and superior.

    Raises:
        InputError: If the file is damaged or no volume.
    """
    import nibabel

    try:
        shape = tuple(nibabel.as_closest_canonical(nibabel.load(path)).shape)
    except Exception as error:  # nibabel raises anything on damaged headers
        raise InputError(f"{path}: the NIfTI file is damaged or truncated ({error}).") from error
    if len(shape) < 3 or any(edge != 1 for edge in shape[3:]):
        raise InputError(f"{path}: a file of shape {shape}, not a volume.")
    return shape[0], shape[1], shape[2]


def _from_bytes(content: bytes, name: str) -> Any:
    import nibabel

    if content[:2] == _GZIP:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(UNPACKED_LIMIT + 1)
    if len(content) > UNPACKED_LIMIT:
        limit = UNPACKED_LIMIT / 1e9
        raise InputError(f"{name}: more than the limit of {limit:.1f} GB when unpacked.")
    size = int.from_bytes(content[:4], "little")
    is_version_2 = size in (540, int.from_bytes((540).to_bytes(4, "big"), "little"))
    return (nibabel.Nifti2Image if is_version_2 else nibabel.Nifti1Image).from_bytes(content)
