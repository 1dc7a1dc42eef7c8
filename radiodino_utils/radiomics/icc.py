"""Intraclass correlation: how much of a feature's variance lies between regions."""

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra

ICC_COLUMNS = ("icc2", "icc2_low", "icc2_high", "icc3", "icc3_low", "icc3_high")


def intraclass_correlation(measured: np.ndarray, *, level: float = 0.95) -> pd.DataFrame:
    """Return ICC(2,1) and ICC(3,1) of features, with their intervals by the F distribution.

    ICC(2,1) is that of absolute agreement: a shift of all values lowers it; ICC(3,1) is that of
    consistency. Both are of a single measurement in a two-way layout (Shrout and Fleiss, Psychol.
    Bull. 86 (1979) 420; intervals: McGraw and Wong, Psychol. Methods 1 (1996) 30).

    Args:
        measured: Values, [targets, measurements, features], without NaN.
        level: Level of the intervals.

    Returns:
        One row per feature with `ICC_COLUMNS`; NaN where a feature never changes. Where the means
        of all targets are equal, ICC(2,1) has no interval, and without noise ICC(3,1) no value.

    Raises:
        InputError: If there are fewer than two targets or measurements.
    """
    with extra("evaluation"):
        from scipy.stats import f

    n, k, _ = measured.shape
    if min(n, k) < 2:
        raise InputError(f"{n} targets, {k} measurements: a correlation needs two of each.")
    measured = measured.astype(np.float64)
    grand = measured.mean((0, 1))
    targets, raters = measured.mean(1), measured.mean(0)
    rest = measured - targets[:, None] - raters + grand
    free = (n - 1) * (k - 1)
    between = k * ((targets - grand) ** 2).sum(0) / (n - 1)
    across = n * ((raters - grand) ** 2).sum(0) / (k - 1)
    error = (rest**2).sum((0, 1)) / free
    # rounding leaves some variance where there is none
    rounding = 1e-20 * (measured**2).mean((0, 1))
    between, across, error = (
        np.where(part <= rounding, 0.0, part) for part in (between, across, error)
    )
    tail = 1 - (1 - level) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, perfect = between / error, np.where(between > 0, 1.0, np.nan)
        low, high = ratio / f.ppf(tail, n - 1, free), ratio * f.ppf(tail, free, n - 1)
        icc2 = (between - error) / (between + (k - 1) * error + k * (across - error) / n)
        icc3 = np.where(error > 0, (ratio - 1) / (ratio + k - 1), perfect)
        # Satterthwaite's degrees of freedom of the denominator
        a, b = k * icc2 / (n * (1 - icc2)), 1 + k * icc2 * (n - 1) / (n * (1 - icc2))
        v = (a * across + b * error) ** 2 / ((a * across) ** 2 / (k - 1) + (b * error) ** 2 / free)
        upper, lower = f.ppf(tail, n - 1, v), f.ppf(tail, v, n - 1)
        shared = k * across + (k * n - k - n) * error
        table = {
            "icc2": icc2,
            "icc2_low": n * (between - upper * error) / (upper * shared + n * between),
            "icc2_high": n * (lower * between - error) / (shared + n * lower * between),
            "icc3": icc3,
            "icc3_low": np.where(error > 0, (low - 1) / (low + k - 1), perfect),
            "icc3_high": np.where(error > 0, (high - 1) / (high + k - 1), perfect),
        }
    exact = (error + across <= 1e-12 * between) & (between > 0)
    result = pd.DataFrame(table, columns=ICC_COLUMNS)
    result.loc[exact] = 1.0
    result.loc[between == 0, ["icc2_low", "icc2_high"]] = np.nan
    return result
