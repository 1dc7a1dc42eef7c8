"""PNG, JPEG, TIFF, GIF, BMP and WebP files: their values as stored, and 8-bit images."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from ..core.errors import InputError
from .intensity import Rule, scaled, windowed
from .limits import pixel_limit, too_large
from .tiff import TiffPage, count_tiff_pages, read_tiff

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_SAMPLE_FORMAT, _POLARITY = 339, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_BITS, _PLANES = 258, 284  # BitsPerSample, PlanarConfiguration
_UNSIGNED, _SIGNED = 1, 2  # values of SampleFormat
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_raster(
    source: Path | bytes,
    *,
    window: Rule | None = None,
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
    if image is None:
        return _levels(read_tiff(source, index, name), window, name)
    is_white_zero = _tag(image, _POLARITY) == 0
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        levels = scaled(np.asarray(image), window, name)
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
    name = name or str(source)
    opened = _opened(source, index, name)
    if opened is None:
        return read_tiff(source, index, name).values
    image = ImageOps.exif_transpose(opened)
    return np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image)


def count_pages(path: Path) -> int:
    """Return the number of pages or frames of a file.

    Raises:
        InputError: If PIL and tifffile do not know the file, or it is damaged.
    """
    try:
        with _explaining(str(path)), Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    except UnidentifiedImageError as error:
        if _begins_as_tiff(path):
            return count_tiff_pages(path)
        raise _unknown(str(path)) from error


def _levels(page: TiffPage, window: Rule | None, name: str) -> np.ndarray:
    """Return a page of a TIFF as an 8-bit image; see `read_raster`."""
    values = page.values
    if page.has_alpha:
        largest = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
        values = values[..., :-1] * (values[..., -1:] / largest)
    channels = 1 if values.ndim == 2 else values.shape[-1]
    if channels not in (1, 3):
        raise InputError(f"{name}: a TIFF with {channels} channels; grey and RGB are read.")
    if channels == 3 and page.values.dtype.kind == "u" and window is None:
        return windowed(values, (0, np.iinfo(page.values.dtype).max))
    levels = scaled(values if channels == 3 else values.reshape(values.shape[:2]), window, name)
    return 255 - levels if page.is_white_zero else levels


def _opened(source: Path | bytes, index: int | None, name: str) -> Image.Image | None:
    """Return an image whose pixels are in memory, or `None` for a TIFF that PIL does not know."""
    try:
        with (
            _explaining(name),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image,
        ):
            pages = getattr(image, "n_frames", 1)
            page = index or 0
            if not -pages <= page < pages:
                raise InputError(f"{name}: page {page} is outside the file's {pages} pages.")
            if pages > 1 and index is None:
                warnings.warn(
                    f"{name}: the first of {pages} pages is read; name another by `index`.",
                    stacklevel=4,
                )
            if page % pages:
                image.seek(page % pages)
            if _is_misread(image):
                return None
            image.load()
            return image
    except UnidentifiedImageError as error:
        if _begins_as_tiff(source):
            return None
        raise _unknown(name) from error


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Turn errors of PIL, but for unknown formats, into one sentence."""
    Image.MAX_IMAGE_PIXELS = max(pixel_limit() // 2, 1)  # PIL refuses above twice this number
    try:
        yield
    except (InputError, UnidentifiedImageError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(name) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise InputError(
            f"{name}: the image is damaged or truncated ({error}); copy or download it again."
        ) from error


def _unknown(name: str) -> InputError:
    known = ", ".join((*SUFFIXES, ".dcm", ".nii", ".nii.gz"))
    return InputError(f"{name}: not an image that can be read (known: {known}).")


def _begins_as_tiff(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return source[:4] in _TIFF
    with source.open("rb") as file:
        return file.read(4) in _TIFF


def _is_misread(image: Image.Image) -> bool:
    """Return whether PIL mistakes the sign of values, or planes of deep colours."""
    bits, kind = _tag(image, _BITS) or 0, _tag(image, _SAMPLE_FORMAT) or _UNSIGNED
    if bits == 8 and kind == _SIGNED or bits == 32 and kind == _UNSIGNED and image.mode == "I":
        return True
    return bits > 8 and _tag(image, _PLANES) == 2


def _tag(image: Image.Image, tag: int) -> int | None:
    """Return the first number of a tag of a TIFF; `None` for other formats."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    value = image.tag_v2.get(tag)
    return None if value is None else int(np.atleast_1d(value)[0])
