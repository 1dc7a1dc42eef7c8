"""Two-dimensional views of features: PCA and UMAP, seeded and repeatable."""

import atexit
import os
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import data_folder, make_folder
from .features import Features, require_features

# exact as "full", which makes two more copies of the embeddings
_SOLVER = "covariance_eigh"


def project(
    features: Features, *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1
) -> pd.DataFrame:
    """Project the L2-normalised embeddings of all splits to two dimensions by PCA and by UMAP.

    UMAP (McInnes et al., arXiv:1802.03426) runs on one thread with a fixed seed, without which it
    does not repeat; its coordinates may still differ between processors.

    Args:
        features: Features returned by `extract_features`.
        seed: Seed of UMAP.
        neighbours: Number of neighbours of UMAP; reduced if there are fewer images.
        min_dist: Smallest distance of projected points in UMAP.

    Returns:
        One row per image: dataset, backbone, split, id, class, pca1, pca2, umap1, umap2.

    Raises:
        InputError: If features are NaN or infinite, or there are fewer than four images.
    """
    require_features(features)
    with extra("evaluation"):
        from sklearn.decomposition import PCA

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*n_jobs value.*overridden.*")
        _require_numba_cache()
        with extra("evaluation"):
            from umap import UMAP

        embeddings = normalised_embeddings(features)
        if len(embeddings) < 4:
            raise InputError(
                f"{features.dataset}: {len(embeddings)} images are too few to project; UMAP needs "
                "four."
            )
        linear = PCA(2, svd_solver=_SOLVER).fit_transform(embeddings)
        embeddings = embeddings.astype(np.float32)  # as UMAP needs them
        neighbours = min(neighbours, len(embeddings) - 1)
        options = {"n_neighbors": neighbours, "min_dist": min_dist, "metric": "cosine"}
        curved = UMAP(random_state=seed, n_jobs=1, **options).fit_transform(embeddings)
    coordinates = {"pca1": linear[:, 0], "pca2": linear[:, 1]}
    coordinates |= {"umap1": curved[:, 0], "umap2": curved[:, 1]}
    return _images(features).assign(**coordinates)


def _images(features: Features) -> pd.DataFrame:
    """Return a row per image of every split: dataset, backbone, split, id and class."""
    tables = []
    for split, labels in features.labels.items():
        columns = {"split": split, "id": features.ids[split]}
        tables.append(pd.DataFrame(columns | {"class": [features.classes[i] for i in labels]}))
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "dataset", features.dataset)
    table.insert(1, "backbone", features.backbone)
    return table


def explained_variance(features: Features, *, components: int = 20) -> pd.DataFrame:
    """Return the share of variance that each principal component explains.

    Args:
        features: Features returned by `extract_features`; their embeddings are L2-normalised.
        components: Greatest number of components.

    Returns:
        Columns dataset, backbone, component (from 1), share, cumulative; fractions.

    Raises:
        InputError: If features are NaN or infinite.
    """
    with extra("evaluation"):
        from sklearn.decomposition import PCA

    embeddings = normalised_embeddings(features)
    components = min(components, *embeddings.shape)
    share = PCA(components, svd_solver=_SOLVER).fit(embeddings).explained_variance_ratio_
    return pd.DataFrame(
        {
            "dataset": features.dataset,
            "backbone": features.backbone,
            "component": np.arange(1, len(share) + 1),
            "share": share,
            "cumulative": share.cumsum(),
        }
    )


def _require_numba_cache() -> None:
    """Name a folder for what numba compiles for UMAP, if the environment is read-only.

    Its own second choice, the home, may be read-only too, and then UMAP cannot be imported.
    """
    package = find_spec("umap")
    if "NUMBA_CACHE_DIR" in os.environ or package is None or package.origin is None:
        return
    if os.access(Path(package.origin).parent, os.W_OK):
        return
    try:
        folder = str(make_folder(data_folder() / "numba"))
    except InputError:
        # of this process alone: numba runs what it finds there
        folder = tempfile.mkdtemp(prefix="radiodino-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder


def normalised_embeddings(features: Features) -> np.ndarray:
    """Return the L2-normalised embeddings of all splits, float64, [n, width]."""
    splits = [features.embedding(split) for split in features.labels]
    embeddings = np.concatenate(splits, dtype=np.float64)
    if not np.isfinite(embeddings).all():
        raise InputError(
            f"{features.dataset}: the features hold NaN or infinite values; extract them again."
        )
    norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))  # without another copy
    embeddings /= np.maximum(norms, 1e-12)[:, None]
    return embeddings
