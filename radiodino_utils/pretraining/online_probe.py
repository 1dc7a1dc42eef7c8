"""Probes of a backbone in training, on a labelled set whose val images the corpus does not hold."""

from functools import cached_property

import numpy as np
import torch

from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from ..core.errors import InputError
from ..core.extras import extra
from ..data.duplicates import duplicate_groups, image_digests
from ..data.images import resized
from ..data.registry import ImageDataset
from ..evaluation.knn import knn_probabilities
from ..evaluation.logistic import one_thread, spread
from ..evaluation.metrics import classification_metrics
from .corpus import Corpus

with extra("evaluation"):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler

K = 20


class KnnProbe:
    """kNN (weighted, k = 20) of a set's val images in a bank of its train images.

    Args:
        dataset: A labelled set with the splits train and val.
        corpus: Whose images the probed split must not hold.
        size: Edge of the images, pixels.
        limit: Most images of a split.

    Raises:
        InputError: If the set has no such splits, or the corpus holds one of the val images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        corpus: Corpus | None = None,
        size: int = 224,
        limit: int = 1000,
    ) -> None:
        if absent := [split for split in ("train", "val") if split not in dataset.splits]:
            raise InputError(
                f"{dataset.name}: has no split {', '.join(absent)}; a probe needs train and val."
            )
        self.classes, self.name = len(dataset.classes), dataset.name
        self._images, self._labels = {}, {}
        for split in ("train", "val"):
            part = dataset.splits[split]
            rows = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).astype(int))
            images = [np.asarray(part.images[row]) for row in rows]
            if (
                split == "val"
                and corpus is not None
                and (shared := set(image_digests(images)) & set(corpus.digests))
            ):
                raise InputError(
                    f"{dataset.name}: {len(shared)} images of the probe are in the corpus; hold it out."
                )
            fitted = [resized(image, size, "bilinear") for image in images]
            self._images[split] = np.stack(
                [one if one.ndim == 3 else np.repeat(one[..., None], 3, -1) for one in fitted]
            )
            self._labels[split] = dataset.checked_labels(split)[rows]

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Accuracy (`probe`) and AUC (`probe_auc`) of a vision transformer's class token, fractions."""
        features = {split: _features(model, images) for split, images in self._images.items()}
        found = knn_probabilities(
            features["train"], self._labels["train"], features["val"], ks=(K,), classes=self.classes
        )[K]
        metrics = classification_metrics(self._labels["val"], found, resamples=1)
        return {"probe": metrics["accuracy"].value, "probe_auc": metrics["auc"].value}

    @cached_property
    def groups(self) -> np.ndarray:
        """Number of the near duplicates to which each train and val image belongs, int64, [n]."""
        return duplicate_groups([image for images in self._images.values() for image in images])

    def cross_validated(
        self, model: torch.nn.Module, *, folds: int = 5, repeats: int = 4, seed: int = 0
    ) -> dict[str, float]:
        """AUC over train and val images together, by repeated stratified folds: steadier than a
        small val split alone.

        Near duplicates stay in one fold.

        Args:
            model: A vision transformer; its class token is probed.
            folds: Parts of a division; each is classified by the others.
            repeats: Divisions, whose AUC are averaged.
            seed: Of the divisions.

        Returns:
            `knn`, weighted with k = 20, and `logistic`, on standardised features with C = 0.01;
            fractions.

        Raises:
            InputError: If no class has as many images as there are folds.
        """
        features = np.concatenate([_features(model, images) for images in self._images.values()])
        labels = np.concatenate(list(self._labels.values()))
        if np.bincount(labels).max() < folds:
            raise InputError(
                f"{self.name}: no class has {folds} images in train and val; cross-validate a larger set."
            )
        found = {
            name: np.zeros((repeats, len(labels), self.classes)) for name in ("knn", "logistic")
        }
        divisions = [
            fold
            for repeat in range(repeats)
            for fold in StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat).split(
                features, labels, self.groups
            )
        ]
        for number, (bank, rest) in enumerate(divisions):
            votes = knn_probabilities(
                features[bank], labels[bank], features[rest], ks=(K,), classes=self.classes
            )[K]
            found["knn"][number // folds, rest] = votes
            fitted = _fitted(features[bank], labels[bank])
            found["logistic"][number // folds, rest] = spread(fitted, features[rest], self.classes)
        return {
            name: float(
                np.mean(
                    [
                        classification_metrics(labels, one, resamples=1)["auc"].value
                        for one in divided
                    ]
                )
            )
            for name, divided in found.items()
        }


@one_thread
def _fitted(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(
        features, labels
    )


@torch.inference_mode()
def _features(model: torch.nn.Module, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    device = next(model.parameters()).device
    mean, std = (
        torch.tensor(one, device=device).view(1, 3, 1, 1) * 255
        for one in (IMAGENET_MEAN, IMAGENET_STD)
    )
    was_training = model.training
    model.eval()
    rows = []
    with torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(images), batch_size):
            batch = (
                torch.from_numpy(images[start : start + batch_size]).to(device).permute(0, 3, 1, 2)
            )
            rows.append(model((batch.float() - mean) / std).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(rows)
