"""What a classification protocol gives: probabilities beside the truth, and how they came about."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..backbones.seen import most_seen
from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import atomic
from ..data.dataset import positive_class
from ..features.features import Features


@dataclass(frozen=True, repr=False)
class Prediction:
    """Probabilities of the classes for every image of a split.

    Attributes:
        dataset: Name of the dataset.
        backbone: Name of the backbone.
        protocol: knn, knn1, knn11, ...
        split: Which split was predicted.
        classes: The name of each label.
        labels: The truth, int64, [n].
        probabilities: float64, [n, classes], rounded to float32.
        ids: n names.
        weights: Fingerprint of the backbone's weights.
        caveat: What must be said wherever results on the set are shown.
        choice: What was chosen on validation, such as {"k": 20}.
        seed: Of the training or the draw, where there was one.
        positive: Of two classes the positive one, as the dataset declares it; see
            `datasets.ImageDataset`.
        engine: What ran the backbone: torch or openvino.
        precision: Of the backbone: fp32, bf16 or fp16.
        seen_in_pretraining: Which images of the dataset the backbone's pre-training saw: "none",
            "unlabelled train", "unlabelled test" or "not known".
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
    seed: int | None = None
    positive: str = ""
    engine: str = ""
    precision: str = ""
    seen_in_pretraining: str = "not known"

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "positive", positive_class(self.classes, self.positive, self.dataset)
        )
        # what `records` keeps: every number can be recomputed exactly
        object.__setattr__(
            self, "probabilities", np.asarray(self.probabilities, np.float32).astype(np.float64)
        )

    def __repr__(self) -> str:
        return (
            f"Prediction({self.dataset!r} x {self.backbone!r}, {self.protocol}, "
            f"{len(self.classes)} classes, {self.split} {len(self.labels)})"
        )

    @property
    def positive_label(self) -> int:
        """The label of the positive class; 1 where there is none."""
        return self.classes.index(self.positive) if self.positive else 1

    @property
    def title(self) -> str:
        """What figures say of it: dataset, protocol, split, n, positive class."""
        facts = [self.dataset, self.protocol, f"{self.split} split", f"n = {len(self.labels)}"]
        facts += [f"positive: {self.positive}"] if self.positive else []
        return ", ".join(facts)

    @property
    def chosen(self) -> str:
        """`choice` as text, such as "k = 20"."""
        return ", ".join(f"{name} = {value}" for name, value in self.choice.items())


def prediction(
    features: Features,
    *,
    protocol: str,
    split: str,
    probabilities: np.ndarray,
    choice: dict[str, object] | None = None,
    seed: int | None = None,
) -> Prediction:
    """Puts probabilities beside the labels and ids of the split that they were made for."""
    backbone = features.sidecar["backbone"]
    return Prediction(
        dataset=features.dataset,
        backbone=backbone["name"],
        protocol=protocol,
        split=split,
        classes=features.classes,
        labels=features.labelled(split)[1],
        probabilities=probabilities,
        ids=features.ids[split],
        weights=backbone["fingerprint"],
        caveat=features.caveat,
        choice=choice or {},
        seed=seed,
        positive=features.positive,
        engine=features.sidecar["engine"],
        precision=features.sidecar["precision"],
        seen_in_pretraining=features.seen_in_pretraining,
    )


def without_rows(one: Prediction, rows: np.ndarray) -> Prediction:
    """Take rows out of a prediction, such as those that `twins.find_twins` finds; protocol and
    caveat say so.

    Args:
        one: The prediction.
        rows: int64, rows of its split.

    Returns:
        The prediction of the other rows.
    """
    kept = np.setdiff1d(np.arange(len(one.labels)), rows)
    said = f"without {len(one.labels) - len(kept)} images that have a twin in train or val"
    return replace(
        one,
        protocol=f"{one.protocol} (deduplicated)",
        labels=one.labels[kept],
        probabilities=one.probabilities[kept],
        ids=[one.ids[row] for row in kept],
        caveat=f"{one.caveat}; {said}" if one.caveat else said,
    )


def joined_folds(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Puts the test predictions of the folds of a cross-validation together, in the order of the
    folds.

    Args:
        predictions: Of any sets; those of registered names `NAME-fold0`, `NAME-fold1` ... with the
            same backbone, protocol and seed belong together.

    Returns:
        Of folds one prediction of every image, the set called NAME-folds and `choice` naming each
        different choice; of all
        other sets what was given. Metrics of the joined prediction are pooled: the AUC ranks images
            of one fold beside those
        of another, although a model of its own scored each fold. Where the scales of the models
        differ it is lower than the mean of the folds' AUCs; the caveat says that it is pooled.
    """
    parts = {}
    for one in predictions:
        fold = re.fullmatch(r"([^:]+)-fold\d+", one.dataset)  # a name with a colon holds a path
        parts.setdefault(
            (f"{fold[1]}-folds" if fold else one.dataset, one.backbone, one.protocol, one.seed), []
        ).append(one)
    return [
        _joined(dataset, folds) if folds[0].dataset != dataset else folds[0]
        for (dataset, *_), folds in parts.items()
    ]


def _joined(dataset: str, folds: list[Prediction]) -> Prediction:
    folds = sorted(folds, key=lambda one: one.dataset)
    return replace(
        folds[0],
        dataset=dataset,
        labels=np.concatenate([one.labels for one in folds]),
        probabilities=np.concatenate([one.probabilities for one in folds]),
        ids=[name for one in folds for name in one.ids],
        caveat="; ".join(
            text for text in (folds[0].caveat, f"pooled over {len(folds)} folds, AUC too") if text
        ),
        seen_in_pretraining=most_seen(one.seen_in_pretraining for one in folds),
        choice={
            name: " / ".join(dict.fromkeys(str(one.choice[name]) for one in folds))
            for name in folds[0].choice
        },
    )


def write_medmnist(prediction: Prediction, folder: Path, *, run: str) -> Path:
    """Writes a prediction as MedMNIST's own evaluator reads it: row and probabilities, the metrics
    in the name.

    Args:
        prediction: Of a MedMNIST set, such as breastmnist-224.
        folder: Where to.
        run: The end of the file's name; what is neither letter nor digit becomes a hyphen.

    Returns:
        `FLAG_SIZE_SPLIT_[AUC]0.900_[ACC]0.850@RUN.csv`; 28 pixels have no SIZE.

    Raises:
        InputError: If the set is not one of MedMNIST.
    """
    with extra("evaluation"):
        from medmnist import INFO
        from medmnist.evaluator import getACC, getAUC

    flag, _, size = prediction.dataset.partition("-")
    if flag not in INFO or not size.isdecimal():
        raise InputError(
            f"{prediction.dataset}: MedMNIST's evaluator knows its own sets only, such as breastmnist-224."
        )
    task = INFO[flag]["task"]
    auc, accuracy = (
        metric(prediction.labels, prediction.probabilities, task) for metric in (getAUC, getACC)
    )
    sized = flag if size == "28" else f"{flag}_{size}"
    path = (
        folder
        / f"{sized}_{prediction.split}_[AUC]{auc:.3f}_[ACC]{accuracy:.3f}@{re.sub(r'[^0-9A-Za-z]+', '-', run)}.csv"
    )
    with atomic(path) as temporary:
        pd.DataFrame(prediction.probabilities).to_csv(temporary, header=False)
    return path
