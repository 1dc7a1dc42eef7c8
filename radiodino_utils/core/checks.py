"""Checks of labels and numbers before any native code receives them."""

import re
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError

# what begins a cell that a spreadsheet computes (OWASP, "CSV Injection")
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def checked_labels(
    labels: ArrayLike,
    classes: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    what: str = "labels",
) -> np.ndarray:
    """Return labels after checking that each is the number of a class.

    Args:
        labels: Labels; floats are accepted if they are whole.
        classes: Number of classes; without it only negative labels are refused.
        shape: Shape that the labels must have.
        what: What the labels are called in the message.

    Returns:
        The labels, int64.

    Raises:
        InputError: If a label is not a whole number from 0 to `classes` - 1, or the shape differs.
    """
    array = np.asarray(labels)
    if shape is not None and array.shape != tuple(shape):
        raise InputError(
            f"{what} of shape {array.shape} do not fit: {tuple(shape)} is needed, "
            "one label per row."
        )
    valid = "whole numbers from 0 up"
    if classes is not None:
        valid = f"whole numbers from 0 to {classes - 1}, one for each class"
    if array.dtype.kind not in "iufb" and array.size:
        raise InputError(
            f"{what} must be {valid}; they are {array.dtype}, "
            "so map the names of classes to numbers first."
        )
    invalid = array < 0
    invalid |= array >= (classes if classes is not None else np.iinfo(np.int64).max)
    if array.dtype.kind == "f":
        invalid |= ~np.isfinite(array) | (array != np.floor(array))
    if invalid.any():
        position = tuple(map(int, np.argwhere(invalid)[0]))
        row = position[0] if len(position) == 1 else position
        raise InputError(
            f"{what} must be {valid}; that of row {row} is {array[position]}, "
            "so correct or leave out the row."
        )
    return array.astype(np.int64, copy=False)


def checked_embeddings(values: ArrayLike, *, what: str = "embeddings") -> np.ndarray:
    """Return embeddings after checking that they are a table of finite numbers.

    Args:
        values: [n, width].
        what: What the embeddings are called in the message.

    Returns:
        The values, unchanged.

    Raises:
        InputError: If they are not a table of real numbers, or contain NaN or infinite values.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise InputError(
            f"the {what} are {array.dtype} {array.shape}; numbers of shape [n, width] are needed."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"the {what} hold NaN or infinite features; extract them again.")
    return array


def checked_count(number: int, *, what: str) -> int:
    """Check a number of things, such as the images of a batch.

    Args:
        number: A whole number of at least 1.
        what: Name of the option for the error.

    Returns:
        The number.

    Raises:
        InputError: If it is no whole number, or below 1.
    """
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise InputError(f"{what} is {number!r}; it needs a whole number of at least 1.")
    return int(number)


def checked_temperature(temperature: float) -> float:
    """Return a temperature after checking that it is a finite number above 0.

    Raises:
        InputError: If it is not.
    """
    is_number = np.isscalar(temperature) and np.isreal(temperature)
    if not is_number or not 0 < temperature < np.inf:
        raise InputError(
            f"temperature {temperature}: choose a finite number above 0, such as 0.07."
        )
    return float(temperature)


def checked_ks(ks: Sequence[int]) -> list[int]:
    """Return numbers of neighbours in ascending order after checking them.

    Raises:
        InputError: If there is none, or one is not a whole number of at least 1.
    """
    numbers = np.asarray(ks)
    is_list = numbers.ndim == 1 and numbers.size and numbers.dtype.kind in "iuf"
    if not is_list or not (numbers >= 1).all():
        raise InputError(f"ks is {ks}; it needs at least one k, and each at least 1.")
    if not (np.isfinite(numbers) & (numbers == np.floor(numbers))).all():
        raise InputError(f"ks is {ks}; each k must be a whole number.")
    return sorted(numbers.astype(np.int64).tolist())
