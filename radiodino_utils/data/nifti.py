"""Slices of NIfTI volumes: their stored values, and 8-bit images."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from .intensity import Window, scaled

UNPACKED_LIMIT = 4 << 30  # bytes of a volume that is unpacked in memory
_GZIP = b"\x1f\x8b"


def read_nifti(
    source: Path | bytes,
    *,
    window: Window | None = None,
    index: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read a slice of a NIfTI file, anterior up and the patient's right at the left.

    Args:
        source: A .nii or .nii.gz file, 2-D or 3-D, or its content.
        window: Lower and upper value that become 0 and 255; by default the smallest and greatest
            value of the slice, see `intensity.scaled`.
        index: Slice along the third axis; the middle one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        uint8, [height, width], or [height, width, 3] for RGB volumes; NaN, which stands for no
        value, is black.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    values = read_nifti_values(source, index=index, name=name)
    if values.ndim == 3:
        return values
    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if not absent.any() or absent.all():
        return scaled(np.zeros(values.shape) if absent.any() else values, window, name)
    image = np.zeros(values.shape, np.uint8)
    image[~absent] = scaled(values[~absent], window, name)
    return image


def read_nifti_values(
    source: Path | bytes, *, index: int | None = None, name: str | None = None
) -> np.ndarray:
    """Read the values of a slice, for instance the labels of a mask.

    Args:
        source: A .nii or .nii.gz file, 2-D or 3-D, or its content.
        index: Slice along the third axis; the middle one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        [height, width] by slope and intercept of the file, or uint8 [height, width, 3] for RGB
        volumes; anterior up and the patient's right at the left.

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    name = name or str(source)
    try:
        plane = _plane(source, index, name)
    except InputError:
        raise
    except Exception as error:  # nibabel raises anything on damaged headers
        raise InputError(f"{name}: the NIfTI file is damaged or truncated ({error}).") from error
    return plane.swapaxes(0, 1)[::-1, ::-1]  # canonical axes point right, anterior, superior


def _plane(source: Path | bytes, index: int | None, name: str) -> np.ndarray:
    """Return a slice of the canonical volume, [x, y] or [x, y, 3]."""
    import nibabel

    image: Any = nibabel.load(source) if isinstance(source, Path) else _from_bytes(source, name)
    volume = nibabel.as_closest_canonical(image).dataobj
    shape = tuple(volume.shape)
    if any(edge != 1 for edge in shape[3:]) or len(shape) < 2:
        raise InputError(f"{name}: a volume of shape {shape}; only 2-D and 3-D files are read.")
    if len(shape) > 2:
        index = shape[2] // 2 if index is None else index
        if not -shape[2] <= index < shape[2]:
            raise InputError(f"{name}: slice {index} is outside the volume of {shape[2]} slices.")
        plane = np.asarray(volume[(slice(None), slice(None), index, *[0] * (len(shape) - 3))])
    else:
        plane = np.asarray(volume)
    if plane.dtype.names:  # RGB or RGBA, one byte per channel
        return np.stack([plane[channel] for channel in plane.dtype.names[:3]], axis=-1)
    if plane.dtype.kind == "c":
        raise InputError(f"{name}: holds complex numbers; convert them to magnitudes.")
    return plane


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
