"""Choice of features inside training folds: one feature of each cluster of correlated ones."""

from typing import Any, Self

import numpy as np

from ..core.extras import extra

with extra("evaluation"):
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata
    from sklearn.base import BaseEstimator, TransformerMixin


class OneOfEachCluster(TransformerMixin, BaseEstimator):
    """Keep one of the features that say the same: the one nearest to the rest of its cluster.

    Features are clustered by average linkage of 1 - |Spearman's rho|.

    Args:
        correlation: Mean correlation above which clusters are joined.
    """

    def __init__(self, correlation: float = 0.9) -> None:
        self.correlation = correlation

    def fit(self, values: np.ndarray, labels: Any = None) -> Self:
        """Choose features by the rows given; labels are not looked at."""
        ranks = rankdata(values, axis=0)
        varied = np.flatnonzero(ranks.std(0) > 0)
        similar = np.abs(np.corrcoef(ranks[:, varied], rowvar=False)).reshape(2 * (len(varied),))
        distance = squareform(np.clip(1 - similar, 0, None), checks=False)
        if len(varied) > 1:
            cluster = fcluster(linkage(distance, "average"), 1 - self.correlation, "distance")
        else:
            cluster = np.ones(len(varied), int)
        kept = []
        for number in np.unique(cluster):
            members = np.flatnonzero(cluster == number)
            kept.append(members[similar[np.ix_(members, members)].sum(0).argmax()])
        self.kept_ = varied[np.sort(kept)] if kept else np.arange(values.shape[1])[:1]
        return self

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the chosen columns."""
        return values[:, self.kept_]
