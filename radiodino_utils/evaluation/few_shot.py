"""Few-shot classification on frozen features: a few labels a class, drawn again and again."""

from collections.abc import Sequence

import numpy as np

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
    """Classifies the test split with a few labelled images a class of the train split, for each
    draw of them.

    Nothing is chosen, since a validation split would be further labels. `knn` is DINO's weighted
    vote with k = the number of labels a class; `logistic` has C = width x classes / 100, as UNI has
    it (Chen et al., Nature Medicine 2024). All methods and, with the same seed, all backbones see
    the same images.

    Args:
        features: What `extract_features` gives.
        shots: Numbers of labels a class.
        draws: How often they are drawn.
        methods: Of `METHODS`.
        seed: Of the draws.

    Returns:
        For each number, draw and method a prediction: the protocol is such as "fewshot-5-knn",
            `seed` the draw.

    Raises:
        InputError: If the train split holds fewer labels of a class than are to be drawn, or a
            method is unknown.
    """
    require_features(features)
    for method in methods:
        if method not in METHODS:
            raise unknown_name("few-shot method", method, METHODS)
    _check(features, shots)
    return [
        prediction(
            features,
            protocol=f"fewshot-{count}-{method}",
            split="test",
            probabilities=_probabilities(features, rows, method),
            seed=draw,
        )
        for count in shots
        for draw in range(draws)
        for rows in [_drawn(features, count, np.random.default_rng([seed, count, draw]))]
        for method in methods
    ]


def _check(features: Features, shots: Sequence[int]) -> None:
    if not shots or min(shots) < 1:
        raise InputError(
            f"shots is {list(shots)}; it needs at least one number of labels a class, and each at least 1."
        )
    if absent := [split for split in ("train", "test") if split not in features.labels]:
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}, which few-shot classification needs."
        )
    counts = np.bincount(features.labelled("train")[1], minlength=len(features.classes))
    if counts.min() < max(shots):
        raise InputError(
            f"{features.dataset}: {max(shots)} labels a class are asked for and the train split has {counts.min()} of "
            f"'{features.classes[counts.argmin()]}'; ask for fewer shots."
        )


def _drawn(features: Features, count: int, generator: np.random.Generator) -> np.ndarray:
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
    # in float64 by Newton's method: of so weak a penalty L-BFGS stops .05 in probability before the
    # solution
    model = LogisticRegression(C=strength, solver="newton-cg", tol=1e-8, max_iter=1000)
    return model.fit(bank.astype(np.float64), labels).predict_proba(queries.astype(np.float64))
