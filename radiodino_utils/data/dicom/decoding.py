"""Headers and frames of DICOM files, as pydicom and GDCM decode them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from .isolated import decode_isolated
from .recognition import HEAD, begins_as_dicom

if TYPE_CHECKING:
    from pydicom import Dataset


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
        raise undecodable(str(path), error) from error


def decoded_header(source: Path | bytes, name: str) -> "Dataset":
    """Read a file and fill in what it lacks and the standard or its encoding implies.

    Args:
        source: The file, or its content.
        name: Name of the file, for messages.

    Raises:
        InputError: If it does not begin as DICOM does; pydicom raises other errors on damage.
    """
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


def decoded_frame(header: "Dataset", frame: int) -> np.ndarray:
    """Decode the samples of a frame, whose number is from 0; YBR becomes RGB.

    Raises:
        ValueError: Or another error, if the pixels are damaged or no decoder knows their kind.
    """
    from pydicom.pixels import pixel_array
    from pydicom.uid import RLELossless

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLELossless:
        return pixel_array(header, index=frame)
    try:
        return pixel_array(header, index=frame, decoding_plugin="pillow")
    except Exception:  # Pillow knows few kinds of JPEG; GDCM says what is wrong
        return decode_isolated(header, frame)


def undecodable(name: str, error: Exception) -> InputError:
    """Return the error for a file whose header or pixels cannot be decoded."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return InputError(f"{name}: the DICOM file cannot be decoded ({reason}).")
