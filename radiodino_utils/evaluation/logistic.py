"""Logistic regression on frozen features, its strength chosen on validation."""

import warnings
from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from ..core.errors import InputError
from ..core.extras import extra
from ..features.features import Features
from .predictions import Prediction, prediction

with extra("evaluation"):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

STRENGTHS = tuple(np.logspace(-6, 5, 45))  # DINOv2's grid of C

# the small products of the solver take up to 20 times as long on two threads of a busy machine
one_thread = threadpool_limits.wrap(limits=1)


@one_thread
def fit_logistic(
    features: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    balanced: bool = False,
    max_iterations: int = 1000,
) -> tuple[LogisticRegression, np.ndarray, np.ndarray]:
    """Fit logistic regressions on the train split and keep the best by validation.

    Features are standardised by mean and standard deviation of the train split. The best has the
    least cross entropy on validation; accuracy would tie on small datasets.

    Args:
        features: Features returned by `extract_features`.
        strengths: Candidates for C, the inverse of the penalty; each fit starts from the one
            before.
        balanced: Whether rare classes weigh more (N / n of the class).
        max_iterations: Maximum iterations of the solver.

    Returns:
        The best regression, and mean and standard deviation of the train split, float32, [width].

    Raises:
        InputError: If train or val is absent, or all training images are of one class.
    """
    if absent := [split for split in ("train", "val") if split not in features.labels]:
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}; "
            "the logistic probe chooses C on val."
        )
    (train, labels), (val, truth) = features.labelled("train"), features.labelled("val")
    classes = len(features.classes)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"{features.dataset}: all images of the train split are of one class; "
            "a probe needs two."
        )
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, val = (train - mean) / std, (val - mean) / std
    least, best = np.inf, None
    model = LogisticRegression(
        max_iter=max_iterations, warm_start=True, class_weight="balanced" if balanced else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in strengths:
            model.set_params(C=float(strength)).fit(train, labels)
            probabilities = np.clip(class_probabilities(model, val, classes), 1e-12, 1)
            loss = -np.log(probabilities[np.arange(len(val)), truth]).mean()
            if loss < least:
                least, best = loss, deepcopy(model)
    if best is None:
        raise InputError(
            f"{features.dataset}: no strength of {list(strengths)} has a finite loss; "
            "choose others."
        )
    if best.n_iter_.max() >= max_iterations:
        warnings.warn(
            f"{features.dataset}: the logistic regression with C = {best.C:.3g} has not converged "
            f"in {max_iterations} iterations.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return best, mean, std


def classify_logistic(
    features: Features,
    *,
    strengths: Sequence[float] = STRENGTHS,
    balanced: bool = False,
    max_iterations: int = 1000,
) -> Prediction:
    """Classify the test split by the regression that `fit_logistic` chooses.

    Args:
        features: Features returned by `extract_features`.
        strengths: See `fit_logistic`.
        balanced: See `fit_logistic`; the protocol is then "logistic-balanced".
        max_iterations: See `fit_logistic`.

    Returns:
        Probabilities of the test split; `choice` names C.

    Raises:
        InputError: If the dataset lacks a split, or all training images are of one class.
    """
    if "test" not in features.labels:
        raise InputError(f"{features.dataset}: has no split test; there is nothing to classify.")
    model, mean, std = fit_logistic(
        features, strengths=strengths, balanced=balanced, max_iterations=max_iterations
    )
    probabilities = {
        split: class_probabilities(
            model, (features.labelled(split)[0] - mean) / std, len(features.classes)
        )
        for split in ("val", "test")
    }
    protocol = "logistic-balanced" if balanced else "logistic"
    choice = {"C": float(f"{model.C:.3g}")}
    return prediction(
        features,
        protocol=protocol,
        split="test",
        probabilities=probabilities["test"],
        choice=choice,
        val_probabilities=probabilities["val"],
    )


def class_probabilities(
    model: LogisticRegression, features: np.ndarray, classes: int
) -> np.ndarray:
    """Return the probabilities of all classes, zero for a class that the train split lacks.

    Args:
        model: Fitted regression.
        features: Standardised features, [n, width].
        classes: Number of classes.

    Returns:
        float64, [n, classes].
    """
    probabilities = np.zeros((len(features), classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities
