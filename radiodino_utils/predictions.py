"""What a classification task gives: probabilities beside the truth, and how they came about."""

from dataclasses import dataclass, field, replace

import numpy as np

from .features import Features


@dataclass(frozen=True)
class Prediction:
    """Probabilities of the classes for every picture of a split.

    Attributes:
        dataset: Name of the data set.
        backbone: Name of the backbone.
        protocol: knn, knn1, knn11, ...
        split: Which split was predicted.
        classes: The name of each label.
        labels: The truth, int64, [n].
        probabilities: float64, [n, classes].
        ids: n names.
        weights: Fingerprint of the backbone's weights.
        caveat: What must be said wherever results on the set are shown.
        choice: What was chosen on validation, such as {"k": 20}.
    """

    dataset: str
    backbone: str
    protocol: str
    split: str
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    ids: list[str]
    weights: str
    caveat: str = ""
    choice: dict[str, object] = field(default_factory=dict)


def prediction(
    features: Features, *, protocol: str, split: str, probabilities: np.ndarray, choice: dict[str, object]
) -> Prediction:
    """Puts probabilities beside the labels and ids of the split that they were made for."""
    backbone = features.sidecar["backbone"]
    return Prediction(
        dataset=features.dataset,
        backbone=backbone["name"],
        protocol=protocol,
        split=split,
        classes=features.classes,
        labels=features.labels[split],
        probabilities=probabilities,
        ids=features.ids[split],
        weights=backbone["fingerprint"],
        caveat=features.caveat,
        choice=choice,
    )


def without_rows(one: Prediction, rows: np.ndarray) -> Prediction:
    """Takes rows out of a prediction, such as those that `audit.leaked_rows` finds; the caveat says how many.

    Args:
        one: The prediction.
        rows: int64, rows of its split.

    Returns:
        The prediction of the other rows.
    """
    kept = np.setdiff1d(np.arange(len(one.labels)), rows)
    said = f"without {len(one.labels) - len(kept)} leaked pictures"
    return replace(
        one,
        labels=one.labels[kept],
        probabilities=one.probabilities[kept],
        ids=[one.ids[row] for row in kept],
        caveat=f"{one.caveat}; {said}" if one.caveat else said,
    )
