"""Features of the images of a dataset, and what is known about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.checks import checked_embeddings, checked_labels
from ..core.errors import wrong_type
from ..data.dataset import Splits


@dataclass(frozen=True, repr=False)
class Features:
    """Features of every split of a dataset.

    Attributes:
        dataset: Name of the dataset.
        classes: Name of each label.
        caveat: Caveat to display with every result.
        arrays: By split and output (`class_token`, `mean_patch_token`, `pixels`; see
            `with_blocks`): float32, [n, width].
        labels: Labels of each split, int64, [n].
        ids: Names of each split, n, in the order of the rows.
        sidecar: Backbone, preprocessing, data, engine, versions, revision, time.
        path: The safetensors file.
        positive: The positive class of two; see `ImageDataset`.
        groups: Group of each image, [n], of the splits whose groups are known; see `Split`.
        unit: What a group is; see `ImageDataset`.
        groups_from: Where the groups come from.
        fold_of: See `ImageDataset`.
        unreadable: By id the reason of each image that was left out; see `ImageDataset`.
    """

    dataset: str
    classes: tuple[str, ...]
    caveat: str
    arrays: dict[str, dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]
    ids: dict[str, list[str]]
    sidecar: dict[str, Any]
    path: Path
    positive: str = ""
    groups: dict[str, list[str]] = field(default_factory=dict)
    unit: str = "group"
    groups_from: str = ""
    fold_of: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("arrays", "labels", "ids"):
            object.__setattr__(self, name, Splits(self.dataset, getattr(self, name)))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(labels)}" for split, labels in self.labels.items())
        first = next(iter(self.arrays.values()), {})
        outputs = ", ".join(f"{name} [{array.shape[1]}]" for name, array in first.items())
        return f"Features({self.dataset!r} x {self.backbone!r}, {outputs}, {sizes})"

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.sidecar["backbone"]["name"]

    @property
    def seen_in_pretraining(self) -> str:
        """Which images of the dataset the pre-training saw; see `seen.seen_in_pretraining`."""
        return self.sidecar["seen_in_pretraining"]

    def embedding(self, split: str) -> np.ndarray:
        """Return the embedding of a split: the first output, the class token if there is one.

        Args:
            split: Name of the split.

        Returns:
            float32, [n, width].

        Raises:
            InputError: If the split does not exist; the message names those that do.
        """
        return self.arrays[split][self.sidecar["backbone"]["outputs"][0]]

    def labelled(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the embedding and the labels of a split, checked.

        Args:
            split: Name of the split.

        Returns:
            float32 [n, width] and int64 [n].

        Raises:
            InputError: If the split is missing, an embedding is not finite, or a label stands for
                no class.
        """
        labels = self.labels[split]
        embedding = checked_embeddings(
            self.embedding(split), what=f"embeddings of the {split} split of {self.dataset}"
        )
        what = f"{self.dataset}: labels of the {split} split"
        return embedding, checked_labels(
            labels, len(self.classes), shape=(len(embedding),), what=what
        )


def require_features(features: object) -> None:
    """Check that a value holds features.

    Raises:
        InputError: If it is of another type, such as the name of a backbone.
    """
    if not isinstance(features, Features):
        raise wrong_type("features", features, "the result of extract_features")


def read_index(features: Features) -> pd.DataFrame:
    """Return the index beside a feature file.

    Returns:
        One row per image, in the order of the features: split, row, id, label, class and sha256.
    """
    require_features(features)
    return pd.read_parquet(features.path.with_suffix(".parquet"))


def feature_table(features: Iterable[Features]) -> pd.DataFrame:
    """Return one row per feature file; see `describe_features`."""
    return pd.DataFrame([describe_features(entry) for entry in features])


def image_table(features: Features) -> pd.DataFrame:
    """Return the embedding of every image as a table.

    Returns:
        One row per image: split, id, class, and the values as f0, f1, ... (float32).
    """
    tables = []
    for split, labels in features.labels.items():
        values = features.embedding(split)
        table = pd.DataFrame(values, columns=[f"f{i}" for i in range(values.shape[1])])
        table.insert(0, "split", split)
        table.insert(1, "id", features.ids[split])
        table.insert(2, "class", [features.classes[label] for label in labels])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def describe_features(features: Features) -> dict[str, Any]:
    """Return one row about a feature file, for a table."""
    sidecar = features.sidecar
    backbone = sidecar["backbone"]
    versions = sidecar["versions"].items()
    return {
        "dataset": features.dataset,
        "backbone": backbone["name"],
        "source": backbone["source"],
        "weights": backbone["fingerprint"],
        "width": backbone["embedding_dim"],
        "features": ", ".join(backbone["outputs"]),
        **sidecar["splits"],
        "data_md5": sidecar["data"],
        "engine": sidecar["engine"],
        "precision": sidecar["precision"],
        "seen_in_pretraining": features.seen_in_pretraining,
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
    }
