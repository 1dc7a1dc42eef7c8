"""Baselines are called baselines, and fractions are written in percent."""

import pytest

from radiodino_utils.evaluation.labels import label_of, percent


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("random-b16", "random-b16 (random weights)"),
        ("pixels", "pixels (no backbone)"),
        ("radiodino-s16", "radiodino-s16"),
    ],
)
def test_baselines_are_called_baselines(name, label):
    assert label_of(name) == label


def test_percent_of_one_image():
    nan = float("nan")
    assert percent(0.481, 0.438, 0.525, digits=1) == "48.1 [43.8, 52.5]"
    assert percent(1.0, nan, nan, digits=1) == "100.0 [no interval]"
