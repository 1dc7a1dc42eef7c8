"""Classification metrics with bootstrap intervals, all resamples at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.checks import checked_labels
from ..core.errors import InputError
from ..core.extras import extra
from .resampling import draw_counts, interval_bounds, unit_numbers

with extra("evaluation"):
    from scipy.sparse import csr_array
    from scipy.stats import bootstrap

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "auc", "ece")
BINARY_METRICS = ("sensitivity", "specificity")
BINS = 15  # of the expected calibration error
BLOCK = 4_000_000  # numbers in one block of resamples: bounds the memory


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap 95 % interval, all fractions."""

    value: float
    low: float
    high: float


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    positive: int = 1,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return classification metrics, each with a percentile bootstrap 95 % interval.

    These are accuracy, balanced accuracy, macro-F1, AUC and calibration error. AUC follows
    MedMNIST's evaluator: the unweighted mean of one-vs-rest AUCs over the classes; for two classes
    that of class 1, which is that of class 0 too. The predicted class is the most probable one, the
    lower of equals (for two classes: score of class 1 > 0.5). In a resample, a class without images
    is left out of balanced accuracy and AUC, and out of macro-F1 where it is not predicted either;
    the same holds for all images, as in scikit-learn. Two classes have sensitivity and specificity
    too. `ece` is the expected calibration error of the predicted class in 15 equal bins (Guo et
    al., ICML 2017).

    Without groups the interval treats the images of this test set as drawn independently, and is
    too narrow where images of one patient resemble each other. With groups whole groups are drawn
    (see `resampling`). Neither covers other trainings; both shrink to a point at 0 and 1, and need
    not be symmetric: a resample repeats images, which lowers macro-F1 a little.

    Args:
        labels: Integers, [n].
        probabilities: Probabilities of the classes, [n, classes].
        positive: Of two classes the one whose recall is the sensitivity.
        groups: Group of each image, such as its patient, [n]; `None` if images are independent.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        An interval for each of `METRICS` and, with two classes, of `BINARY_METRICS`; NaN where a
        metric does not exist (AUC with one class), and as bounds of a single group.

    Raises:
        InputError: If the arrays are empty, do not fit, or hold NaN.
    """
    units = unit_numbers(groups, len(labels))
    values, resampled = _resampled(labels, probabilities, positive, units, resamples, seed)
    return {
        metric: Interval(value, *interval_bounds(resampled[metric], units))
        for metric, value in values.items()
    }


def paired_differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    positive: int = 1,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return how much better one classifier is than another, with paired bootstrap 95 % intervals.

    Both are evaluated on the same resamples, so that what makes an image hard for both cancels out.

    Args:
        labels: Integers, [n].
        first: Probabilities of the first classifier, [n, classes].
        second: Probabilities of the second one, [n, classes].
        positive: See `classification_metrics`.
        groups: See `classification_metrics`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        For each metric first minus second.

    Raises:
        InputError: See `classification_metrics`.
    """
    units = unit_numbers(groups, len(labels))
    values, resampled = _resampled(labels, first, positive, units, resamples, seed)
    others, others_resampled = _resampled(labels, second, positive, units, resamples, seed)
    return {
        metric: Interval(
            value - others[metric],
            *interval_bounds(resampled[metric] - others_resampled[metric], units),
        )
        for metric, value in values.items()
    }


def _resampled(
    labels: np.ndarray,
    probabilities: np.ndarray,
    positive: int,
    units: np.ndarray | None,
    resamples: int,
    seed: int,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return each metric of all images and of every resample.

    The resamples depend on n, the groups, the number of classes and the seed alone.
    """
    labels, probabilities = _checked(labels, probabilities)
    if positive not in range(probabilities.shape[1]):
        raise InputError(
            f"positive {positive}: the scores have the classes 0 to {probabilities.shape[1] - 1}."
        )
    generator = np.random.default_rng(seed)
    n, classes = probabilities.shape
    step = max(1, BLOCK // max(n, classes))
    weights = [
        draw_counts(units, n, min(step, resamples - start), generator)
        for start in range(0, resamples, step)
    ]
    parts = [
        _metrics(labels, probabilities, counts.astype(np.float64), positive) for counts in weights
    ]
    values = _metrics(labels, probabilities, np.ones((1, n)), positive)
    resampled = {
        metric: np.concatenate([np.empty(0), *(part[metric] for part in parts)])
        for metric in values
    }
    return {metric: float(value[0]) for metric, value in values.items()}, resampled


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if not labels.size or probabilities.shape[:1] != labels.shape or probabilities.ndim != 2:
        raise InputError(
            f"labels {labels.shape} and probabilities {probabilities.shape} do not fit: "
            "[n] and [n, classes]."
        )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "probabilities hold NaN or infinite values; check the features that they come from."
        )
    return checked_labels(labels, probabilities.shape[1]), probabilities


def mean_interval(
    values: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the mean of a value per image with its percentile bootstrap 95 % interval.

    Args:
        values: [n]; the mean of none is NaN, and so is the interval of fewer than two.
        groups: See `classification_metrics`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
    """
    if len(values) < 2:
        return Interval(float(values[0]) if len(values) else np.nan, np.nan, np.nan)
    units = unit_numbers(groups, len(values))
    if units is not None:
        counts = draw_counts(units, len(values), resamples, np.random.default_rng(seed))
        means = counts @ values / counts.sum(1)
        return Interval(float(np.mean(values)), *interval_bounds(means, units))
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(np.mean(values)), *map(float, result.confidence_interval))


def _metrics(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, positive: int
) -> dict[str, np.ndarray]:
    """Return each metric for each row of `weights`, [resamples, n]: how often an image counts."""
    n, classes = probabilities.shape
    predictions = probabilities.argmax(1)

    def by_class(labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
        return (csr_array((counted, (labels, np.arange(n))), shape=(classes, n)) @ weights.T).T

    right = by_class(labels, (labels == predictions).astype(float))
    true, predicted = by_class(labels, np.ones(n)), by_class(predictions, np.ones(n))
    aucs = np.stack(
        [_auc(probabilities[:, c], labels == c, weights) for c in range(classes)], axis=1
    )
    with np.errstate(invalid="ignore"):
        recall = right / true
        metrics = {
            "accuracy": right.sum(1) / weights.sum(1),
            "balanced_accuracy": _mean(recall),
            "f1_macro": _mean(2 * right / (true + predicted)),
            "auc": _mean(aucs if classes != 2 else aucs[:, 1:]),
            "ece": _calibration_error(labels, probabilities, weights),
        }
    if classes == 2:
        metrics["sensitivity"] = recall[:, positive]
        metrics["specificity"] = recall[:, 1 - positive]
    return metrics


def _calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the mean over images of the gap between confidence and accuracy of their bin."""
    confidence, n = probabilities.max(1), len(labels)
    gap = confidence - (probabilities.argmax(1) == labels)
    bins = confidence_bins(confidence)
    gaps = csr_array((gap, (bins, np.arange(n))), shape=(BINS, n)) @ weights.T
    return np.abs(gaps).sum(0) / weights.sum(1)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence, int64; the bins of 0..1 are equally wide."""
    return np.clip((np.asarray(confidence) * BINS).astype(np.int64), 0, BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the table of a reliability diagram.

    Args:
        labels: Integers, [n].
        probabilities: Probabilities of the classes, [n, classes].

    Returns:
        Mean confidence, accuracy and n of each bin that is not empty.

    Raises:
        InputError: See `classification_metrics`.
    """
    labels, probabilities = _checked(labels, probabilities)
    confidence = probabilities.max(1)
    table = pd.DataFrame(
        {"confidence": confidence, "accuracy": probabilities.argmax(1) == labels, "n": 1}
    )
    return table.groupby(confidence_bins(confidence)).agg(
        {"confidence": "mean", "accuracy": "mean", "n": "sum"}
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that exist; NaN where none does."""
    exists = np.isfinite(values)
    return np.where(exists, values, 0).sum(1) / np.where(exists.any(1), exists.sum(1), np.nan)


def _auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve for each row of weights.

    It is the Mann-Whitney statistic; ties count half.
    """
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights, positive = weights[:, order], positive[order]
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = negatives.cumsum(1) - negatives / 2
    with np.errstate(invalid="ignore"):
        return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))
