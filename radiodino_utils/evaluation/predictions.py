"""Predictions of classification protocols: probabilities, the truth, and where they come from."""

import re
from collections.abc import Iterable, Mapping
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
        protocol: Name of the protocol: knn, knn1, knn11, ...
        split: Split that was predicted.
        classes: Name of each label.
        labels: True labels, int64, [n].
        probabilities: float64, [n, classes], rounded to float32.
        ids: n names.
        weights: Fingerprint of the backbone's weights.
        caveat: Caveat to display with every result.
        choice: What was chosen on validation, such as {"k": 20}.
        seed: Seed of the training or the draw, if there was one.
        positive: Positive one of two classes, as the dataset declares it; see
            `dataset.ImageDataset`.
        engine: Engine that ran the backbone: torch or openvino.
        precision: Precision of the backbone: fp32, bf16 or fp16.
        seen_in_pretraining: Which images of the dataset the backbone's pre-training saw: "none",
            "unlabelled train", "unlabelled test" or "not known".
        groups: Group of each image, such as its patient, [n]; `None` if not known.
        unit: What resamples draw and splits keep together: "image", "patient", "cluster", "group".
        groups_from: Where the groups come from.
        fold_of: See `ImageDataset`.
        folds: Number of folds whose predictions are joined; see `joined_folds`.
        val_accuracy: Accuracy of the same model on the validation split, by which protocols can be
            compared without the test split; of joined folds the mean. `None` if not measured.
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
    groups: list[str] | None = None
    unit: str = "image"
    groups_from: str = ""
    fold_of: str = ""
    folds: int = 1
    val_accuracy: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "positive", positive_class(self.classes, self.positive, self.dataset)
        )
        # as `records` stores them, so that every number can be recomputed exactly
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
    def n(self) -> int:
        """Number of images; repeats of a cross-validation do not count."""
        return len(self.labels) if self.folds == 1 else len(set(self.ids))

    @property
    def units(self) -> int:
        """Number of units that resamples draw: images, patients or other groups."""
        return self.n if self.groups is None else len(set(self.groups))

    @property
    def title(self) -> str:
        """Title of figures: dataset, protocol, split, n, positive class."""
        facts = [self.dataset, self.protocol, f"{self.split} split", f"n = {self.n}"]
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
    choice: Mapping[str, object] | None = None,
    seed: int | None = None,
    val_probabilities: np.ndarray | None = None,
) -> Prediction:
    """Return the prediction of a split from probabilities and the features they come from.

    Args:
        features: Features of the dataset.
        protocol: Name of the protocol.
        split: Split that was predicted.
        probabilities: [n, classes].
        choice: What was chosen on validation.
        seed: Seed of the training or the draw, if there was one.
        val_probabilities: Those of the validation split, [n, classes], for `val_accuracy`.
    """
    backbone, groups = features.sidecar["backbone"], features.groups.get(split)
    val_accuracy = None
    if val_probabilities is not None:
        is_right = val_probabilities.argmax(1) == features.labelled("val")[1]
        val_accuracy = float(is_right.mean())
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
        choice=dict(choice or {}),
        seed=seed,
        positive=features.positive,
        engine=features.sidecar["engine"],
        precision=features.sidecar["precision"],
        seen_in_pretraining=features.seen_in_pretraining,
        groups=groups,
        unit="image" if groups is None else features.unit,
        groups_from="" if groups is None else features.groups_from,
        fold_of=features.fold_of,
        val_accuracy=val_accuracy,
    )


def without_rows(prediction: Prediction, rows: np.ndarray) -> Prediction:
    """Remove the images of a prediction that have a twin; protocol and caveat say so.

    Args:
        prediction: A prediction.
        rows: Rows of its split, int64, such as those of `twins.find_twins`.

    Returns:
        The prediction of the other rows.
    """
    n = len(prediction.labels)
    kept = np.setdiff1d(np.arange(n), rows)
    removed = f"without {n - len(kept)} images that have a twin in train or val"
    return replace(
        prediction,
        protocol=f"{prediction.protocol} (deduplicated)",
        labels=prediction.labels[kept],
        probabilities=prediction.probabilities[kept],
        ids=[prediction.ids[row] for row in kept],
        groups=None if prediction.groups is None else [prediction.groups[row] for row in kept],
        caveat=f"{prediction.caveat}; {removed}" if prediction.caveat else removed,
    )


def joined_folds(predictions: Iterable[Prediction], *, by_choice: bool = False) -> list[Prediction]:
    """Join the predictions of the folds of a cross-validation, in the order of the folds.

    Metrics of a joined prediction are pooled: the AUC ranks images of one fold beside those of
    another, although a model of its own scored each fold. Where the scales of the models differ it
    is lower than the mean AUC of the folds; the caveat says that it is pooled. A repeated
    cross-validation has each image as often as there are repeats; intervals resample images, or
    their groups, with all their repeats.

    Args:
        predictions: Predictions of any datasets; those with the same `fold_of`, split, backbone,
            protocol and seed belong together.
        by_choice: Whether the choice must be the same too, as for the curve over k.

    Returns:
        For folds one prediction of every image, whose dataset is called as `fold_of` says and whose
        `choice` names each different choice; all other predictions unchanged.
    """
    parts: dict[tuple[object, ...], list[Prediction]] = {}
    for number, part in enumerate(predictions):
        alike = (part.fold_of, part.backbone, part.protocol, part.seed, part.split)
        choice = part.chosen if by_choice else ""
        parts.setdefault((*alike, choice) if part.fold_of else (number,), []).append(part)
    return [_joined(folds) if folds[0].fold_of else folds[0] for folds in parts.values()]


def _joined(folds: list[Prediction]) -> Prediction:
    first, *_ = folds = sorted(folds, key=lambda fold: int(fold.dataset.rpartition("-fold")[2]))
    ids = [name for fold in folds for name in fold.ids]
    groups = [name for fold in folds for name in fold.groups or ()] or None
    if groups is None and len(set(ids)) < len(ids):
        groups = ids  # the repeats of an image belong together
    on_val = [fold.val_accuracy for fold in folds if fold.val_accuracy is not None]
    caveats = (first.caveat, f"pooled over {len(folds)} folds, AUC too")
    return replace(
        first,
        dataset=first.fold_of,
        labels=np.concatenate([fold.labels for fold in folds]),
        probabilities=np.concatenate([fold.probabilities for fold in folds]),
        ids=ids,
        groups=groups,
        fold_of="",
        folds=len(folds),
        val_accuracy=float(np.mean(on_val)) if len(on_val) == len(folds) else None,
        caveat="; ".join(caveat for caveat in caveats if caveat),
        seen_in_pretraining=most_seen(fold.seen_in_pretraining for fold in folds),
        choice={name: _each(fold.choice[name] for fold in folds) for name in first.choice},
    )


def _each(values: Iterable[object]) -> object:
    """Return the value that all folds chose, or a text that names each different one."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else " / ".join(map(str, different))


def image_table(predictions: Iterable[Prediction]) -> pd.DataFrame:
    """Return what was predicted for each image.

    Args:
        predictions: Predictions of any datasets and protocols.

    Returns:
        One row per prediction and image: dataset, protocol, backbone, split, seed, id, group,
        class, predicted, confidence (the probability of the predicted class) and correct.
    """
    tables = []
    for part in predictions:
        classes, predicted = np.array(part.classes, object), part.probabilities.argmax(1)
        columns = {
            "dataset": part.dataset,
            "protocol": part.protocol,
            "backbone": part.backbone,
            "split": part.split,
            "seed": "" if part.seed is None else str(part.seed),
            "id": part.ids,
            "group": part.groups or "",
            "class": classes[part.labels],
            "predicted": classes[predicted],
            "confidence": part.probabilities.max(1),
            "correct": predicted == part.labels,
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def write_medmnist(prediction: Prediction, folder: Path, *, run: str) -> Path:
    """Write a prediction as MedMNIST's own evaluator reads it: row number and probabilities.

    Args:
        prediction: Prediction of a MedMNIST dataset, such as breastmnist-224.
        folder: Folder of the file.
        run: End of the file name; what is neither letter nor digit becomes a hyphen.

    Returns:
        The path `FLAG_SIZE_SPLIT_[AUC]0.900_[ACC]0.850@RUN.csv`; 28 pixels have no SIZE.

    Raises:
        InputError: If the dataset is not one of MedMNIST.
    """
    with extra("evaluation"):
        from medmnist import INFO
        from medmnist.evaluator import getACC, getAUC

    flag, _, size = prediction.dataset.partition("-")
    if flag not in INFO or not size.isdecimal():
        raise InputError(
            f"{prediction.dataset}: MedMNIST's evaluator knows its own sets only, "
            "such as breastmnist-224."
        )
    task = INFO[flag]["task"]
    auc, accuracy = (
        metric(prediction.labels, prediction.probabilities, task) for metric in (getAUC, getACC)
    )
    sized = flag if size == "28" else f"{flag}_{size}"
    run = re.sub(r"[^0-9A-Za-z]+", "-", run)
    name = f"{sized}_{prediction.split}_[AUC]{auc:.3f}_[ACC]{accuracy:.3f}@{run}.csv"
    path = folder / name
    with atomic(path) as temporary:
        pd.DataFrame(prediction.probabilities).to_csv(temporary, header=False)
    return path
