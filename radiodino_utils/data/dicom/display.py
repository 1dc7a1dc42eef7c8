"""Grey levels and colours of a DICOM frame, as the standard (PS3.3 C.7.6.3, C.11.2) shows it."""

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ..intensity import Rule, limits, scaled, windowed
from .values import attributes_of, modality_values, number, padding_of

if TYPE_CHECKING:
    from pydicom import Dataset


def grey_image(
    pixels: np.ndarray, header: "Dataset", frame: int, window: Rule | None, name: str
) -> np.ndarray:
    """Convert the stored values of a grey frame to grey levels.

    Args:
        pixels: Stored values of one frame, [height, width].
        header: The file.
        frame: Number of the frame, from 0.
        window: Lower and upper value that become 0 and 255; by default the VOI LUT or the first
            window of the file, else the full range of images of at most 8 bits, else see
            `intensity.scaled`.
        name: Name of the file, for messages.

    Returns:
        uint8, [height, width]; padding is black, MONOCHROME1 is inverted.

    Raises:
        InputError: If an attribute of the file cannot be used.
    """
    values = modality_values(pixels, header, frame, name)
    padding = padding_of(pixels, header, name)
    if window is not None:
        image = scaled(values, limits(values[~padding], window), name)
    elif (shown := _voi_image(values, header, frame, name)) is not None:
        image = shown
    elif values is pixels and pixels.dtype == np.uint8:
        bits = int(header.BitsStored)
        image = pixels if bits == 8 else windowed(pixels, (0, 2**bits - 1))
    elif padding.any() and not padding.all():
        image = np.zeros(values.shape, np.uint8)
        image[~padding] = scaled(values[~padding], None, name)
    else:
        image = scaled(values, None, name)
    image = 255 - image if header.PhotometricInterpretation == "MONOCHROME1" else image
    return np.where(padding, 0, image).astype(np.uint8) if padding.any() else image


def _voi_image(values: np.ndarray, header: "Dataset", frame: int, name: str) -> np.ndarray | None:
    """Return the image by the VOI LUT or window of the file, or `None` if it has neither."""
    from pydicom.pixels import apply_voi

    source = attributes_of(header, "FrameVOILUTSequence", frame)
    tables = source.get("VOILUTSequence")
    if tables and tables[0].get("LUTDescriptor") and tables[0].get("LUTData"):
        levels = apply_voi(np.rint(values).astype(np.int64), source)
        return windowed(levels, (0, 2 ** int(tables[0].LUTDescriptor[2]) - 1))
    centre, width = (number(source, key, name) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width <= 0:
        return None
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float64) - centre) / width, -700, 700)
        return np.round(255 / (1 + np.exp(exponent))).astype(np.uint8)
    if function == "LINEAR_EXACT" or width < 1:  # LINEAR is not defined below a width of 1
        return windowed(values, (centre - width / 2, centre + width / 2))
    low, high = centre - width / 2, centre + width / 2 - 1
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    return windowed(values, (low, high))


def colour_image(pixels: np.ndarray, header: "Dataset", name: str) -> np.ndarray:
    """Convert the stored values of a colour frame to RGB.

    Args:
        pixels: [height, width, 3], which pydicom has converted to RGB, or the indices of a palette,
            [height, width].
        header: The file.
        name: Name of the file, for messages.

    Returns:
        uint8, [height, width, 3].

    Raises:
        InputError: If the photometric interpretation is not one that can be shown.
    """
    from pydicom.pixels import apply_color_lut

    kind = str(header.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(pixels, header)[..., :3]
        bits = colours.dtype.itemsize * 8
    elif kind == "RGB" or kind.startswith("YBR_") and not kind.startswith("YBR_PARTIAL"):
        colours, bits = pixels, int(header.BitsStored)
    else:
        raise InputError(f"{name}: colours of the kind {kind} are not read; convert them to RGB.")
    if colours.dtype == np.uint8 and bits == 8:
        return colours
    return windowed(colours, (0, 2**bits - 1))
