"""DICOM files: what each is, its stored values, and its frames as 8-bit images."""

from .decoding import read_header
from .reading import count_frames, frame_aspect, read_dicom, read_dicom_values, read_stored
from .recognition import begins_as_dicom, is_dicom

__all__ = [
    "begins_as_dicom",
    "count_frames",
    "frame_aspect",
    "is_dicom",
    "read_dicom",
    "read_dicom_values",
    "read_header",
    "read_stored",
]
