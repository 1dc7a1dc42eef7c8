"""k-nearest-neighbour classification on frozen features, one search for every k."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..core.checks import checked_embeddings, checked_ks, checked_labels, checked_temperature
from ..core.errors import InputError, unknown_name
from ..core.extras import extra
from ..features.features import Features
from .predictions import Prediction, prediction

with extra("evaluation"):
    from scipy.sparse import csr_array

TEMPERATURE = 0.07
KS = (1, 5, 10, 20, 50, 100, 200)
PLAIN_KS = {"knn1": 1, "knn11": 11, "knn20": 20}
COMMON_K = 20  # of "knn-k20", for every backbone: the k that DINO found best on ImageNet
METRICS = ("cosine", "euclidean")
_BLOCK = 65_536  # bank rows that are normalised and searched at a time


def nearest(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    metric: str = "cosine",
    exclude: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest rows of a bank for each query, exactly, with faiss.

    The bank may be a memory map of any float type: it is read in blocks of 65 536 rows. Memory
        beyond the arguments: two
    blocks and the queries in float32, and some four times the results; so a bank of 1.35 million x
    384 with 1000 queries and k = 200 needs less than 0.3 GB beside itself. Of neighbours at the
    same distance any may come first.

    Args:
        bank: [rows, width].
        queries: [n, width].
        k: Neighbours; no more than the bank has are given.
        metric: "cosine" (similarity, greatest first) or "euclidean" (distance, least first).
        exclude: For each query the bank row that is the query itself, which is left out; -1 for
            none.

    Returns:
        Similarities or distances (float32) and bank rows (int64), both [n, min(k, rows)] (one fewer
        row with `exclude`).

    Raises:
        InputError: If the bank is empty, widths differ, values are NaN, or `exclude` names no row
            of the bank.
    """
    with extra("evaluation"):
        import faiss

    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    (k,) = checked_ks((k,))
    for values, what in ((bank, "bank"), (queries, "queries")):
        if np.ndim(values) != 2:
            raise InputError(
                f"the {what} of the kNN are of shape {np.shape(values)}; [n, width] is needed."
            )
    if not len(bank):
        raise InputError("the bank of the kNN is empty: the training split holds no images.")
    if bank.shape[1] != queries.shape[1]:
        raise InputError(
            f"bank of width {bank.shape[1]} and queries of width {queries.shape[1]} are of different backbones."
        )
    if exclude is not None:
        exclude = np.asarray(exclude)
        if (
            exclude.shape != (len(queries),)
            or exclude.dtype.kind not in "iu"
            or ((exclude < -1) | (exclude >= len(bank))).any()
        ):
            raise InputError(
                f"exclude: one row of the bank (0 to {len(bank) - 1}) for each query is needed, or -1 for none."
            )
    wanted = min(k + (exclude is not None), len(bank))
    queries = _prepared(queries, metric, "queries")
    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    sign = -1 if metric == "cosine" else 1
    values, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(bank), _BLOCK):
        block = None  # frees the last one before the next is made
        block = _prepared(bank[start : start + _BLOCK], metric, "bank")
        new_values, new_rows = faiss.knn(queries, block, min(wanted, len(block)), metric=kind)
        values, rows = np.hstack([values, new_values]), np.hstack([rows, new_rows + start])
        if start:
            order = np.argsort(sign * values, axis=1, kind="stable")[:, :wanted]
            values, rows = np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)
    if exclude is not None:
        is_self = rows == exclude[:, None]
        is_self[~is_self.any(1), -1] = (
            True  # nothing to leave out: drop the farthest, so that all keep as many
        )
        shape = (len(rows), wanted - 1)
        values, rows = values[~is_self].reshape(shape), rows[~is_self].reshape(shape)
        if not shape[1]:
            raise InputError("the bank of the kNN holds nothing but the query itself.")
    return (values if metric == "cosine" else np.sqrt(np.maximum(values, 0))), rows


def _prepared(values: np.ndarray, metric: str, what: str) -> np.ndarray:
    prepared = np.ascontiguousarray(values, np.float32)
    squares = np.einsum(
        "ij,ij->i", prepared, prepared
    )  # without a temporary array of the same size
    if not np.isfinite(squares).all():
        raise InputError(
            f"the {what} of the kNN hold NaN or infinite features; extract them again."
        )
    if metric == "cosine":
        length = np.maximum(np.sqrt(squares), 1e-12)[:, None]
        prepared = np.divide(
            prepared, length, out=None if np.may_share_memory(prepared, values) else prepared
        )
    return prepared


def votes(
    similarities: np.ndarray,
    neighbour_labels: np.ndarray,
    *,
    ks: Sequence[int],
    classes: int,
    temperature: float | None,
) -> dict[int, np.ndarray]:
    """Turns neighbours into class probabilities for every k at once.

    The weight of a neighbour is exp(similarity / temperature), as in DINO (Caron et al., ICCV 2021,
    facebookresearch/dino, eval_knn.py), or one. Votes are normalised to probabilities for each k on
    its own. DINOv2 (facebookresearch/dinov2, eval/knn.py) normalises once, over the largest k, so
    that its votes of a smaller k sum to less
    than 1: the predicted classes are the same, the AUC of a smaller k may differ.

    Args:
        similarities: [n, k], nearest first.
        neighbour_labels: Integers, [n, k].
        ks: Which k to read off; a k above the number of neighbours takes all of them.
        classes: Number of classes.
        temperature: Of the weights; `None` for the plain vote.

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
    ks, (n, most) = checked_ks(ks), similarities.shape
    if not most:
        raise InputError("the votes have no neighbour; give at least one for each row.")
    weights = np.ones((n, most))
    if temperature is not None:
        checked_temperature(temperature)
        # relative to the nearest neighbour: the same probabilities, without overflow
        weights = np.exp(
            (similarities.astype(np.float64) - similarities.max(1, keepdims=True)) / temperature
        )
    total, done, probabilities = np.zeros((n, classes)), 0, {}
    for k in ks:
        k_here = min(k, most)
        part = slice(done, k_here)
        pointers = np.arange(n + 1) * (k_here - done)
        total = (
            total
            + csr_array(
                (weights[:, part].ravel(), neighbour_labels[:, part].ravel(), pointers),
                (n, classes),
            ).toarray()
        )
        probabilities[k], done = total / total.sum(1, keepdims=True), k_here
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
    """Class probabilities of a kNN classifier for every k, from one search.

    Args:
        bank: Features of the labelled images, [rows, width].
        bank_labels: Their labels, [rows].
        queries: Features to classify, [n, width].
        ks: Numbers of neighbours.
        classes: Number of classes; the highest label plus one by default.
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
            f"metric {metric}: weights exp(similarity / temperature) need the cosine; use temperature=None."
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
    """Classifies splits by DINO's weighted kNN for every k, with the train split as the bank.

    Args:
        features: What `extract_features` gives.
        ks: Numbers of neighbours.
        splits: Which splits to classify.

    Returns:
        A prediction for each split and k; `rows.curve_rows` makes the curve of them.

    Raises:
        InputError: If the set lacks one of the splits or the train split.
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
    """Classifies the test split by a kNN protocol, with the train split as the bank.

    Args:
        features: What `extract_features` gives.
        protocol: "knn" is DINO's weighted vote (cosine, temperature 0.07) with the k of the best
            accuracy on validation, the smallest of equals. "knn1", "knn11" and "knn20" are plain
            majority votes; "knn11" with Euclidean distance is that of the MedMNIST+ benchmark
            (Doerrich et al., Sci. Rep. 15:7669). "knn-k20" is the weighted vote with k = 20 (or the
            whole bank, where it is smaller), chosen on nothing: votes of few neighbours have few
            values and a low AUC, so the AUC of two backbones can be compared at a common k only.
        ks: Candidates of "knn".
        metric: Of the plain votes, "euclidean" or "cosine".

    Returns:
        Probabilities of the test split; `choice` names k.

    Raises:
        InputError: If the protocol is unknown or the set lacks train, test or, for "knn", val.
    """
    if protocol in PLAIN_KS:
        _require(features, "train", "test")
        k, (bank, labels), (queries, _) = (
            PLAIN_KS[protocol],
            features.labelled("train"),
            features.labelled("test"),
        )
        options = {
            "ks": (k,),
            "classes": len(features.classes),
            "metric": metric,
            "temperature": None,
        }
        probabilities = knn_probabilities(bank, labels, queries, **options)[k]
        return prediction(
            features, protocol=protocol, split="test", probabilities=probabilities, choice={"k": k}
        )
    if protocol == "knn-k20":
        _require(features, "train", "test")
        k = min(COMMON_K, len(features.labels["train"]))
        probabilities = _weighted(features, "test", (k,))[k]
        return prediction(
            features, protocol=protocol, split="test", probabilities=probabilities, choice={"k": k}
        )
    if protocol != "knn":
        raise unknown_name("kNN protocol", protocol, ["knn", "knn-k20", *PLAIN_KS])
    _require(features, "train", "val", "test")
    validation = _weighted(features, "val", ks)
    labels = features.labelled("val")[1]
    accuracy = {k: float((p.argmax(1) == labels).mean()) for k, p in validation.items()}
    k = max(sorted(accuracy), key=accuracy.get)
    probabilities = _weighted(features, "test", (k,))[k]
    return prediction(
        features, protocol="knn", split="test", probabilities=probabilities, choice={"k": k}
    )


def chosen_k(features: Iterable[Features], *, ks: Sequence[int] = KS) -> dict[tuple[str, str], int]:
    """Return the k that the protocol "knn" chooses on validation.

    Args:
        features: Features of any datasets and backbones.
        ks: Candidates.

    Returns:
        k by names of dataset and backbone.

    Raises:
        InputError: See `classify_knn`.
    """
    chosen = {}
    for entry in features:
        k = classify_knn(entry, ks=ks).choice["k"]
        assert isinstance(k, int)
        chosen[entry.dataset, entry.backbone] = k
    return chosen


def _require(features: Features, *splits: str) -> None:
    if absent := [split for split in splits if split not in features.labels]:
        hint = (
            "; the protocols knn-k20, knn1, knn11 and knn20 need no val"
            if absent == ["val"]
            else ""
        )
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}, which this kNN needs{hint}."
        )


def _weighted(features: Features, split: str, ks: Sequence[int]) -> dict[int, np.ndarray]:
    (bank, labels), (queries, _) = features.labelled("train"), features.labelled(split)
    return knn_probabilities(bank, labels, queries, ks=ks, classes=len(features.classes))
