"""Clusters of embeddings, found without labels."""

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from .features import Features, require_features
from .projection import normalised_embeddings

LARGEST = 10  # number of clusters that is tried where nothing says how many there are
_SAMPLE = 2000  # images whose silhouette is measured; memory grows with the square


def cluster(
    features: Features, *, clusters: int | None = None, seed: int = 0
) -> tuple[np.ndarray, pd.DataFrame]:
    """Cluster the L2-normalised embeddings of all splits by k-means.

    Args:
        features: Features returned by `extract_features`.
        clusters: Number of clusters; by default the number of classes, and for a single class the
            number from 2 to `LARGEST` with the greatest silhouette.
        seed: Seed of k-means and of the sample on which the silhouette is measured.

    Returns:
        The cluster of each image from 0, the largest first, int64 [n], in the order of the splits;
        and one row: dataset, backbone, clusters, silhouette (Rousseeuw 1987, cosine), agreement
        (adjusted Rand index with the classes, Hubert and Arabie 1985; NaN for one class), n.

    Raises:
        InputError: If there are no more images than clusters, or features are NaN or infinite.
    """
    require_features(features)
    with extra("evaluation"):
        from sklearn.metrics import adjusted_rand_score

    embeddings = normalised_embeddings(features).astype(np.float32)
    labels = np.concatenate([np.asarray(part) for part in features.labels.values()])
    several = len(features.classes) > 1
    counts = [clusters or len(features.classes)] if clusters or several else range(2, LARGEST + 1)
    counts = [count for count in counts if count < len(embeddings)]
    if not counts:
        raise InputError(
            f"{features.dataset}: {len(embeddings)} images are too few to cluster; "
            "there must be more images than clusters."
        )
    found = [_clustered(embeddings, count, seed) for count in counts]
    numbers, silhouette = max(found, key=lambda result: result[1])
    facts = {
        "dataset": features.dataset,
        "backbone": features.backbone,
        "clusters": len(np.unique(numbers)),
        "silhouette": silhouette,
        "agreement": adjusted_rand_score(labels, numbers) if several else np.nan,
        "n": len(numbers),
    }
    return numbers, pd.DataFrame([facts])


def _clustered(embeddings: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    """Return the cluster of each image, the largest first, and the silhouette."""
    with extra("evaluation"):
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(embeddings)
    sizes = np.bincount(found, minlength=count)
    numbers = np.argsort(np.argsort(-sizes, kind="stable"))[found]
    if len(np.unique(numbers)) < 2:  # all images are the same
        return numbers, 0.0
    options = {"metric": "cosine", "random_state": seed}
    sample = min(_SAMPLE, len(embeddings))
    return numbers, float(silhouette_score(embeddings, numbers, sample_size=sample, **options))
