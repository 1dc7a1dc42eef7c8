import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou
from torch.nn.functional import one_hot
from torchmetrics.functional.segmentation import dice_score

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.results import COLUMNS
from radiodino_utils.evaluation.segmentation.metrics import EMPTY_RULES, image_overlap, score_images
from radiodino_utils.evaluation.segmentation.prediction import Segmentation
from radiodino_utils.evaluation.segmentation.results import seeds_spread, segmentation_rows
from radiodino_utils.evaluation.segmentation.tables import caption, segmentation_table

from ...synthetic_segmentation import synthetic_segmentation


def predicted(dataset, masks, **changes):
    """A segmentation that says what the masks say."""
    scores = np.stack(
        [np.moveaxis(np.eye(len(dataset.classes))[mask], -1, 0) for mask in masks]
    ).astype(np.float16)
    fields = {
        "backbone": "random-t16",
        "probe": "linear",
        "weights": "0123456789ab",
        "seed": 0,
        "choice": {"lr": 0.01},
    }
    return Segmentation(
        dataset, rows=dataset.splits["test"], scores=scores, **fields | {"labelled": 6} | changes
    )


def truth(dataset):
    return [dataset.mask(row) for row in dataset.splits["test"]]


def counts(predicted, truth):
    both = (predicted & truth).sum()
    return both, predicted.sum() - both, truth.sum() - both


# the trap: what libraries say where a mask is empty, for prediction and truth
CASES = {
    "both empty": ((), ()),
    "prediction empty": ((), (0, 1)),
    "truth empty": ((0, 1), ()),
    "neither": ((0, 1), (1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_rules_for_empty_masks_are_those_of_monai_and_torchmetrics(case):
    one, other = np.zeros((2, 4, 4), bool)
    one[list(CASES[case][0])], other[list(CASES[case][1])] = True, True
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (one, other)]
    expected = {
        "skip": compute_dice(*tensors, ignore_empty=True).item(),
        "one": compute_dice(*tensors, ignore_empty=False).item(),
        "alarm": dice_score(
            *(tensor.long() for tensor in tensors), num_classes=1, average="none"
        ).item(),
    }
    assert expected.keys() == EMPTY_RULES.keys()
    for rule, value in expected.items():
        np.testing.assert_allclose(image_overlap(*counts(one, other), empty=rule), value, atol=1e-6)


@given(
    seed=st.integers(0, 10**6), classes=st.integers(2, 5), empty=st.sampled_from(["skip", "one"])
)
def test_dice_and_iou_of_random_masks_are_monais(seed, classes, empty):
    generator = np.random.default_rng(seed)
    dataset = synthetic_segmentation(
        counts={"train": 1, "val": 1, "test": 1}, shape=(30, 26), classes=classes
    )
    dataset.masks[:] = generator.integers(0, classes, dataset.masks.shape) * (
        generator.random(dataset.masks.shape) < 0.3
    )
    other = generator.integers(0, classes, (30, 26))
    scores = score_images(predicted(dataset, [other]), outlines=False)
    ours = {
        m: image_overlap(scores["tp"], scores["fp"], scores["fn"], metric=m, empty=empty)
        for m in ("dice", "iou")
    }
    masks = [
        one_hot(torch.from_numpy(m.astype(np.int64)), classes).permute(2, 0, 1)[None]
        for m in (other, dataset.mask(2))
    ]
    for metric, theirs in (("dice", compute_dice), ("iou", compute_iou)):
        np.testing.assert_allclose(
            ours[metric], theirs(*masks, ignore_empty=empty == "skip")[0], atol=1e-6
        )


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


@pytest.mark.parametrize("spacing", [None, (0.5, 0.5), (0.5, 2.0)])
def test_distance_of_a_shifted_square(spacing):
    dataset = synthetic_segmentation(spacing_mm=spacing)
    dataset.masks[:] = 0
    dataset.masks[:, 10:30, 10:30] = 1
    moved = [np.roll(mask, 5, axis=1) for mask in truth(dataset)]
    scores = score_images(predicted(dataset, moved))
    inside = scores[scores["class"] == "organ 1"]
    assert inside["hd95_px"].tolist() == [5] * 4
    if spacing is None:
        assert inside["hd95_mm"].isna().all()
    else:
        assert inside["hd95_mm"].tolist() == [5 * spacing[1]] * 4


def test_lesions_are_counted_by_their_parts():
    dataset = synthetic_segmentation(counts={"train": 1, "val": 1, "test": 1})
    dataset.masks[:] = 0
    dataset.masks[:, 2:12, 2:12] = 1
    dataset.masks[:, 40:50, 30:40] = 1
    other = np.zeros((64, 48), int)
    other[2:12, 4:14] = 1  # finds the first
    other[30:34, 2:6] = 1  # finds nothing
    line = score_images(predicted(dataset, [other])).iloc[1]
    assert (line["lesions"], line["found"], line["false_lesions"]) == (2, 1, 1)


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
        said = [
            predicted(dataset, truth(dataset), seed=seed, labelled=6 + 2 * fold) for seed in (0, 1)
        ]
        parts += [score_images(one, outlines=False) for one in said]
    rows = segmentation_rows(pd.concat(parts, ignore_index=True))
    assert set(rows["labelled"]) == {7}
    assert rows[rows["metric"] == "dice"]["n"].tolist() == [8, 8]
    assert rows[rows["metric"] == "dice"]["seed"].tolist() == [0, 1]
    assert "hd95_px" not in set(rows["metric"])
    assert seeds_spread(rows)["std"].tolist() == [0, 0]


def test_the_table_keeps_protocols_apart_and_adds_the_published_numbers():
    dataset = synthetic_segmentation(name="busi-lesions", protocol="lesions only")
    rows = segmentation_rows(score_images(predicted(dataset, truth(dataset))))
    table = segmentation_table(rows, {dataset.name: dataset.protocol})
    assert table.loc[0, ["dataset", "split", "probe", "Dice %", "source"]].tolist() == [
        "busi-lesions",
        "lesions only",
        "linear",
        "100.0 [100.0, 100.0]",
        "this run",
    ]
    published = table[table["source"] != "this run"].set_index("backbone")
    assert published.loc["radiodino-b16 (published)", "Dice %"] == "69.5"
    assert published.loc["frozen DINO", "Dice %"] == "none published"
    assert (published["split"] != "lesions only").all()
    with pytest.raises(InputError, match="two result rows for the same cell"):
        segmentation_table(pd.concat([rows, rows]), {dataset.name: ""})


def test_the_rule_is_said_in_the_caption():
    assert (
        caption(["one patient", ""], empty="one")
        == f"empty masks: {EMPTY_RULES['one']}; one patient"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "dise"}, "overlap"), ({"empty": "skipp"}, "rule for empty masks")],
)
def test_unknown_options(options, message):
    with pytest.raises(InputError, match=f"unknown {message}"):
        image_overlap(1, 1, 1, **options)
