"""Values of a DICOM frame in the units of its modality, such as Hounsfield units."""

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset


def attributes_of(header: "Dataset", group: str, frame: int) -> "Dataset":
    """Return where the attributes of a functional group stand for a frame.

    Args:
        header: The file.
        group: Keyword of the functional group, such as "FrameVOILUTSequence".
        frame: Number of the frame, from 0.

    Returns:
        The item of the frame, else the item shared by all frames, else the file itself.
    """
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for item in [*per_frame[frame : frame + 1], *shared[:1]]:
        if macro := item.get(group):
            return macro[0]
    return header


def number(header: "Dataset", keyword: str, name: str) -> float | None:
    """Return the first number of an attribute, or `None` if it is missing or empty.

    Raises:
        InputError: If the attribute holds something else.
    """
    value = header.get(keyword)
    if value is None or np.size(value) == 0 or value == "":
        return None
    try:
        result = float(np.atleast_1d(value)[0])
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {keyword} is '{value}', which is no number; mend it.") from error
    if not np.isfinite(result):
        raise InputError(f"{name}: {keyword} is {result:g}; mend it.")
    return result


def stored_bits(pixels: np.ndarray, header: "Dataset") -> np.ndarray:
    """Keep only the bits of a sample that hold its value; others may hold overlays.

    Args:
        pixels: Samples as pydicom decodes them, of any shape.
        header: The file.

    Returns:
        Array of the shape and dtype of `pixels`; compressed pixels and floating point as they are.
    """
    if pixels.dtype.kind == "f" or header.file_meta.TransferSyntaxUID.is_compressed:
        return pixels
    allocated, stored, high = (
        int(header[key].value) for key in ("BitsAllocated", "BitsStored", "HighBit")
    )
    if not 0 < stored <= high + 1 <= allocated:
        return pixels
    if stored == allocated or pixels.dtype.itemsize * 8 != allocated:
        return pixels
    # a shift to the left and back drops the upper bits and, in signed values, extends the sign
    return (pixels << (allocated - 1 - high)) >> (allocated - stored)


def modality_values(pixels: np.ndarray, header: "Dataset", frame: int, name: str) -> np.ndarray:
    """Convert stored values of a grey frame to the units of the modality.

    Args:
        pixels: Stored values of one frame, [height, width].
        header: The file.
        frame: Number of the frame, from 0.
        name: Name of the file, for messages.

    Returns:
        [height, width]; by the modality LUT or by rescale slope and intercept, wherever they stand;
        for radiotherapy doses by the dose grid scaling; else `pixels`.

    Raises:
        InputError: If slope or intercept is no number.
    """
    from pydicom.pixels import apply_modality_lut

    if header.get("ModalityLUTSequence"):
        return apply_modality_lut(pixels, header)
    source = attributes_of(header, "PixelValueTransformationSequence", frame)
    slope = number(source, "RescaleSlope", name) or 1.0  # a slope of 0 is as good as none
    intercept = number(source, "RescaleIntercept", name) or 0.0
    if header.get("Modality") == "RTDOSE":
        slope, intercept = number(header, "DoseGridScaling", name) or 1.0, 0.0
    if (slope, intercept) == (1, 0):
        return pixels
    return pixels.astype(np.float64) * slope + intercept


def padding_of(pixels: np.ndarray, header: "Dataset", name: str) -> np.ndarray:
    """Return which pixels are padding outside the image, bool [height, width].

    Args:
        pixels: Stored values of one frame, [height, width].
        header: The file.
        name: Name of the file, for messages.
    """
    value = number(header, "PixelPaddingValue", name)
    if value is None:
        return np.zeros(pixels.shape, bool)
    limit = number(header, "PixelPaddingRangeLimit", name)
    ends = [value, value if limit is None else limit]
    if int(header.PixelRepresentation) == 1:  # some files write the bits of a signed value
        bits = int(header.BitsAllocated)
        ends = [end - 2**bits if end >= 2 ** (bits - 1) else end for end in ends]
    return (pixels >= min(ends)) & (pixels <= max(ends))
