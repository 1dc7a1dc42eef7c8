"""Limit of the size of an image, against files that unpack to fill the memory."""

import os

from ..core.errors import InputError

PIXELS = 178_956_970  # limit of PIL


def pixel_limit() -> int:
    """Return the greatest number of pixels of an image: RADIODINO_MAX_PIXELS, else `PIXELS`.

    Raises:
        InputError: If the variable is no whole number above 0.
    """
    text = os.environ.get("RADIODINO_MAX_PIXELS") or str(PIXELS)
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"RADIODINO_MAX_PIXELS is '{text}'; give a whole number of pixels.")
    return int(text)


def too_large(name: str) -> InputError:
    """Return the error for an image with more pixels than `pixel_limit`."""
    return InputError(
        f"{name}: the image has more than {pixel_limit()} pixels; if you trust the file, raise the "
        "limit with RADIODINO_MAX_PIXELS."
    )


def require_size(height: int, width: int, name: str) -> None:
    """Check that an image is not too large.

    Args:
        height: Number of rows.
        width: Number of columns.
        name: Name of the file, for the message.

    Raises:
        InputError: If it has more pixels than `pixel_limit`.
    """
    if height * width > pixel_limit():
        raise too_large(name)
