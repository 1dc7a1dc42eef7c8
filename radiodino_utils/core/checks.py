"""Checks of labels and numbers before any native code sees them."""

from collections.abc import Sequence

import numpy as np

from .errors import InputError


def checked_labels(
    labels: object,
    classes: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    what: str = "labels",
) -> np.ndarray:
    """Check that labels are whole numbers that stand for a class.

    Args:
        labels: Anything that becomes an array; floats are taken where they are whole.
        classes: Number of classes; without it only negative labels are refused.
        shape: Shape that the labels must have.
        what: Name of the labels in the message.

    Returns:
        The labels, int64.

    Raises:
        InputError: If a label is no number, not whole, or outside 0 to `classes` - 1, or the shape
            is another one.
    """
    array = np.asarray(labels)
    if shape is not None and array.shape != tuple(shape):
        raise InputError(
            f"{what} of shape {array.shape} do not fit: {tuple(shape)} is needed, one label a row."
        )
    known = (
        f"whole numbers from 0 to {classes - 1}, one for each class"
        if classes is not None
        else "whole numbers from 0 up"
    )
    if array.dtype.kind not in "iufb" and array.size:
        raise InputError(
            f"{what} must be {known}; they are {array.dtype}, so map the names of classes to numbers first."
        )
    bad = (
        ~np.isfinite(array) | (array != np.floor(array))
        if array.dtype.kind == "f"
        else np.zeros(array.shape, bool)
    )
    bad |= array < 0
    bad |= array >= (classes if classes is not None else np.iinfo(np.int64).max)
    if bad.any():
        position = tuple(map(int, np.argwhere(bad)[0]))
        where = position[0] if len(position) == 1 else position
        raise InputError(
            f"{what} must be {known}; that of row {where} is {array[position]}, so correct or leave out the row."
        )
    return array.astype(np.int64, copy=False)


def checked_embeddings(values: object, *, what: str = "embeddings") -> np.ndarray:
    """Check that embeddings are a table of finite numbers.

    Args:
        values: [n, width].
        what: Name of the embeddings in the message.

    Returns:
        The values, as they are.

    Raises:
        InputError: If they are no table of real numbers, or hold NaN or infinite values.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise InputError(
            f"the {what} are {array.dtype} {array.shape}; numbers of shape [n, width] are needed."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"the {what} hold NaN or infinite features; extract them again.")
    return array


def checked_temperature(temperature: float) -> float:
    """Check that a temperature is a finite number above 0.

    Raises:
        InputError: If it is not.
    """
    if not (np.isscalar(temperature) and np.isreal(temperature) and 0 < temperature < np.inf):
        raise InputError(
            f"temperature {temperature}: choose a finite number above 0, such as 0.07."
        )
    return float(temperature)


def checked_ks(ks: Sequence[int]) -> list[int]:
    """Check numbers of neighbours, and sort them.

    Raises:
        InputError: If there is none, or one is no whole number of at least 1.
    """
    numbers = np.asarray(ks)
    if (
        numbers.ndim != 1
        or not numbers.size
        or numbers.dtype.kind not in "iuf"
        or not (numbers >= 1).all()
    ):
        raise InputError(f"ks is {ks}; it needs at least one k, and each at least 1.")
    if not (np.isfinite(numbers) & (numbers == np.floor(numbers))).all():
        raise InputError(f"ks is {ks}; each k must be a whole number.")
    return sorted(numbers.astype(np.int64).tolist())
