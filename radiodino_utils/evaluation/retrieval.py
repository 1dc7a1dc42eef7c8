"""Retrieval: the labelled images nearest to a query, and how many of them share its class."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ..core.checks import checked_ks
from ..core.environment import git_revision
from ..features.features import Features, require_features
from .metrics import mean_interval
from .neighbours import nearest
from .results import COLUMNS

_FACTS = (
    *("dataset", "backbone", "weights", "engine", "precision", "seen_in_pretraining", "caveat"),
    *("unit", "groups_from"),
)
_KS = (1, 5, 10)


def retrieve(
    features: Features,
    embedding: np.ndarray,
    *,
    k: int = 6,
    split: str = "train",
    leave_out: str | None = None,
) -> pd.DataFrame:
    """Return the images of a split that are nearest to one embedding, nearest first.

    Args:
        features: Features returned by `extract_features`.
        embedding: Embedding of any image by the same backbone, float32, [width].
        k: Number of images.
        split: Split that is searched.
        leave_out: Id of an image that is left out, such as the query itself.

    Returns:
        One row per image: row (in the split), id, class, and distance, one minus the cosine, from 0
        to 2.

    Raises:
        InputError: If the widths differ, or the split does not exist.
    """
    require_features(features)
    bank, labels = features.labelled(split)
    ids = features.ids[split]
    exclude = np.array([list(ids).index(leave_out) if leave_out in ids else -1])
    similarities, rows = nearest(bank, embedding[None], k, exclude=exclude)
    return pd.DataFrame(
        {
            "row": rows[0],
            "id": [ids[row] for row in rows[0]],
            "class": [features.classes[labels[row]] for row in rows[0]],
            "distance": 1 - similarities[0],
        }
    )


def retrieval_scores(features: Iterable[Features], *, ks: Sequence[int] = _KS) -> pd.DataFrame:
    """Return the share of the nearest training images that have the class of each test image.

    Each fold of a cross-validation is searched in its own training images; then the folds are one.

    Args:
        features: Features of any datasets and backbones, with the splits train and test.
        ks: Numbers of nearest images; a smaller train split gives all of its images.

    Returns:
        One row per test image: id, group (its own id where no groups are known), `precision_at_1`
        ... (fractions, by cosine similarity), and the columns of `results.COLUMNS` that say where
        the images and the features come from.

    Raises:
        InputError: If a split is missing, or an embedding is not finite.
    """
    return pd.concat([_scores(entry, checked_ks(ks)) for entry in features], ignore_index=True)


def _scores(features: Features, ks: Sequence[int]) -> pd.DataFrame:
    (bank, bank_labels), (queries, labels) = features.labelled("train"), features.labelled("test")
    is_same = bank_labels[nearest(bank, queries, max(ks))[1]] == labels[:, None]
    precision = {f"precision_at_{k}": is_same[:, :k].mean(1) for k in ks}
    sidecar = features.sidecar
    facts = (
        *(features.fold_of or features.dataset, features.backbone),
        *(sidecar["backbone"]["fingerprint"], sidecar["engine"], sidecar["precision"]),
        *(features.seen_in_pretraining, features.caveat),
        *((features.unit, features.groups_from) if "test" in features.groups else ("image", "")),
    )
    ids = features.ids["test"]
    known = dict(zip(_FACTS, facts, strict=True))
    columns = {"id": ids, "group": features.groups.get("test", ids)}
    return pd.DataFrame(columns | precision).assign(**known)


def retrieval_rows(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return the mean retrieval precision over test images with its bootstrap 95 % interval.

    Args:
        scores: Scores returned by `retrieval_scores`.
        seed: Seed of the bootstrap.

    Returns:
        Rows with `results.COLUMNS`; the metrics are `precision_at_1` and the like.
    """
    common = {"task": "retrieval", "protocol": "retrieval", "split": "test", "seed": seed}
    common |= {"positive": "", "choice": "", "git": git_revision()}
    metrics = [name for name in scores if name.startswith("precision_at_")]
    table = []
    for facts, part in scores.groupby(list(_FACTS), sort=False):
        for metric in metrics:
            groups = None if part["group"].is_unique else part["group"].tolist()
            interval = mean_interval(part[metric].to_numpy(), groups=groups, seed=seed)
            numbers = {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
            row = common | dict(zip(_FACTS, facts, strict=True)) | numbers
            counts = {"n": part["id"].nunique(), "units": part["group"].nunique()}
            table.append(row | {"metric": metric} | counts)
    return pd.DataFrame(table, columns=list(COLUMNS))
