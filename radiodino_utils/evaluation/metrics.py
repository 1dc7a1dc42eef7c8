"""Classification metrics with bootstrap intervals, all resamples at once."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.checks import checked_labels
from ..core.errors import InputError
from ..core.extras import extra

with extra("evaluation"):
    from scipy.sparse import csr_array
    from scipy.stats import bootstrap

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "auc", "ece")
BINARY_METRICS = ("sensitivity", "specificity")
BINS = 15  # of the expected calibration error
_BLOCK = 4_000_000  # numbers in one block of resamples: bounds the memory


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
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Accuracy, balanced accuracy, macro-F1, AUC and calibration error, each with a percentile
    bootstrap 95 % interval.

    AUC follows MedMNIST's evaluator: the unweighted mean of one-vs-rest AUCs over the classes; for
    two classes that of class 1, which is that of class 0 too. The predicted class is the most
    probable one, the lower of equals (for two classes: score of class 1 > 0.5). In a resample, a
    class without images is left out of balanced accuracy and AUC, and out of macro-F1 where it is
    not predicted either; so it is for the whole set, as in scikit-learn. Two classes have
    sensitivity and specificity too. `ece` is the expected calibration error of the predicted class
    in 15 equal bins (Guo et al., ICML 2017).

    The interval speaks of the images of this test set as if they were drawn independently. It knows
    nothing of other trainings or patients, is too narrow where images of one patient resemble each
    other, shrinks to a point at 0 and
    1, and need not be symmetric: a resample repeats images, which lowers macro-F1 a little.

    Args:
        labels: Integers, [n].
        probabilities: Probabilities of the classes, [n, classes].
        positive: Of two classes the one whose recall is the sensitivity.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.

    Returns:
        An interval for each of `METRICS` and, with two classes, of `BINARY_METRICS`; NaN where a
        metric does not exist (AUC with one class).

    Raises:
        InputError: If the arrays are empty, do not fit, or hold NaN.
    """
    whole, resampled = _resampled(labels, probabilities, positive, resamples, seed)
    return {metric: _interval(whole[metric], resampled[metric]) for metric in whole}


def paired_differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    positive: int = 1,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """What one classifier is better by than another on the same images, with a paired bootstrap 95
    % interval.

    Both are evaluated on the same resamples, so that what makes a image hard for both drops out.

    Args:
        labels: Integers, [n].
        first: Probabilities of the one, [n, classes].
        second: Probabilities of the other, [n, classes].
        positive: See `classification_metrics`.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.

    Returns:
        For each metric first minus second.

    Raises:
        InputError: See `classification_metrics`.
    """
    (one, ones), (other, others) = (
        _resampled(labels, scores, positive, resamples, seed) for scores in (first, second)
    )
    return {
        metric: _interval(one[metric] - other[metric], ones[metric] - others[metric])
        for metric in one
    }


def _resampled(
    labels: np.ndarray, probabilities: np.ndarray, positive: int, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Each metric of the whole set and of every resample; the resamples depend on n, classes and seed alone."""
    labels, probabilities = _checked(labels, probabilities)
    if positive not in range(probabilities.shape[1]):
        raise InputError(
            f"positive {positive}: the scores have the classes 0 to {probabilities.shape[1] - 1}."
        )
    generator = np.random.default_rng(seed)
    n, classes = probabilities.shape
    step = max(1, _BLOCK // max(n, classes))
    uniform = np.full(n, 1 / n)
    weights = [
        generator.multinomial(n, uniform, min(step, resamples - start))
        for start in range(0, resamples, step)
    ]
    parts = [_metrics(labels, probabilities, one.astype(np.float64), positive) for one in weights]
    whole = _metrics(labels, probabilities, np.ones((1, n)), positive)
    return (
        {metric: float(one[0]) for metric, one in whole.items()},
        {
            metric: np.concatenate([np.empty(0), *(part[metric] for part in parts)])
            for metric in whole
        },
    )


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if not labels.size or probabilities.shape[:1] != labels.shape or probabilities.ndim != 2:
        raise InputError(
            f"labels {labels.shape} and probabilities {probabilities.shape} do not fit: [n] and [n, classes]."
        )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "probabilities hold NaN or infinite values; check the features that they come from."
        )
    return checked_labels(labels, probabilities.shape[1]), probabilities


def _interval(value: float, resampled: np.ndarray) -> Interval:
    low, high = (
        np.nanpercentile(resampled, [2.5, 97.5])
        if np.isfinite(resampled).any()
        else (np.nan, np.nan)
    )
    return Interval(value, float(low), float(high))


def mean_interval(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mean of one value a image with its percentile bootstrap 95 % interval over images.

    Args:
        values: [n]; the mean of none is NaN, and so is the interval of fewer than two.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.
    """
    if len(values) < 2:
        return Interval(
            float(values[0]) if len(values) else float("nan"), float("nan"), float("nan")
        )
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(np.mean(values)), *map(float, found.confidence_interval))


def confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts of images by true (row) and predicted class (column), int64, [classes, classes].

    Raises:
        InputError: See `classification_metrics`.
    """
    labels, probabilities = _checked(labels, probabilities)
    classes = probabilities.shape[1]
    return np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2).reshape(
        classes, classes
    )


def _metrics(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, positive: int
) -> dict[str, np.ndarray]:
    """Each metric for each row of `weights` [resamples, n], which says how often a image counts."""
    n, classes = probabilities.shape
    found = probabilities.argmax(1)
    right, true, predicted = (
        (csr_array((counted, (label, np.arange(n))), shape=(classes, n)) @ weights.T).T
        for label, counted in (
            (labels, (labels == found).astype(float)),
            (labels, np.ones(n)),
            (found, np.ones(n)),
        )
    )
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
    return metrics | (
        {"sensitivity": recall[:, positive], "specificity": recall[:, 1 - positive]}
        if classes == 2
        else {}
    )


def _calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean over the bins, by their images, of how far confidence is from accuracy."""
    confidence, n = probabilities.max(1), len(labels)
    gap = confidence - (probabilities.argmax(1) == labels)
    bins = confidence_bins(confidence)
    gaps = csr_array((gap, (bins, np.arange(n))), shape=(BINS, n)) @ weights.T
    return np.abs(gaps).sum(0) / weights.sum(1)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """In which of the equal bins of 0..1 each confidence lies, int64."""
    return np.clip((np.asarray(confidence) * BINS).astype(np.int64), 0, BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """What a reliability diagram shows: for each bin that is not empty its mean confidence,
    accuracy and n.

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
    """Mean over the classes that exist; NaN where none does."""
    exists = np.isfinite(values)
    return np.where(exists, values, 0).sum(1) / np.where(exists.any(1), exists.sum(1), np.nan)


def _auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (Mann-Whitney, ties count half) for each row of weights."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights, positive = weights[:, order], positive[order]
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = negatives.cumsum(1) - negatives / 2
    with np.errstate(invalid="ignore"):
        return (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))
