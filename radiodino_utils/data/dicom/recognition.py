"""DICOM files among others, and those that hold no image."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

HEAD = 132  # bytes: a preamble of 128 and the mark
DIRECTORY, SEGMENTATION = "a DICOMDIR", "a DICOM segmentation"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DIRECTORY = "1.2.840.10008.1.3.10"
_SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66"
_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.88.59": "a key object selection",
    "1.2.840.10008.5.1.4.1.1.88": "a structured report",
    "1.2.840.10008.5.1.4.1.1.11": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.9": "a waveform",
    "1.2.840.10008.5.1.4.1.1.104": "a document",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, a registration or a surface",
    "1.2.840.10008.5.1.4.1.1.481.3": "a radiotherapy structure set",
    "1.2.840.10008.5.1.4.1.1.481": "a radiotherapy plan or record",
}
_DOSE_AND_IMAGE = ("1.2.840.10008.5.1.4.1.1.481.1", "1.2.840.10008.5.1.4.1.1.481.2")


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM does, whatever its name; see `begins_as_dicom`."""
    with open(path, "rb") as file:
        return begins_as_dicom(file.read(HEAD))


def begins_as_dicom(head: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a DICOM file.

    Files without the preamble of part 10 are recognised by their first element, which is of group
    0002 or 0008.
    """
    if head[128:HEAD] == b"DICM":
        return True
    is_big = head[:2] == b"\0\x08"
    if len(head) <= 8 or not is_big and head[:2] not in (b"\x02\0", b"\x08\0"):
        return False
    is_explicit = head[4:6].isalpha() and head[4:6].isupper()
    return is_explicit or 0 < int.from_bytes(head[4:8], "big" if is_big else "little") <= 256


def require_image(header: "Dataset", name: str) -> None:
    """Check that a DICOM file holds an image.

    Args:
        header: The file.
        name: Name of the file, for the message.

    Raises:
        InputError: If it is a directory, a report, a plan, a segmentation or the like, or has no
            pixel data, rows or columns.
    """
    kind = kind_without_image(header)
    if kind == DIRECTORY:
        raise InputError(
            f"{name}: a DICOMDIR, which lists other files and holds no image; name their folder."
        )
    if kind == SEGMENTATION:
        raise InputError(
            f"{name}: a DICOM segmentation, which holds masks and no image; use it as a mask."
        )
    if kind or not any(key in header for key in _PIXELS):
        raise InputError(
            f"{name}: {kind or 'a DICOM file without pixel data'}, not an image; leave it out."
        )
    if not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{name}: a DICOM file without rows and columns, not an image.")


def kind_without_image(header: "Dataset") -> str:
    """Return what a DICOM file is if its kind holds no image, such as "a structured report".

    Args:
        header: The file, with or without its pixels.

    Returns:
        Empty for images and for unknown kinds.
    """
    kind = str(header.get("SOPClassUID") or "")
    media = str(getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID") or "")
    if _DIRECTORY in (kind, media) or "DirectoryRecordSequence" in header:
        return DIRECTORY
    if is_segmentation(header):
        return SEGMENTATION
    if kind in _DOSE_AND_IMAGE:
        return ""
    found = (text for prefix, text in _NO_IMAGES.items() if f"{kind}.".startswith(f"{prefix}."))
    return next(found, "")


def is_segmentation(header: "Dataset") -> bool:
    """Return whether a DICOM file is a segmentation (SEG)."""
    return str(header.get("SOPClassUID") or "").startswith(f"{_SEGMENTATION_CLASS}.4") or (
        header.get("Modality") == "SEG"
    )
