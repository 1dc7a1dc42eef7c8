"""k-nearest-neighbour classification on frozen features, one search for every k."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from ..core.checks import checked_embeddings, checked_ks, checked_labels, checked_temperature
from ..core.errors import InputError, unknown_name
from ..core.extras import extra
from ..features.features import Features
from .neighbours import nearest
from .predictions import Prediction, prediction

with extra("evaluation"):
    from scipy.sparse import csr_array

TEMPERATURE = 0.07
KS = (1, 5, 10, 20, 50, 100, 200)
PLAIN_KS = {"knn1": 1, "knn11": 11, "knn20": 20}
COMMON_K = 20  # of "knn-k20", for every backbone: the k that DINO found best on ImageNet


def votes(
    similarities: np.ndarray,
    neighbour_labels: np.ndarray,
    *,
    ks: Sequence[int],
    classes: int,
    temperature: float | None,
) -> dict[int, np.ndarray]:
    """Return class probabilities from neighbours, for every k at once.

    The weight of a neighbour is exp(similarity / temperature), as in DINO (Caron et al., ICCV 2021,
    facebookresearch/dino, eval_knn.py), or one. Votes are normalised to probabilities for each k
    separately. DINOv2 (facebookresearch/dinov2, eval/knn.py) normalises once, over the largest k,
    so that its votes of a smaller k sum to less than 1: the predicted classes are the same, the AUC
    of a smaller k may differ.

    Args:
        similarities: [n, k], nearest first.
        neighbour_labels: Integers, [n, k].
        ks: Numbers of neighbours to read off; a k above the number of neighbours takes all of them.
        classes: Number of classes.
        temperature: Temperature of the weights; `None` for the plain vote.

    Returns:
        For each k probabilities, float64, [n, classes].

    Raises:
        InputError: If a label stands for no class, a similarity is not finite, shapes differ, or
            `ks` or `temperature` do not fit.
    """
    similarities = checked_embeddings(similarities, what="similarities")
    neighbour_labels = checked_labels(
        neighbour_labels, classes, shape=similarities.shape, what="labels of neighbours"
    )
    ks, (n, neighbours) = checked_ks(ks), similarities.shape
    if not neighbours:
        raise InputError("the votes have no neighbour; give at least one for each row.")
    weights = np.ones((n, neighbours))
    if temperature is not None:
        checked_temperature(temperature)
        # relative to the nearest neighbour: the same probabilities, without overflow
        relative = similarities.astype(np.float64) - similarities.max(1, keepdims=True)
        weights = np.exp(relative / temperature)
    total, counted, probabilities = np.zeros((n, classes)), 0, {}
    for k in ks:
        end = min(k, neighbours)
        part = slice(counted, end)
        pointers = np.arange(n + 1) * (end - counted)
        new = (weights[:, part].ravel(), neighbour_labels[:, part].ravel(), pointers)
        total = total + csr_array(new, (n, classes)).toarray()
        probabilities[k], counted = total / total.sum(1, keepdims=True), end
    return probabilities


def knn_probabilities(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    classes: int | None = None,
    metric: str = "cosine",
    temperature: float | None = TEMPERATURE,
    exclude: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """Return the class probabilities of a kNN classifier for every k, from one search.

    Args:
        bank: Features of the labelled images, [rows, width].
        bank_labels: Labels of the bank, [rows].
        queries: Features to classify, [n, width].
        ks: Numbers of neighbours.
        classes: Number of classes; by default the highest label plus one.
        metric: See `nearest`.
        temperature: See `votes`; needs the cosine metric.
        exclude: See `nearest`.

    Returns:
        See `votes`.

    Raises:
        InputError: If `ks`, labels, metric or temperature do not fit, and see `nearest`.
    """
    if temperature is not None and metric != "cosine":
        raise InputError(
            f"metric {metric}: weights exp(similarity / temperature) need the cosine; "
            "use temperature=None."
        )
    if temperature is not None:
        checked_temperature(temperature)
    ks = checked_ks(ks)
    bank_labels = checked_labels(
        bank_labels, classes, shape=(len(bank),), what="labels of the bank"
    )
    values, rows = nearest(bank, queries, ks[-1], metric=metric, exclude=exclude)
    classes = classes or int(bank_labels.max()) + 1
    return votes(values, bank_labels[rows], ks=ks, classes=classes, temperature=temperature)


def knn_curve(
    features: Features, *, ks: Sequence[int] = KS, splits: Sequence[str] = ("val", "test")
) -> list[Prediction]:
    """Classify splits by DINO's weighted kNN for every k, with the train split as the bank.

    Args:
        features: Features returned by `extract_features`.
        ks: Numbers of neighbours.
        splits: Splits to classify.

    Returns:
        A prediction for each split and k; `results.curve_rows` makes the curve of them.

    Raises:
        InputError: If the dataset lacks one of the splits or the train split.
    """
    _require(features, "train", *splits)
    return [
        prediction(
            features, protocol="knn", split=split, probabilities=probabilities, choice={"k": k}
        )
        for split in splits
        for k, probabilities in _weighted(features, split, ks).items()
    ]


def classify_knn(
    features: Features, *, protocol: str = "knn", ks: Sequence[int] = KS, metric: str = "euclidean"
) -> Prediction:
    """Classify the test split by a kNN protocol, with the train split as the bank.

    Args:
        features: Features returned by `extract_features`.
        protocol: "knn" is DINO's weighted vote (cosine, temperature 0.07) with the k of the best
            accuracy on validation, the smallest of equals. "knn1", "knn11" and "knn20" are plain
            majority votes; "knn11" with Euclidean distance is that of the MedMNIST+ benchmark
            (Doerrich et al., Sci. Rep. 15:7669). "knn-k20" is the weighted vote with k = 20 (or the
            whole bank, where it is smaller), without any choice: votes of few neighbours take few
            values and have a low AUC, so the AUC of two backbones can be compared at a common k
            only.
        ks: Candidate numbers of neighbours of "knn".
        metric: Metric of the plain votes, "euclidean" or "cosine".

    Returns:
        Probabilities of the test split; `choice` names k. Where there is a split val, it is
        classified too, for `val_accuracy`.

    Raises:
        InputError: If the protocol is unknown or the dataset lacks train, test or, for "knn", val.
    """
    classified: Callable[..., dict[int, np.ndarray]]
    if protocol in PLAIN_KS:
        _require(features, "train", "test")
        k, classified = PLAIN_KS[protocol], partial(_plain, metric=metric)
    elif protocol == "knn-k20":
        _require(features, "train", "test")
        k, classified = min(COMMON_K, len(features.labels["train"])), _weighted
    elif protocol == "knn":
        _require(features, "train", "val", "test")
        k, classified = _best_k(features, ks), _weighted
    else:
        raise unknown_name("kNN protocol", protocol, ["knn", "knn-k20", *PLAIN_KS])
    splits = [split for split in ("val", "test") if split in features.labels]
    probabilities = {split: classified(features, split, (k,))[k] for split in splits}
    return prediction(
        features,
        protocol=protocol,
        split="test",
        probabilities=probabilities["test"],
        choice={"k": k},
        val_probabilities=probabilities.get("val"),
    )


def chosen_k(features: Iterable[Features], *, ks: Sequence[int] = KS) -> dict[tuple[str, str], int]:
    """Return the k that the protocol "knn" chooses on validation.

    Args:
        features: Features of any datasets and backbones.
        ks: Candidate numbers of neighbours.

    Returns:
        k by names of dataset and backbone.

    Raises:
        InputError: See `classify_knn`.
    """
    chosen = {}
    for entry in features:
        _require(entry, "train", "val")
        chosen[entry.dataset, entry.backbone] = _best_k(entry, ks)
    return chosen


def _require(features: Features, *splits: str) -> None:
    if absent := [split for split in splits if split not in features.labels]:
        hint = ""
        if absent == ["val"]:
            hint = "; the protocols knn-k20, knn1, knn11 and knn20 need no val"
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}, which this kNN needs{hint}."
        )


def _best_k(features: Features, ks: Sequence[int]) -> int:
    """Return the k with the best accuracy on validation, the smallest of equals."""
    labels = features.labelled("val")[1]
    accuracy = {
        k: float((probabilities.argmax(1) == labels).mean())
        for k, probabilities in _weighted(features, "val", ks).items()
    }
    return max(sorted(accuracy), key=lambda k: accuracy[k])


def _weighted(features: Features, split: str, ks: Sequence[int]) -> dict[int, np.ndarray]:
    (bank, labels), (queries, _) = features.labelled("train"), features.labelled(split)
    return knn_probabilities(bank, labels, queries, ks=ks, classes=len(features.classes))


def _plain(
    features: Features, split: str, ks: Sequence[int], *, metric: str
) -> dict[int, np.ndarray]:
    (bank, labels), (queries, _) = features.labelled("train"), features.labelled(split)
    classes = len(features.classes)
    return knn_probabilities(
        bank, labels, queries, ks=ks, classes=classes, metric=metric, temperature=None
    )
