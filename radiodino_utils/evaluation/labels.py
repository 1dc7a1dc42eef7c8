"""How numbers, metrics and backbones are written in tables and figures."""

import numpy as np

DASH = "–"  # of a metric that is missing or not defined
METRIC_LABELS = {
    "accuracy": "accuracy %",
    "balanced_accuracy": "balanced acc. %",
    "f1_macro": "macro-F1 %",
    "auc": "AUC %",
    "sensitivity": "sensitivity %",
    "specificity": "specificity %",
    "ece": "calibration error %",
    "precision_at_1": "precision at 1 %",
    "precision_at_5": "precision at 5 %",
    "precision_at_10": "precision at 10 %",
    "road": "ROAD %",
    "mass_share": "mass on the mask %",
    "pointing": "pointing game %",
}


def percent(value: float, low: float, high: float, sd: float = float("nan"), *, digits: int) -> str:
    """Format a fraction and its interval in percent.

    Args:
        value: Fraction; NaN if it is not defined.
        low: Lower end of the interval; NaN if there is none, as for one image.
        high: Upper end of the interval.
        sd: Standard deviation; NaN if there is none.
        digits: Digits after the decimal point.

    Returns:
        Such as "48.1 [43.8, 52.5]", "48.1 ± 0.9 [43.8, 52.5]", "48.1 [no interval]" or a dash.
    """
    if np.isnan(value):
        return DASH
    deviation = "" if np.isnan(sd) else f" ± {100 * sd:.{digits}f}"
    interval = "no interval"
    if not np.isnan(low):
        interval = f"{100 * low:.{digits}f}, {100 * high:.{digits}f}"
    return f"{100 * value:.{digits}f}{deviation} [{interval}]"


def label_of(backbone: str) -> str:
    """Return the label of a backbone in tables and figures, which says what a baseline is.

    Args:
        backbone: Name of the backbone.

    Returns:
        Such as "random-t16 (random weights)", or the name itself for trained weights.
    """
    baselines = {"random": "random weights", "pixels": "no backbone", "none": "from scratch"}
    baseline = baselines.get(backbone.partition("-")[0])
    return f"{backbone} ({baseline})" if baseline else backbone
