"""Bootstrap resamples of images, or of whole groups of images such as patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra

with extra("evaluation"):
    from scipy.stats import norm, t

TAIL = 2.5  # percent on each side of a 95 % interval


def unit_numbers(groups: Sequence[str] | None, n: int) -> np.ndarray | None:
    """Number the groups of images by their first appearance.

    Args:
        groups: Group of each image, [n]; `None` if each image is a unit of its own.
        n: Number of images.

    Returns:
        int64, [n], or `None`.

    Raises:
        InputError: If there is not one group for each image.
    """
    if groups is None:
        return None
    names = np.array([group or None for group in groups], object)
    units = pd.factorize(names)[0].astype(np.int64)
    if len(units) != n or (units < 0).any():
        raise InputError(
            f"groups: {int((units >= 0).sum())} for {n} images; give one for each image, or none."
        )
    return units


def draw_counts(
    units: np.ndarray | None, n: int, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw resamples with replacement: of images, or of groups with all their images.

    The second is the cluster bootstrap (Field and Welsh, J. R. Stat. Soc. B 69, 2007).

    Args:
        units: Number of the group of each image, int64 [n]; see `unit_numbers`.
        n: Number of images.
        resamples: Number of resamples.
        generator: Where the numbers come from.

    Returns:
        How often each image counts, int64 [resamples, n].
    """
    count = n if units is None else int(units.max()) + 1
    counts = generator.multinomial(count, np.full(count, 1 / count), resamples)
    return counts if units is None else counts[:, units]


def interval_bounds(resampled: np.ndarray, units: np.ndarray | None) -> tuple[float, float]:
    """Return the bounds of the percentile bootstrap 95 % interval.

    Groups are often few, and percentiles of few units are too close together. So their tails are
    those of the expanded percentile interval (Hesterberg, The American Statistician 69, 2015),
    which has the width of Student's t interval where the values are normal.

    Args:
        resampled: Values of the resamples, NaN where one does not exist.
        units: See `draw_counts`.

    Returns:
        Lower and upper bound; NaN if there is no value, or if all images are of one group.
    """
    count = None if units is None else int(units.max()) + 1
    if count == 1 or not np.isfinite(resampled).any():
        return np.nan, np.nan
    tail = TAIL
    if count is not None:
        factor = np.sqrt(count / (count - 1)) * t.ppf(TAIL / 100, count - 1)
        tail = 100 * float(norm.cdf(factor))
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return float(low), float(high)
