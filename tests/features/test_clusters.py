"""Clusters of embeddings."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.features.clusters import cluster

from ..synthetic import synthetic_features


def test_separate_classes_are_found_without_their_labels():
    features = synthetic_features(noise=0.01, classes=4)
    numbers, row = cluster(features)
    labels = np.concatenate(list(features.labels.values()))
    pairs = set(zip(labels.tolist(), numbers.tolist(), strict=True))
    assert len(pairs) == 4
    assert row.loc[0, ["clusters", "n"]].tolist() == [4, 114]
    assert row.loc[0, "agreement"] == 1 and row.loc[0, "silhouette"] > 0.9


def test_the_number_is_found_where_there_are_no_classes():
    features = synthetic_features(noise=0.01, classes=3, sizes={"all": 60})
    features.labels["all"][:] = 0
    unlabelled = synthetic_features(
        classes=1, sizes={"all": 60}, arrays=features.arrays, labels=features.labels
    )
    numbers, row = cluster(unlabelled)
    assert row.loc[0, "clusters"] == 3 and np.isnan(row.loc[0, "agreement"])
    assert np.bincount(numbers).tolist() == sorted(np.bincount(numbers), reverse=True)


def test_too_few_images_are_one_sentence():
    with pytest.raises(InputError, match="3 images are too few to cluster"):
        cluster(synthetic_features(sizes={"all": 3}), clusters=5)
