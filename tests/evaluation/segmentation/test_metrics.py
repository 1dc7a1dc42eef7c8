import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou
from torch.nn.functional import one_hot
from torchmetrics.functional.segmentation import dice_score

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.segmentation.metrics import EMPTY_RULES, image_overlap, score_images
from radiodino_utils.evaluation.segmentation.prediction import Segmentation

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


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "dise"}, "overlap"), ({"empty": "skipp"}, "rule for empty masks")],
)
def test_unknown_options(options, message):
    with pytest.raises(InputError, match=f"unknown {message}"):
        image_overlap(1, 1, 1, **options)
