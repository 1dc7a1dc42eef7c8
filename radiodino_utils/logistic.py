"""Logistic regression on frozen features, its strength chosen on validation."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .errors import InputError
from .features import Features
from .predictions import Prediction, prediction

STRENGTHS = tuple(np.logspace(-6, 5, 45))  # DINOv2's grid of C


def classify_logistic(
    features: Features, *, strengths: Sequence[float] = STRENGTHS, balanced: bool = False, iterations: int = 1000
) -> Prediction:
    """Fits logistic regressions on the train split and classifies the test split with the best of validation.

    Features are standardised by the train split's mean and standard deviation. The best has the least cross entropy on
    validation; accuracy would tie on small sets.

    Args:
        features: What `extract_features` gives.
        strengths: Candidates for C, the inverse of the penalty; each fit starts from the one before.
        balanced: Whether rare classes weigh more (N / n of the class); the protocol is then "logistic-balanced".
        iterations: Most iterations of the solver.

    Returns:
        Probabilities of the test split; `choice` names C.

    Raises:
        InputError: If the set lacks a split, or all training pictures are of one class.
    """
    if absent := [split for split in ("train", "val", "test") if split not in features.labels]:
        raise InputError(f"{features.dataset}: has no split {', '.join(absent)}; the logistic probe chooses C on val.")
    if len(np.unique(features.labels["train"])) < 2:
        raise InputError(f"{features.dataset}: all pictures of the train split are of one class; a probe needs two.")
    train = features.embedding("train")
    mean, std = train.mean(0), train.std(0) + 1e-6
    scaled = {split: (features.embedding(split) - mean) / std for split in ("train", "val", "test")}
    labels, classes = features.labels, len(features.classes)
    best = (np.inf, 0.0, None)
    weights = "balanced" if balanced else None
    model = LogisticRegression(max_iter=iterations, warm_start=True, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in strengths:
            model.set_params(C=float(strength)).fit(scaled["train"], labels["train"])
            seen = np.clip(_spread(model, scaled["val"], classes), 1e-12, 1)
            loss = -np.log(seen[np.arange(len(seen)), labels["val"]]).mean()
            if loss < best[0]:
                best = (loss, strength, _spread(model, scaled["test"], classes))
    choice = {"C": float(f"{best[1]:.3g}")}
    protocol = "logistic-balanced" if balanced else "logistic"
    return prediction(features, protocol=protocol, split="test", probabilities=best[2], choice=choice)


def _spread(model: LogisticRegression, features: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of all classes, zero for one that the train split lacks."""
    probabilities = np.zeros((len(features), classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities
