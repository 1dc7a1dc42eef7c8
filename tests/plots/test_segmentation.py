from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.evaluation.segmentation.metrics import EMPTY_RULES, score_images
from radiodino_utils.evaluation.segmentation.results import segmentation_rows
from radiodino_utils.plots import segmentation as figures
from tests.evaluation.segmentation.test_metrics import predicted

from ..synthetic_segmentation import synthetic_segmentation
from .text_boxes import require_room


@pytest.fixture(scope="module")
def synthetic_scores():
    """A segmentation that errs more and more, its scores, those of two backbones, and results."""
    dataset = synthetic_segmentation(
        counts={"train": 1, "val": 1, "test": 9},
        classes=4,
        caveat="one patient",
        spacing_mm=(0.7, 0.7),
    )
    masks = [np.roll(dataset.mask(row), 2 * row, axis=0) for row in dataset.splits["test"]]
    segmentation = predicted(dataset, masks)
    scores = score_images(segmentation)
    all_scores = pd.concat(
        [scores.assign(backbone=name) for name in ("random-t16", "pixels")], ignore_index=True
    )
    curve = pd.concat([all_scores.assign(labelled=n) for n in (4, 12, 36)], ignore_index=True)
    return segmentation, scores, all_scores, segmentation_rows(curve, resamples=20)


@pytest.fixture(scope="module")
def drawn(synthetic_scores):
    segmentation, scores, all_scores, curve = synthetic_scores
    return {
        "case_sheet": lambda: figures.case_sheet(segmentation, scores),
        "dice_by_class": lambda: figures.dice_by_class(all_scores),
        "dice_by_size": lambda: figures.dice_by_size(all_scores, spacing_mm=(0.7, 0.7)),
        "learning_curve": lambda: figures.learning_curve(curve),
        "probe_bars": lambda: figures.probe_bars(curve[curve["labelled"] == 36]),
    }


NAMES = ["case_sheet", "dice_by_class", "dice_by_size", "learning_curve", "probe_bars"]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_lies_on_another_or_beyond_the_edge(drawn, name):
    require_room(drawn[name]())


@pytest.mark.parametrize("count", [2, 3, 12, 60])
@pytest.mark.parametrize("name", ["case_sheet", "dice_by_class", "dice_by_size"])
def test_there_is_room_for_any_number_of_classes(name, count):
    dataset = synthetic_segmentation(
        counts={"train": 1, "val": 1, "test": 4},
        classes=1 + count,
        ids=[f"series of a patient/image {row}.png" for row in range(6)],
    )
    names = (f"structure {i} of the body" for i in range(count))
    dataset = replace(dataset, classes=("background", *names))
    segmentation = predicted(dataset, [dataset.mask(row) for row in dataset.splits["test"]])
    scores = score_images(segmentation, outlines=False)
    backbones = ("random-t16", "pixels", "radiodino-mini", "efficientnet-lite0")
    several = pd.concat([scores.assign(backbone=name) for name in backbones], ignore_index=True)
    draw = {
        "case_sheet": lambda: figures.case_sheet(segmentation, scores),
        "dice_by_class": lambda: figures.dice_by_class(several),
        "dice_by_size": lambda: figures.dice_by_size(several),
    }
    require_room(draw[name]())


@pytest.mark.parametrize("name", NAMES)
def test_the_caveat_and_the_rule_for_empty_masks_are_said(drawn, name):
    said = drawn[name]().get_suptitle().replace("\n", " ")
    assert EMPTY_RULES["skip"] in said
    assert "one patient" in said


def test_the_cases_are_the_best_the_median_and_the_worst(synthetic_scores, drawn):
    ranked = figures.image_dice(synthetic_scores[1])["dice"].sort_values(ascending=False).to_numpy()
    labels = [axis.get_ylabel() for axis in drawn["case_sheet"]().axes[::4]]
    assert [label.split("\n")[0] for label in labels] == ["best", "median", "worst"]
    assert [label.split("Dice ")[1] for label in labels] == [
        f"{100 * ranked[i]:.0f} %" for i in (0, 4, 8)
    ]


def test_an_image_keeps_its_aspect(drawn):
    figure = drawn["case_sheet"]()
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(64 / 48, rel=0.02)


def test_pixels_that_are_not_square_are_shown_at_their_proportions(synthetic_scores):
    segmentation, scores = synthetic_scores[:2]
    dataset = replace(segmentation.dataset, spacing_mm=(3.0, 1.0))
    figure = figures.case_sheet(replace(segmentation, dataset=dataset), scores)
    assert {axis.get_aspect() for axis in figure.axes[:4]} == {3.0}


def test_the_curve_passes_through_its_rows(synthetic_scores, drawn):
    results = synthetic_scores[3]
    pixels = results[(results["metric"] == "dice") & (results["backbone"] == "pixels")]
    line = drawn["learning_curve"]().axes[0].lines[1]
    assert line.get_xdata().tolist() == [4, 12, 36]
    np.testing.assert_allclose(line.get_ydata(), 100 * pixels["value"])
