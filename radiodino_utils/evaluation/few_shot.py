"""Few-shot classification on frozen features: a few labels per class, drawn repeatedly."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from tqdm.auto import tqdm

from ..core.errors import InputError, unknown_name
from ..core.extras import extra
from ..features.features import Features, require_features
from .knn import knn_probabilities
from .logistic import one_thread
from .predictions import Prediction, prediction

with extra("evaluation"):
    from sklearn.linear_model import LogisticRegression

SHOTS = (1, 5, 10, 20, 50)
METHODS = ("knn", "logistic")


def classify_few_shot(
    features: Features,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 10,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
) -> list[Prediction]:
    """Classify the test split with a few labelled images per class of the train split.

    Nothing is chosen, since a validation split would be further labels. `knn` is DINO's weighted
    vote with k = the number of labels per class; `logistic` has C = width x classes / 100, as in
    UNI (Chen et al., Nature Medicine 2024). All methods and, with the same seed, all backbones see
    the same images.

    Args:
        features: Features returned by `extract_features`.
        shots: Numbers of labels per class.
        draws: Number of draws.
        methods: Some of `METHODS`.
        seed: Seed of the draws.

    Returns:
        A prediction for each number, draw and method; the protocol is such as "fewshot-5-knn",
        `seed` the number of the draw.

    Raises:
        InputError: If the train split holds fewer labels of a class than are to be drawn, or a
            method is unknown.
    """
    require_features(features)
    for method in methods:
        if method not in METHODS:
            raise unknown_name("few-shot method", method, METHODS)
    _check(features, shots)
    predictions = []
    steps = list(product(shots, range(draws)))
    for count, draw in tqdm(steps, desc=f"few labels, {features.backbone}", unit="draw"):
        rows = _drawn(features, count, np.random.default_rng([seed, count, draw]))
        predictions += [
            prediction(
                features,
                protocol=f"fewshot-{count}-{method}",
                split="test",
                probabilities=_probabilities(features, rows, method),
                seed=draw,
            )
            for method in methods
        ]
    return predictions


def _check(features: Features, shots: Sequence[int]) -> None:
    if not shots or min(shots) < 1:
        raise InputError(
            f"shots is {list(shots)}; it needs at least one number of labels per class, "
            "and each at least 1."
        )
    if absent := [split for split in ("train", "test") if split not in features.labels]:
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}, "
            "which few-shot classification needs."
        )
    counts = np.bincount(features.labelled("train")[1], minlength=len(features.classes))
    if counts.min() < max(shots):
        raise InputError(
            f"{features.dataset}: {max(shots)} labels per class are asked for and the train split "
            f"has {counts.min()} of '{features.classes[counts.argmin()]}'; ask for fewer shots."
        )


def _drawn(features: Features, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw rows of the train split, `count` per class."""
    labels = features.labelled("train")[1]
    return np.concatenate(
        [
            generator.choice(np.flatnonzero(labels == label), count, replace=False)
            for label in range(len(features.classes))
        ]
    )


@one_thread
def _probabilities(features: Features, rows: np.ndarray, method: str) -> np.ndarray:
    (bank, labels), (queries, _) = features.labelled("train"), features.labelled("test")
    bank, labels, classes = bank[rows], labels[rows], len(features.classes)
    if method == "knn":
        k = len(rows) // classes
        return knn_probabilities(bank, labels, queries, ks=(k,), classes=classes)[k]
    strength = bank.shape[1] * classes / 100
    # Newton's method in float64: with so weak a penalty L-BFGS stops 0.05 in probability too early
    model = LogisticRegression(C=strength, solver="newton-cg", tol=1e-8, max_iter=1000)
    return model.fit(bank.astype(np.float64), labels).predict_proba(queries.astype(np.float64))
