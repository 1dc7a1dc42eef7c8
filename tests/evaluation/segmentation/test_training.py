"""The criterion of segmentation training and the weights of its classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.evaluation.segmentation.training import class_weights, mean_dice


@given(seed=st.integers(0, 1000))
def test_mean_dice_is_pooled_over_images(seed):
    generator = np.random.default_rng(seed)
    masks, scores = (
        generator.integers(0, 3, (2, 6, 6)),
        generator.normal(size=(2, 3, 6, 6)).astype(np.float16),
    )
    said = scores.argmax(1)
    expected = [
        2 * ((said == c) & (masks == c)).sum() / ((said == c).sum() + (masks == c).sum())
        for c in (1, 2)
    ]
    assert mean_dice(scores, masks, 3) == pytest.approx(np.mean(expected))


def test_rare_classes_weigh_more_and_absent_ones_nothing():
    masks = np.zeros((1, 10, 10), np.uint8)
    masks[0, :2] = 1
    weights = class_weights(masks, 3)
    assert weights[2] == 0
    assert weights[1] == pytest.approx(2 * float(weights[0]))
    assert float(weights[:2].mean()) == pytest.approx(1)
