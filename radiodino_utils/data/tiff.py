"""TIFF files that PIL does not read, or reads wrong: deep colours and most types of values."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import InputError
from .limits import require_size

_ORIENTATION = 274  # tag of TIFF and EXIF
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


class TiffPage(NamedTuple):
    """A page of a TIFF.

    Attributes:
        values: As they are stored and upright, [height, width] or [height, width, channels].
        is_white_zero: Whether zero stands for white.
        has_alpha: Whether the last channel is opacity.
    """

    values: np.ndarray
    is_white_zero: bool
    has_alpha: bool


def read_tiff(source: Path | bytes, index: int | None, name: str) -> TiffPage:
    """Read a page of a TIFF by tifffile.

    Args:
        source: The file, or its content.
        index: Number of the page; the first one by default.
        name: Name of the file, for messages.

    Raises:
        InputError: If the file is damaged, needs a package that is missing, or has no such page.
    """
    with _opened(source, name) as file:
        pages, page = len(file.pages), index or 0
        if not -pages <= page < pages:
            raise InputError(f"{name}: page {page} is outside the file's {pages} pages.")
        return _page(file.pages[page % pages], name)


def count_tiff_pages(path: Path) -> int:
    """Return the number of pages of a TIFF.

    Raises:
        InputError: If the file is damaged.
    """
    with _opened(path, str(path)) as file:
        return len(file.pages)


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Any]:
    """Open a TIFF by tifffile; what it raises becomes an `InputError`."""
    import tifffile

    content = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with tifffile.TiffFile(content) as file:
            if not len(file.pages):
                raise InputError(f"{name}: a TIFF without pages; copy or download it again.")
            yield file
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(f"{name}: the TIFF cannot be read ({reason}).") from error


def _page(page: Any, name: str) -> TiffPage:
    require_size(page.imagelength, page.imagewidth, name)
    values = page.asarray()
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise InputError(f"{name}: a TIFF with the axes {page.axes}; save its planes as pages.")
    tag = page.tags.get(_ORIENTATION)
    turn = _UPRIGHT.get(int(tag.value) if tag else 1)
    extra = page.extrasamples[-1] if page.extrasamples else 0
    return TiffPage(turn(values) if turn else values, page.photometric == 0, extra in _ALPHA)
