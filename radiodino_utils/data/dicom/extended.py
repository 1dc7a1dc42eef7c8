"""JPEG Extended of 12 bits, which pydicom's decoders refuse and GDCM reads as a whole file."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset


def is_extended(header: "Dataset") -> bool:
    """Return whether the pixels of a DICOM file are JPEG Extended of more than 8 bits."""
    from pydicom.uid import JPEGExtended12Bit

    return bool(header.file_meta.TransferSyntaxUID == JPEGExtended12Bit and header.BitsStored > 8)


def decode_extended(header: "Dataset", frame: int) -> np.ndarray:
    """Decode a frame of grey JPEG Extended.

    Args:
        header: The file, with its pixels.
        frame: Number of the frame, from 0.

    Returns:
        uint16, [height, width].

    Raises:
        ValueError: If GDCM cannot read the file, or its pixels do not fit the header.
    """
    import gdcm  # type: ignore[import-untyped]  # GDCM has no stubs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "extended.dcm"
        header.save_as(path)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        content = reader.GetImage().GetBuffer() if reader.Read() else None
    if content is None:
        raise ValueError("GDCM cannot decode the JPEG Extended pixels")
    samples = np.frombuffer(content.encode("utf-8", "surrogateescape"), np.uint16)
    return samples.reshape(-1, header.Rows, header.Columns)[frame]
