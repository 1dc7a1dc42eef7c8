"""Result rows are means over images, with normal images apart and folds together."""

import numpy as np
import pandas as pd

from radiodino_utils.evaluation.results import COLUMNS
from radiodino_utils.evaluation.segmentation.metrics import score_images
from radiodino_utils.evaluation.segmentation.results import seeds_spread, segmentation_rows

from ...synthetic_segmentation import synthetic_segmentation
from .test_metrics import predicted, truth


def test_a_perfect_prediction():
    dataset = synthetic_segmentation(classes=3, spacing_mm=(0.5, 0.5))
    rows = segmentation_rows(score_images(predicted(dataset, truth(dataset)))).set_index("metric")
    assert set(COLUMNS) <= {*rows.columns, "metric"}
    for metric in (
        "dice",
        "iou",
        "dice_pooled",
        "dice_with_background",
        "iou_pooled_with_background",
        "detection",
    ):
        assert rows.loc[metric, ["value", "ci_low", "ci_high"]].tolist() == [1, 1, 1]
    assert rows.loc["lesion_detection", "value"] == 1
    assert rows.loc[["hd95_px", "hd95_mm", "false_lesions"], "value"].tolist() == [0, 0, 0]
    assert "specificity" not in rows.index  # there are no normal images
    assert rows.loc["dice", "n"] == 4
    assert rows.loc["dice", "choice"] == "lr = 0.01, empty = skip"


def test_normal_images_are_counted_apart():
    dataset = synthetic_segmentation(normal=(11, 12))
    masks = truth(dataset)
    masks[2] = np.zeros_like(masks[2])
    masks[2][:16] = 1  # a false alarm on a quarter of the image
    scores = score_images(predicted(dataset, masks))
    skip, one = (
        segmentation_rows(scores, empty=rule).set_index("metric") for rule in ("skip", "one")
    )
    assert (skip.loc["dice", "value"], skip.loc["dice", "n"]) == (1, 2)
    assert (one.loc["dice", "value"], one.loc["dice", "n"]) == (0.75, 4)
    assert (skip.loc["specificity", "value"], skip.loc["specificity", "n"]) == (0.5, 2)
    assert skip.loc["false_positive_area", "value"] == 0.125


def test_folds_are_put_together_and_seeds_are_not():
    parts = []
    for fold in (0, 1):
        dataset = synthetic_segmentation(seed=fold, fold=fold)
        segmentations = [
            predicted(dataset, truth(dataset), seed=seed, labelled=6 + 2 * fold) for seed in (0, 1)
        ]
        parts += [score_images(segmentation, outlines=False) for segmentation in segmentations]
    rows = segmentation_rows(pd.concat(parts, ignore_index=True))
    assert set(rows["labelled"]) == {7}
    assert rows[rows["metric"] == "dice"]["n"].tolist() == [8, 8]
    assert rows[rows["metric"] == "dice"]["seed"].tolist() == [0, 1]
    assert "hd95_px" not in set(rows["metric"])
    assert seeds_spread(rows)["std"].tolist() == [0, 0]
