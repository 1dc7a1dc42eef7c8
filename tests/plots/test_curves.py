from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.evaluation.few_shot import classify_few_shot
from radiodino_utils.evaluation.finetuning import FineTuned
from radiodino_utils.evaluation.knn import classify_knn, knn_curve
from radiodino_utils.evaluation.metrics import classification_metrics
from radiodino_utils.evaluation.results import classification_rows, curve_rows
from radiodino_utils.plots.curves import (
    few_shot_curves,
    k_curves,
    roc_and_reliability,
    tuning_curves,
)

from ..synthetic import synthetic_features


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_under_the_drawn_roc_is_the_auc(classes):
    features = synthetic_features(classes=classes, noise=1.5)
    prediction = classify_knn(features, protocol="knn11")
    line = roc_and_reliability([prediction]).axes[0].lines[0]
    area = np.trapezoid(line.get_ydata(), line.get_xdata()) / 100**2
    metrics = classification_metrics(prediction.labels, prediction.probabilities, resamples=0)
    assert area == pytest.approx(metrics["auc"].value, abs=0.02)


def test_few_shot_curves_show_the_mean_over_the_draws():
    predictions = classify_few_shot(synthetic_features(), shots=(1, 5), draws=3, methods=("knn",))
    results = pd.concat([classification_rows(each, resamples=0) for each in predictions])
    figure = few_shot_curves(results)
    is_five = (results["protocol"] == "fewshot-5-knn") & (results["metric"] == "accuracy")
    mean = results["value"][is_five].mean()
    assert figure.axes[0].lines[0].get_ydata()[1] == pytest.approx(100 * mean)
    assert "3 draws" in figure.get_suptitle()


def test_the_ring_is_at_the_epoch_that_was_kept():
    curve = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.5], "f1_macro": [0.2, 0.7, 0.6]})
    run = FineTuned(classify_knn(synthetic_features()), curve, Path("a"))
    ring = tuning_curves([run]).axes[1].lines[1]
    assert ring.get_xdata() == pytest.approx([2])
    assert ring.get_ydata() == pytest.approx([70])


def test_the_seeds_of_a_run_share_a_line_of_the_legend():
    curve = pd.DataFrame({"epoch": [1], "loss": [2.0], "f1_macro": [0.2]})
    run = FineTuned(classify_knn(synthetic_features()), curve, Path("a"))
    assert len(tuning_curves([run, run]).legends[0].get_texts()) == 1


def test_the_ring_is_at_the_k_that_was_chosen():
    features = synthetic_features(noise=2.0)
    curves = curve_rows(knn_curve(features, ks=(1, 5)))
    figure = k_curves(curves, {(features.dataset, features.backbone): 5})
    assert figure.axes[0].lines[1].get_xdata() == pytest.approx([5])


def test_more_backbones_than_colours_can_be_drawn():
    many = [synthetic_features(backbone=f"file:{i}", noise=2.0, seed=i) for i in range(9)]
    curves = curve_rows(part for features in many for part in knn_curve(features, ks=(1, 5)))
    assert len(k_curves(curves, {}).legends[0].get_texts()) == 9
