"""Probes of a backbone in training, on a labelled dataset held out of the corpus."""

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
from ..evaluation.logistic import class_probabilities, one_thread
from ..evaluation.metrics import classification_metrics
from .corpus import Corpus

with extra("evaluation"):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler

K = 20


class KnnProbe:
    """Weighted kNN (k = 20) of the val images of a dataset in a bank of its train images.

    Args:
        dataset: Labelled dataset with the splits train and val.
        corpus: Corpus that must not hold the val images.
        size: Edge of the images in pixels.
        limit: Maximum number of images of each split.

    Raises:
        InputError: If the dataset has no such splits, or the corpus holds one of the val images.
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
        self._images: dict[str, np.ndarray] = {}
        self._labels: dict[str, np.ndarray] = {}
        for split in ("train", "val"):
            part = dataset.splits[split]
            rows = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).astype(int))
            images = [np.asarray(part.images[row]) for row in rows]
            if split == "val" and corpus is not None:
                self._require_held_out(images, corpus)
            self._images[split] = np.stack(
                [as_rgb(resized(image, size, "bilinear")) for image in images]
            )
            self._labels[split] = dataset.checked_labels(split)[rows]

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Probe the class token of a vision transformer.

        Returns:
            Accuracy (`probe`) and AUC (`probe_auc`) as fractions.
        """
        features = {split: class_tokens(model, images) for split, images in self._images.items()}
        probabilities = knn_probabilities(
            features["train"], self._labels["train"], features["val"], ks=(K,), classes=self.classes
        )[K]
        metrics = classification_metrics(self._labels["val"], probabilities, resamples=1)
        return {"probe": metrics["accuracy"].value, "probe_auc": metrics["auc"].value}

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of near duplicates to which each train and val image belongs, int64, [n]."""
        return duplicate_groups([image for images in self._images.values() for image in images])

    def cross_validated(
        self, model: torch.nn.Module, *, folds: int = 5, repeats: int = 4, seed: int = 0
    ) -> dict[str, float]:
        """Return the AUC over train and val images together, by repeated stratified folds.

        It varies less than that of a small val split alone. Near duplicates stay in one fold.

        Args:
            model: A vision transformer; its class token is probed.
            folds: Folds of a division; each is classified by the others.
            repeats: Divisions, whose AUC are averaged.
            seed: Seed of the divisions.

        Returns:
            `knn`, weighted with k = 20, and `logistic`, on standardised features with C = 0.01;
            fractions.

        Raises:
            InputError: If no class has as many images as there are folds.
        """
        features = np.concatenate([class_tokens(model, images) for images in self._images.values()])
        labels = np.concatenate(list(self._labels.values()))
        if np.bincount(labels).max() < folds:
            raise InputError(
                f"{self.name}: no class has {folds} images in train and val; "
                "cross-validate a larger set."
            )
        shape = (repeats, len(labels), self.classes)
        probabilities = {"knn": np.zeros(shape), "logistic": np.zeros(shape)}
        for repeat in range(repeats):
            division = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
            for bank, fold in division.split(features, labels, self.groups):
                probabilities["knn"][repeat, fold] = knn_probabilities(
                    features[bank], labels[bank], features[fold], ks=(K,), classes=self.classes
                )[K]
                classifier = _fitted(features[bank], labels[bank])
                probabilities["logistic"][repeat, fold] = class_probabilities(
                    classifier, features[fold], self.classes
                )
        return {name: _mean_auc(labels, parts) for name, parts in probabilities.items()}

    def _require_held_out(self, images: list[np.ndarray], corpus: Corpus) -> None:
        if shared := set(image_digests(images)) & set(corpus.digests):
            raise InputError(
                f"{self.name}: {len(shared)} images of the probe are in the corpus; hold it out."
            )


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a grey or colour image with three channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, -1)


def _mean_auc(labels: np.ndarray, divisions: np.ndarray) -> float:
    values = [
        classification_metrics(labels, probabilities, resamples=1)["auc"].value
        for probabilities in divisions
    ]
    return float(np.mean(values))


@one_thread
def _fitted(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(
        features, labels
    )


@torch.inference_mode()
def class_tokens(model: torch.nn.Module, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Return the outputs of a vision transformer, in fp32 on a CPU and in bf16 on a GPU.

    A CPU without instructions for bf16 takes several times as long for it.

    Args:
        model: Takes images standardised as those of ImageNet.
        images: uint8, [n, height, width, 3].
        batch_size: Images per forward pass.

    Returns:
        float32, [n, width].
    """
    device = next(model.parameters()).device
    mean, std = (
        torch.tensor(channels, device=device).view(1, 3, 1, 1) * 255
        for channels in (IMAGENET_MEAN, IMAGENET_STD)
    )
    was_training = model.training
    model.eval()
    features = []
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).to(device)
            batch = batch.permute(0, 3, 1, 2).float()
            features.append(model((batch - mean) / std).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(features)
