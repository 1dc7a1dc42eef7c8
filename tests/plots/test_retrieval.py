from dataclasses import replace

import numpy as np
import pytest

from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.retrieval import retrieve
from radiodino_utils.plots.retrieval import error_sheet, query_strip

from ..synthetic import synthetic_features
from .test_layout import require_room


def dataset_of(features, **changes):
    """Return a dataset whose images are grey in the level of their row."""
    splits = {
        split: Split(
            np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8),
            labels,
            features.ids[split],
        )
        for split, labels in features.labels.items()
    }
    return ImageDataset(features.dataset, features.classes, splits, "", **changes)


def shown(axis):
    return int(axis.images[0].get_array()[0, 0])


def test_a_query_stands_beside_its_neighbours():
    features = synthetic_features()
    train = dataset_of(features).splits["train"]
    found = retrieve(features, features.embedding("test")[0], k=4)
    true_class = found["class"][0]
    figure = query_strip(
        np.full((8, 8), 200, np.uint8), found, train, title="a query", true_class=true_class
    )
    assert [shown(axis) for axis in figure.axes] == [200, *found["row"]]
    assert figure.axes[1].get_title() == f"{found['distance'][0]:.3f}\n{true_class}"
    require_room(figure)


@pytest.mark.parametrize("count", [2, 3, 12, 60])
def test_the_most_confident_errors_come_first(count):
    features = synthetic_features(classes=count, noise=4.0, sizes={"train": 240, "test": 240})
    names = tuple(f"structure {i} of the body" for i in range(count))
    prediction = replace(classify_knn(features, protocol="knn11"), classes=names, positive="")
    figure = error_sheet(prediction, [dataset_of(features)], per_class=3)
    confidence, wrong = prediction.probabilities.max(1), prediction.probabilities.argmax(1)
    wrong = wrong != prediction.labels
    first = [axis for axis in figure.axes if "wrong" in axis.get_ylabel()]
    assert len(first) == min(24, len(set(prediction.labels[wrong])))
    for axis in first:
        row = shown(axis)
        own = wrong & (prediction.labels == prediction.labels[row])
        assert wrong[row] and confidence[row] == confidence[own].max()
        assert f"{own.sum()} wrong" in axis.get_ylabel()
    require_room(figure)


def test_errors_of_folds_are_found_in_their_folds():
    features = synthetic_features(noise=4.0, dataset="made-fold1")
    dataset = dataset_of(features, fold_of="made-folds")
    prediction = replace(classify_knn(features), dataset="made-folds")
    assert error_sheet(prediction, [dataset]).axes[0].images


def test_an_image_can_be_left_out():
    features = synthetic_features()
    name = features.ids["train"][7]
    found = retrieve(features, features.embedding("train")[7], k=3, leave_out=name)
    assert name not in set(found["id"]) and len(found) == 3


def test_images_without_splits_are_found_and_shown_once():
    features = synthetic_features(noise=4.0, sizes={"all": 30, "train": 60, "test": 30})
    prediction = classify_knn(features, protocol="knn11")
    twice = replace(
        prediction,
        labels=np.tile(prediction.labels, 2),
        probabilities=np.tile(prediction.probabilities, (2, 1)),
        ids=[name.replace("test", "all") for name in prediction.ids] * 2,
    )
    whole = dataset_of(features)
    dataset = replace(whole, splits={"all": whole.splits["all"]})
    axes = [axis for axis in error_sheet(twice, [dataset]).axes if axis.images]
    assert len({shown(axis) for axis in axes}) == len(axes) > 3


def test_no_error_is_no_fault():
    features = synthetic_features(noise=0.01)
    prediction = classify_knn(features, protocol="knn1")
    assert "0 wrong" in error_sheet(prediction, [dataset_of(features)]).axes[0].get_ylabel()
