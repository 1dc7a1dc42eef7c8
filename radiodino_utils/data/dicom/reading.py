"""Frames of DICOM files: their stored values, and 8-bit images."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..intensity import Window
from .display import colour_image, grey_image
from .extended import decode_extended, is_extended
from .recognition import HEAD, begins_as_dicom, require_image
from .values import stored_bits

if TYPE_CHECKING:
    from pydicom import Dataset


def read_dicom(
    source: Path | bytes,
    *,
    window: Window | None = None,
    index: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read a frame of a DICOM file; colour stays colour.

    Args:
        source: The file, or its content.
        window: Lower and upper value (CT: in HU) that become 0 and 255; by default the file's own
            VOI LUT or window, else see `display.grey_image`.
        index: Frame of several; the middle one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        uint8, [height, width] or [height, width, 3].

    Raises:
        InputError: If the file cannot be decoded, has no such frame, or is no image.
    """
    name = name or str(source)
    try:
        header = _header(source, name)
        require_image(header, name)
        pixels, frame = _frame(header, index, name)
        if pixels.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
            return colour_image(pixels, header, name)
        return grey_image(stored_bits(pixels, header), header, frame, window, name)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise _undecodable(name, error) from error


def read_stored(
    source: Path | bytes, *, index: int | None = None, name: str | None = None
) -> np.ndarray:
    """Read the values of a frame as they are stored, for instance the labels of a mask.

    Args:
        source: The file, or its content.
        index: Frame of several; the middle one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        Integers or floating point, [height, width] or [height, width, 3].

    Raises:
        InputError: See `read_dicom`.
    """
    name = name or str(source)
    try:
        header = _header(source, name)
        require_image(header, name)
        return stored_bits(_frame(header, index, name)[0], header)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise _undecodable(name, error) from error


def read_header(path: Path) -> "Dataset":
    """Read the attributes of a DICOM file without its pixels.

    Raises:
        InputError: If the file does not begin as DICOM does, or is damaged.
    """
    import pydicom

    try:
        with path.open("rb") as file:
            if not begins_as_dicom(file.read(HEAD)):
                raise InputError(f"{path}: not a DICOM file.")
            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except InputError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise _undecodable(str(path), error) from error


def _header(source: Path | bytes, name: str) -> "Dataset":
    """Read a file and fill in what it lacks and the standard or its encoding implies."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        if not begins_as_dicom(file.read(HEAD)):
            raise InputError(
                f"{name}: the DICOM file cannot be decoded (it does not begin as DICOM does)."
            )
        file.seek(0)
        header = pydicom.dcmread(file, force=True)
    if not hasattr(header, "file_meta"):
        header.file_meta = FileMetaDataset()
    if not header.file_meta.get("TransferSyntaxUID"):
        is_implicit, is_little = header.original_encoding
        if is_implicit:
            syntax = pydicom.uid.ImplicitVRLittleEndian
        else:
            little, big = pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian
            syntax = little if is_little else big
        header.file_meta.TransferSyntaxUID = syntax
    if "PixelData" in header:
        _fill_in(header)
    return header


def _fill_in(header: "Dataset") -> None:
    """Set missing or empty attributes of the image to what the others imply."""

    def default(keyword: str, value: object) -> None:
        if header.get(keyword) in (None, ""):
            setattr(header, keyword, value)

    default("SamplesPerPixel", 1)
    kind = "RGB" if header.SamplesPerPixel == 3 else "MONOCHROME2"
    default("PhotometricInterpretation", kind)
    default("BitsAllocated", 8)
    default("BitsStored", header.BitsAllocated)
    default("HighBit", header.BitsStored - 1)
    default("PixelRepresentation", 0)
    if header.SamplesPerPixel > 1:
        default("PlanarConfiguration", 0)


def _frame(header: "Dataset", index: int | None, name: str) -> tuple[np.ndarray, int]:
    """Decode one frame; return its samples and its number."""
    from pydicom.pixels import pixel_array

    frames = int(header.get("NumberOfFrames") or 1)
    frame = frames // 2 if index is None else index
    if frames == 1:
        frame = 0
    if not -frames <= frame < frames:
        raise InputError(f"{name}: frame {frame} is outside the file's {frames} frames.")
    frame %= frames
    if is_extended(header):
        return decode_extended(header, frame), frame
    return pixel_array(header, index=frame), frame


def _undecodable(name: str, error: Exception) -> InputError:
    """Return the error for a file whose header or pixels cannot be decoded."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return InputError(f"{name}: the DICOM file cannot be decoded ({reason}).")
