"""PNG, JPEG, TIFF, GIF, BMP and WebP files: their values as stored, and 8-bit images."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from ..core.errors import InputError
from .intensity import Window, scaled
from .limits import pixel_limit, too_large

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error)
_SAMPLE_FORMAT, _POLARITY = 339, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_SIGNED = 2
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_raster(
    source: Path | bytes,
    *,
    window: Window | None = None,
    index: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read an image by PIL: upright, colour as colour, transparency over black.

    Args:
        source: The file, or its content.
        window: Lower and upper value that become 0 and 255, for values of more than 8 bits; see
            `intensity.scaled`.
        index: Page or frame of several; the first one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        uint8, [height, width] or [height, width, 3].

    Raises:
        InputError: If the file is damaged, too large, not an image, or has no such page.
    """
    name = name or str(source)
    image = _opened(source, index, name)
    is_signed = _has_signed_bytes(image)
    is_white_zero = _tag(image, _POLARITY) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")) or is_signed:
        values = np.asarray(image)
        levels = scaled(values.view(np.int8) if is_signed else values, window, name)
        return 255 - levels if is_white_zero else levels  # PIL inverts 8 bits only
    if image.mode in ("L", "RGB"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(image.convert("RGB"))
    layer = image.convert("RGBA")  # palette and transparent images
    black = Image.new("RGBA", layer.size, "black")
    return np.asarray(Image.alpha_composite(black, layer).convert("RGB"))


def read_raster_values(
    source: Path | bytes, *, index: int | None = None, name: str | None = None
) -> np.ndarray:
    """Read the values of an image as they are stored, for instance the labels of a mask.

    Args:
        source: The file, or its content.
        index: Page or frame of several; the first one by default.
        name: Name of the file, for messages; by default its path.

    Returns:
        [height, width], or [height, width, channels] of colours. The numbers of a palette, not its
        colours; 0 and 1 for images of one bit.

    Raises:
        InputError: See `read_raster`.
    """
    image = ImageOps.exif_transpose(_opened(source, index, name or str(source)))
    return np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image)


def _opened(source: Path | bytes, index: int | None, name: str) -> Image.Image:
    """Return an image whose pixels are in memory."""
    Image.MAX_IMAGE_PIXELS = max(pixel_limit() // 2, 1)  # PIL refuses above twice this number
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            pages = getattr(image, "n_frames", 1)
            page = index or 0
            if not -pages <= page < pages:
                raise InputError(f"{name}: page {page} is outside the file's {pages} pages.")
            if page % pages:
                image.seek(page % pages)
            image.load()
    except InputError:
        raise
    except UnidentifiedImageError as error:
        if _begins_as_tiff(source):
            raise InputError(
                f"{name}: a TIFF of a kind that is not read, such as 64-bit values; save it with "
                "8, 16 or 32 bits."
            ) from error
        known = ", ".join((*SUFFIXES, ".dcm", ".nii", ".nii.gz"))
        raise InputError(f"{name}: not an image that can be read (known: {known}).") from error
    except Image.DecompressionBombError as error:
        raise too_large(name) from error
    except _DAMAGE as error:
        raise InputError(
            f"{name}: the image is damaged or truncated ({error}); copy or download it again."
        ) from error
    return image


def _begins_as_tiff(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source[:4] in _TIFF
    with source.open("rb") as file:
        return file.read(4) in _TIFF


def _has_signed_bytes(image: Image.Image) -> bool:
    """Return whether PIL takes signed values of 8 bits for unsigned ones."""
    return image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == _SIGNED


def _tag(image: Image.Image, tag: int) -> int | None:
    """Return the first number of a tag of a TIFF; `None` for other formats."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    value = image.tag_v2.get(tag)
    return None if value is None else int(np.atleast_1d(value)[0])
