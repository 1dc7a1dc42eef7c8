"""Slices of NIfTI volumes as 8-bit images."""

import zlib
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .intensity import Window, scaled


def read_nifti(path: Path, window: Window | None, index: int | None) -> np.ndarray:
    """Read a slice of a NIfTI file, anterior up and the patient's right at the left.

    Args:
        path: A .nii or .nii.gz file, 2-D or 3-D.
        window: See `intensity.scaled`.
        index: Slice along the third axis; the middle one by default.

    Returns:
        uint8, [height, width].

    Raises:
        InputError: If the file is damaged, or has no such slice.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    damage = (
        nibabel.filebasedimages.ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
    )
    try:
        volume = nibabel.as_closest_canonical(nibabel.load(path)).dataobj
        shape = tuple(volume.shape)
        if len(shape) > 2:
            index = shape[2] // 2 if index is None else index
            if not -shape[2] <= index < shape[2]:
                raise InputError(
                    f"{path}: slice {index} is outside the volume of {shape[2]} slices."
                )
        plane = np.asarray(volume[:, :, index] if len(shape) > 2 else volume)
    except InputError:
        raise
    except (*damage, zlib.error) as error:
        raise InputError(f"{path}: the NIfTI file is damaged or truncated ({error}).") from error
    if plane.ndim != 2:
        raise InputError(f"{path}: a volume of shape {shape}; only 2-D and 3-D files are read.")
    # canonical axes point right, anterior, superior
    return scaled(plane.T[::-1, ::-1], window, path)
