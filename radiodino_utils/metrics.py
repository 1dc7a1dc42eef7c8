"""Classification metrics with bootstrap intervals, all resamples at once."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import bootstrap

from .errors import InputError

METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "auc")
_BLOCK = 4_000_000  # numbers in one block of resamples: bounds the memory


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap 95 % interval, all fractions."""

    value: float
    low: float
    high: float


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Accuracy, balanced accuracy, macro-F1 and AUC, each with a percentile bootstrap 95 % interval over pictures.

    AUC follows MedMNIST's evaluator: the unweighted mean of one-vs-rest AUCs over the classes; for two classes that of
    class 1. The predicted class is the most probable one, the lower of equals (for two classes: score of class 1 > 0.5).
    In a resample, a class without pictures is left out of balanced accuracy and AUC, and out of macro-F1 where it is
    not predicted either; so it is for the whole set, as in scikit-learn.

    The interval speaks of the pictures of this test set as if they were drawn independently. It knows nothing of other
    trainings or patients, is too narrow where pictures of one patient resemble each other, shrinks to a point at 0 and
    1, and need not be symmetric: a resample repeats pictures, which lowers macro-F1 a little.

    Args:
        labels: Integers, [n].
        probabilities: Scores of the classes, [n, classes].
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.

    Returns:
        An interval for each of `METRICS`; NaN where a metric does not exist (AUC with one class).

    Raises:
        InputError: If the arrays are empty, do not fit, or hold NaN.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if not len(labels) or probabilities.shape[:1] != labels.shape or probabilities.ndim != 2:
        raise InputError(f"labels {labels.shape} and probabilities {probabilities.shape} do not fit: [n] and [n, classes].")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InputError(
            f"labels must be whole numbers from 0 to {probabilities.shape[1] - 1}, one for each class of the scores."
        )
    if not np.isfinite(probabilities).all():
        raise InputError("probabilities hold NaN or infinite values; check the features that they come from.")
    generator = np.random.default_rng(seed)
    n, classes = probabilities.shape
    step = max(1, _BLOCK // max(n, classes**2))
    whole = _metrics(labels, probabilities, np.ones((1, n)))
    uniform = np.full(n, 1 / n)
    parts = [
        _metrics(labels, probabilities, generator.multinomial(n, uniform, min(step, resamples - start)).astype(np.float64))
        for start in range(0, resamples, step)
    ]
    intervals = {}
    for metric in METRICS:
        values = np.concatenate([part[metric] for part in parts]) if parts else np.array([np.nan])
        low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
        intervals[metric] = Interval(float(whole[metric][0]), float(low), float(high))
    return intervals


def mean_interval(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mean of one value a picture with its percentile bootstrap 95 % interval over pictures.

    Args:
        values: [n], at least two.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.
    """
    found = bootstrap((values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed))
    return Interval(float(np.mean(values)), *map(float, found.confidence_interval))


def confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts of pictures by true (row) and predicted class (column), int64, [classes, classes]."""
    classes = probabilities.shape[1]
    return np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2).reshape(classes, classes)


def _metrics(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric for each row of `weights` [resamples, n], which says how often a picture counts."""
    n, classes = probabilities.shape
    cell = labels * classes + probabilities.argmax(1)
    cells = csr_array((np.ones(n), (cell, np.arange(n))), shape=(classes**2, n))
    confusion = (cells @ weights.T).T.reshape(-1, classes, classes)
    right, true, predicted = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
    aucs = np.stack([_auc(probabilities[:, c], labels == c, weights) for c in range(classes)], axis=1)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": right.sum(1) / weights.sum(1),
            "balanced_accuracy": _mean(right / true),
            "f1_macro": _mean(2 * right / (true + predicted)),
            "auc": _mean(aucs if classes != 2 else aucs[:, 1:]),
        }


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
