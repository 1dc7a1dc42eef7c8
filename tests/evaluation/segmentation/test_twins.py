"""Near duplicates across splits: which images they are, and the Dice that falls without them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.evaluation.segmentation.metrics import score_images
from radiodino_utils.evaluation.segmentation.twins import (
    segmentation_twins,
    twin_points,
    twin_scores,
    without_segmentation_twins,
)

from ...synthetic_segmentation import synthetic_segmentation
from .test_metrics import predicted, truth

# six images of train, three of val, four of test; rows 9 and 10 have twins in train and val
CLUSTERS = ["a", "b", "c", "a", "d", "e", "f", "g", "h", "a", "g", "i", "j"]


@pytest.fixture
def crossed():
    """A dataset with near duplicates across its splits."""
    return synthetic_segmentation(
        groups=CLUSTERS, unit="cluster", groups_from="near duplicates", normal=(12,)
    )


def test_twins_lie_on_both_sides_of_the_test_split(crossed):
    twins = {split: rows.tolist() for split, rows in segmentation_twins(crossed).items()}
    assert twins == {"train": [0, 3], "val": [7], "test": [9, 10]}
    cleaned = without_segmentation_twins(crossed)
    assert cleaned.splits["train"].tolist() == [1, 2, 4, 5]
    assert cleaned.splits["val"].tolist() == [6, 8]
    assert cleaned.splits["test"].tolist() == crossed.splits["test"].tolist()
    assert segmentation_twins(cleaned) == {}
    assert without_segmentation_twins(cleaned).splits["train"].tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize("changes", [{"groups": None}, {"unit": "volume"}])
def test_only_clusters_of_near_duplicates_have_twins(crossed, changes):
    dataset = replace(crossed, **changes)
    scores = score_images(predicted(dataset, truth(dataset)), outlines=False)
    assert segmentation_twins(dataset) == {}
    assert twin_points(twin_scores(scores, [dataset])).empty


def shifted(dataset, by):
    """Return the true masks of the test split, each moved down by some pixels."""
    return [np.roll(mask, move, 0) for mask, move in zip(truth(dataset), by, strict=True)]


def test_what_the_twins_buy(crossed):
    official = score_images(predicted(crossed, shifted(crossed, (0, 0, 12, 0))), outlines=False)
    cleaned = without_segmentation_twins(crossed)
    refitted = predicted(cleaned, shifted(cleaned, (6, 6, 12, 0)))
    scores = twin_scores(official, [crossed], [refitted])
    assert scores[scores["twin"]]["id"].unique().tolist() == ["image 9", "image 10"]
    points = twin_points(scores, resamples=200).set_index("comparison")
    assert (points["images"] == 4).all() and (points["with_twin"] == 2).all()
    assert (points["n"] == 3).all()  # the normal image has no Dice
    assert points["dice"].tolist() == pytest.approx([5 / 6, 5 / 6])  # 1, 1 and 0.5
    assert points.loc["deduplicated", "without"] == pytest.approx(0.5)
    assert points.loc["train-deduplicated", "without"] == pytest.approx(2 / 3)  # .75, .75 and .5
    assert points["difference"].tolist() == pytest.approx([1 / 3, 1 / 6])
    for row in points.itertuples():
        assert row.ci_low <= row.difference <= row.ci_high
        assert row.ci_low < row.ci_high


def test_splits_that_keep_twins_together_buy_nothing(crossed):
    apart = without_segmentation_twins(crossed)
    folds = [replace(apart, fold=fold) for fold in (0, 1)]
    scores = [
        score_images(predicted(fold, shifted(fold, (0, 3, 6, 0))), outlines=False) for fold in folds
    ]
    points = twin_points(twin_scores(pd.concat(scores, ignore_index=True), folds), resamples=50)
    assert points["comparison"].tolist() == ["deduplicated"]
    assert points["images"].tolist() == [8]
    assert points[["with_twin", "difference", "ci_low", "ci_high"]].to_numpy().tolist() == [[0] * 4]
