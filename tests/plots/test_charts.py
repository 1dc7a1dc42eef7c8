"""Figures of protocols: what they show, not how they look."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from radiodino_utils.evaluation.few_shot import classify_few_shot
from radiodino_utils.evaluation.finetuning import FineTuned
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.metrics import classification_metrics
from radiodino_utils.evaluation.results import classification_rows
from radiodino_utils.plots.charts import few_shot_curves, forest, roc_and_reliability, tuning_curves

from ..synthetic import synthetic_features


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_under_the_drawn_roc_is_the_auc(classes):
    one = classify_knn(synthetic_features(classes=classes, noise=1.5), protocol="knn11")
    line = roc_and_reliability([one]).axes[0].lines[0]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    assert area == pytest.approx(
        classification_metrics(one.labels, one.probabilities, resamples=0)["auc"].value, abs=0.02
    )


def test_few_shot_curves_show_the_mean_over_the_draws():
    found = classify_few_shot(synthetic_features(), shots=(1, 5), draws=3, methods=("knn",))
    rows = pd.concat([classification_rows(one, resamples=0) for one in found])
    figure = few_shot_curves(rows)
    of_five = rows[(rows["protocol"] == "fewshot-5-knn") & (rows["metric"] == "accuracy")]["value"]
    assert figure.axes[0].lines[0].get_ydata()[1] == pytest.approx(100 * of_five.mean())
    assert "3 draws" in figure.get_suptitle()


def test_the_forest_sets_measured_beside_published_on_the_same_line():
    one = classify_knn(
        synthetic_features(dataset="breastmnist-224", backbone="pixels"), protocol="knn11"
    )
    axis = forest(classification_rows(one, resamples=50), protocol="knn11").axes[0]
    published, measured = axis.lines
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert published.get_xdata()[names.index("BreastMNIST, accuracy (small)")] == pytest.approx(
        91.67
    )
    assert (
        measured.get_ydata() == pytest.approx([0, 1, 2])
        and measured.get_label() == "pixels (no backbone)"
    )


def test_the_ring_is_at_the_epoch_that_was_kept():
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.5], "f1_macro": [0.2, 0.7, 0.6]})
    axis = tuning_curves([FineTuned(classify_knn(synthetic_features()), curve, Path("a"))]).axes[1]
    assert (axis.lines[1].get_xdata(), axis.lines[1].get_ydata()) == (
        pytest.approx([2]),
        pytest.approx([70]),
    )
