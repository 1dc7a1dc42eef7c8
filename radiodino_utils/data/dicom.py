"""Frames of DICOM files as 8-bit images."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import InputError
from .intensity import Window, scaled

if TYPE_CHECKING:
    from pydicom import Dataset


def is_dicom(path: Path) -> bool:
    """Return whether a file carries the mark of DICOM, whatever its name."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, window: Window | None, index: int | None) -> np.ndarray:
    """Read a frame of a DICOM file; colour stays colour.

    Args:
        path: The file.
        window: Lower and upper value (CT: in HU) that become 0 and 255; by default the file's own
            window, else see `intensity.scaled`.
        index: Frame of several; the middle one by default.

    Returns:
        uint8, [height, width] or [height, width, 3].

    Raises:
        InputError: If the file cannot be decoded, or has no such frame.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    file, pixels = _decoded(path)
    if int(file.get("NumberOfFrames") or 1) > 1:
        index = len(pixels) // 2 if index is None else index
        if not -len(pixels) <= index < len(pixels):
            raise InputError(f"{path}: frame {index} is outside the file's {len(pixels)} frames.")
        pixels = pixels[index]
    if file.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, file)
    if pixels.ndim == 3:  # pydicom has converted YBR to RGB
        is_8_bit = pixels.dtype == np.uint8
        return pixels if is_8_bit else scaled(pixels, (0, np.iinfo(pixels.dtype).max), path)
    values = apply_modality_lut(pixels, file)
    if window is None and "VOILUTSequence" in file:
        values = apply_voi_lut(values, file)
    elif window is None:
        window = _own_window(file)
    image = scaled(values, window, path)
    return 255 - image if file.PhotometricInterpretation == "MONOCHROME1" else image


def _decoded(path: Path) -> "tuple[Dataset, np.ndarray]":
    import pydicom

    damage = (pydicom.errors.InvalidDicomError, AttributeError, OSError, EOFError)
    try:
        file = pydicom.dcmread(path)
        return file, file.pixel_array
    except (*damage, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the DICOM file cannot be decoded ({error}).") from error


def _own_window(file: "Dataset") -> Window | None:
    """Return the window that a file declares; of several the first."""
    if file.get("WindowCenter") is None or file.get("WindowWidth") is None:
        return None
    centre, width = (
        float(np.atleast_1d(file[key].value)[0]) for key in ("WindowCenter", "WindowWidth")
    )
    return centre - width / 2, centre + width / 2
