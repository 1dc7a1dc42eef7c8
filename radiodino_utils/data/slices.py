"""Which slices of a series or volume are taken."""

import numpy as np

from ..core.errors import InputError


def chosen_slices(total: int, slices: str) -> np.ndarray:
    """Return the numbers of the slices that are taken, from 0, int64.

    Args:
        total: Number of slices.
        slices: `middle`, `all`, or a number of them, evenly from the first to the last.

    Raises:
        InputError: If `slices` is none of these.
    """
    if slices == "all":
        return np.arange(total)
    if slices != "middle" and not (slices.isdecimal() and int(slices) > 0):
        raise InputError(f"slices '{slices}': give middle, all, or a number above 0.")
    count = 1 if slices == "middle" else min(int(slices), total)
    if count == 1:
        return np.array([total // 2])
    return np.linspace(0, total - 1, count).round().astype(int)
