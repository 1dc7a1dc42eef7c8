"""One reader for image files of all formats, on disk or in archives."""

from pathlib import Path

import numpy as np

from ..core.errors import InputError
from . import raster
from .dicom import begins_as_dicom, count_frames, frame_aspect, read_dicom, read_stored
from .intensity import Rule, checked_window
from .nifti import PLANES, read_nifti, read_nifti_values, volume_grid

SUFFIXES = (*raster.SUFFIXES, ".dcm", ".nii", ".nii.gz")


def read_image(
    path: str | Path, *, window: Rule | str | None = None, index: int | None = None
) -> np.ndarray:
    """Read a PNG, JPEG, TIFF, DICOM or NIfTI file as an 8-bit image.

    Colour stays colour; transparency is laid over black; EXIF orientation is applied. Values of
    more than 8 bits are scaled to 0..255 from `window`, else from the DICOM file's own window, else
    from the smallest and greatest value of the image, with a warning.

    Args:
        path: The file.
        window: Lower and upper value (CT: in HU) that become 0 and 255, a key of
            `intensity.WINDOWS`, or percentiles of the image.
        index: Frame of a DICOM file or slice along the third axis of a NIfTI volume, the middle one
            by default; page of a TIFF, the first one by default.

    Returns:
        uint8, [height, width] or [height, width, 3].

    Raises:
        InputError: If the file is missing, empty, damaged, or not an image.
    """
    path = Path(path)
    window = checked_window(window, path)
    kind = _format_of(path)
    if kind == "nifti":
        return read_nifti(path, window=window, index=index)
    read = read_dicom if kind == "dicom" else raster.read_raster
    return read(path, window=window, index=index)


def decode_image(
    content: bytes, name: str, *, window: Rule | str | None = None, index: int | None = None
) -> np.ndarray:
    """Decode the content of an image file, such as a member of an archive; see `read_image`.

    Args:
        content: The bytes of the file.
        name: Its name, for the format and messages.
        window: See `read_image`.
        index: See `read_image`.

    Returns:
        uint8, [height, width] or [height, width, 3]; equal to `read_image` of the same file.

    Raises:
        InputError: See `read_image`.
    """
    window = checked_window(window, name)
    if not content:
        raise InputError(f"{name}: the file is empty (0 bytes); copy or download it again.")
    kind = _format(name, content[:132])
    if kind == "nifti":
        return read_nifti(content, window=window, index=index, name=name)
    read = read_dicom if kind == "dicom" else raster.read_raster
    return read(content, window=window, index=index, name=name)


def count_planes(path: Path) -> int:
    """Return the number of slices, frames or pages of an image file, from its header.

    Args:
        path: The file.

    Returns:
        Of a DICOM segmentation the number of its planes, which several segments share.

    Raises:
        InputError: See `read_image`.
    """
    kind = _format_of(path)
    if kind == "nifti":
        grid = volume_grid(path)
        return grid.shape[PLANES.index(grid.plane)] * grid.volumes
    return (count_frames if kind == "dicom" else raster.count_pages)(path)


def pixel_aspect(path: Path) -> float:
    """Return the height of a pixel divided by its width, so that an image can be shown undistorted.

    Args:
        path: The file; the plane of NIfTI volumes is that of `read_image`.

    Returns:
        By the spacing or aspect ratio of a DICOM file and the spacing of a NIfTI file; 1 for other
        formats, and where the header says nothing that can be used.

    Raises:
        InputError: See `read_image`.
    """
    kind = _format_of(path)
    if kind == "raster":
        return 1.0
    if kind == "dicom":
        return frame_aspect(path)
    grid = volume_grid(path)
    height, width = grid.pixel_mm(grid.plane)
    return height / width if height > 0 < width else 1.0


def read_values(path: Path, *, index: int | None = None) -> np.ndarray:
    """Read the values of an image file as they are stored, for instance the labels of a mask.

    Args:
        path: The file.
        index: See `read_image`.

    Returns:
        [height, width], or [height, width, channels] of colours; palette images as their indices.

    Raises:
        InputError: See `read_image`.
    """
    kind = _format_of(path)
    if kind == "nifti":
        return read_nifti_values(path, index=index)
    return (read_stored if kind == "dicom" else raster.read_raster_values)(path, index=index)


def _format_of(path: Path) -> str:
    """Return the format of a file after checking that it is there and not empty."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such image file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again.")
    with path.open("rb") as file:
        return _format(path.name, file.read(132))


def _format(name: str, head: bytes) -> str:
    """Return "nifti", "dicom" or "raster" by the name of a file and its first 132 bytes."""
    name = name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    return "dicom" if name.endswith(".dcm") or begins_as_dicom(head) else "raster"
