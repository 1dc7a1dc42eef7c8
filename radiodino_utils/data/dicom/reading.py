"""Frames of DICOM files: their stored values, and 8-bit images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..intensity import Rule
from ..limits import require_size
from .decoding import decoded_frame, decoded_header, read_header, undecodable
from .display import colour_image, grey_image
from .recognition import is_segmentation, require_image
from .segmentation import frames_of_planes, segmentation_labels
from .values import attributes_of, modality_values, padding_of, stored_bits

if TYPE_CHECKING:
    from pydicom import Dataset


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Name the file in what its decoding raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # decoders and values of damaged files raise anything
        raise undecodable(name, error) from error


def read_dicom(
    source: Path | bytes,
    *,
    window: Rule | None = None,
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
    with _decoding(name):
        header = decoded_header(source, name)
        require_image(header, name)
        pixels, frame = _frame(header, index, name)
        if pixels.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
            return colour_image(pixels, header, name)
        return grey_image(stored_bits(pixels, header), header, frame, window, name)


def read_stored(
    source: Path | bytes, *, index: int | None = None, name: str | None = None
) -> np.ndarray:
    """Read the values of a frame as they are stored, for instance the labels of a mask.

    Args:
        source: The file, or its content.
        index: Frame of several; the middle one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        Integers or floating point, [height, width] or [height, width, 3]; of a segmentation the
        numbers of segments, see `segmentation.segmentation_labels`.

    Raises:
        InputError: See `read_dicom`.
    """
    name = name or str(source)
    with _decoding(name):
        header = decoded_header(source, name)
        if is_segmentation(header):
            return segmentation_labels(header, index, name)
        require_image(header, name)
        return stored_bits(_frame(header, index, name)[0], header)


def count_frames(path: Path) -> int:
    """Return the number of frames of a DICOM file, or of planes of a segmentation.

    Raises:
        InputError: If the file is not DICOM, or is damaged.
    """
    header = read_header(path)
    with _decoding(str(path)):
        if is_segmentation(header):
            return len(frames_of_planes(header))
        return int(header.get("NumberOfFrames") or 1)


def read_dicom_values(source: Path, *, index: int | None = None) -> np.ndarray:
    """Read the values of a grey frame in the units of its modality, without padding.

    Args:
        source: The file.
        index: See `read_dicom`.

    Returns:
        Real numbers, [n]; empty for a frame in colour.

    Raises:
        InputError: See `read_dicom`.
    """
    name = str(source)
    with _decoding(name):
        header = decoded_header(source, name)
        require_image(header, name)
        pixels, frame = _frame(header, index, name)
        if pixels.ndim == 3:
            return np.zeros(0)
        pixels = stored_bits(pixels, header)
        return modality_values(pixels, header, frame, name)[~padding_of(pixels, header, name)]


def frame_aspect(path: Path) -> float:
    """Return the height of a pixel divided by its width; 1 if the file does not say it.

    Raises:
        InputError: If the file is not DICOM, or is damaged.
    """
    header = read_header(path)
    with _decoding(str(path)):
        measures = attributes_of(header, "PixelMeasuresSequence", 0)
        for source, keyword in (
            (measures, "PixelSpacing"),
            (header, "ImagerPixelSpacing"),
            (header, "PixelAspectRatio"),
        ):
            height, width = (float(edge) for edge in source.get(keyword) or (0, 0))
            if height > 0 < width:
                return height / width
    return 1.0


def _frame(header: "Dataset", index: int | None, name: str) -> tuple[np.ndarray, int]:
    """Decode one frame; return its samples and its number."""
    require_size(int(header.Rows), int(header.Columns), name)
    frames = int(header.get("NumberOfFrames") or 1)
    frame = frames // 2 if index is None else index
    if frames == 1:
        frame = 0
    if not -frames <= frame < frames:
        raise InputError(f"{name}: frame {frame} is outside the file's {frames} frames.")
    frame %= frames
    return decoded_frame(header, frame), frame
