from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import ImageDataset, Split
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.results import classification_rows
from radiodino_utils.plots.classification import (
    confusion_matrices,
    forest,
    metric_bars,
    sample_sheet,
)
from radiodino_utils.plots.style import save_figure

from ..synthetic import synthetic_features


def tick_labels(ticks):
    return [label.get_text() for label in ticks]


def test_every_class_is_named_beside_the_confusion_matrix(features):
    predictions = [classify_knn(part, ks=(1, 5)) for part in features[:3]]
    figure = confusion_matrices(predictions)
    figure.canvas.draw()
    matrices = figure.axes[:3]
    classes = list(features[0].classes)
    assert tick_labels(matrices[0].get_yticklabels()) == classes
    for axis in matrices:
        assert tick_labels(axis.get_xticklabels()) == classes
    assert "k = " in matrices[0].get_title()
    boxes = [axis.get_window_extent() for axis in matrices]
    assert len({(round(box.width), round(box.height)) for box in boxes}) == 1


def test_confusion_is_in_percent_of_the_true_class(features):
    prediction = classify_knn(features[0], protocol="knn11")
    mesh = confusion_matrices([prediction]).axes[0].collections[0]
    percent = mesh.get_array().reshape(12, 12)
    np.testing.assert_allclose(percent.sum(1), 100)
    correct = np.mean(prediction.probabilities.argmax(1)[prediction.labels == 0] == 0)
    assert percent[0, 0] == pytest.approx(100 * correct)


def test_only_a_choice_on_validation_is_called_so(features):
    figure = confusion_matrices([classify_knn(features[0], protocol="knn1")])
    assert "validation" not in figure.get_suptitle() and "k = 1" in figure.axes[0].get_title()


def test_bars_show_the_interval_itself(features):
    results = classification_rows(classify_knn(features[0], ks=(5,)), resamples=50)
    # a percentile interval need not hold the value
    results[["value", "ci_low", "ci_high"]] = (0.5, 0.55, 0.6)
    segment = metric_bars(results).axes[0].collections[0].get_segments()[0]
    np.testing.assert_allclose(segment[:, 0], [55, 60])


def test_bars_are_of_the_test_split_only(features):
    results = classification_rows(classify_knn(features[0], ks=(5,)), resamples=50)
    both = pd.concat([results, results.assign(split="val", value=0.0)], ignore_index=True)
    point = metric_bars(both).axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(point, 100 * results["value"].iloc[0])
    with pytest.raises(InputError, match="protocol linear: there are no result rows"):
        metric_bars(both, protocol="linear")


def test_dollars_and_long_names_are_drawn_as_they_are(tmp_path):
    names = ("$\\frac", "a$b$c", "<b>x</b>", "_x_", "", "n" * 200)
    labels = np.arange(12) % 6
    prediction = classify_knn(synthetic_features(), protocol="knn1")
    prediction = replace(prediction, classes=names, labels=labels, positive="")
    prediction = replace(prediction, probabilities=np.eye(6)[labels], ids=list("abcdefghijkl"))
    figure = confusion_matrices([prediction])
    shown = tick_labels(figure.axes[0].get_xticklabels())
    assert shown[:5] == list(names[:5]) and shown[5].endswith("…") and len(shown[5]) == 40
    save_figure(figure, tmp_path, "confusion")
    train = Split(np.zeros((12, 4, 4), np.uint8), labels, prediction.ids)
    dataset = ImageDataset("synthetic $x", names, {"train": train}, "")
    save_figure(sample_sheet(dataset), tmp_path, "samples")


def test_thousands_of_classes_are_drawn_in_bounds():
    classes, n = 5000, 6000
    labels = np.r_[np.arange(classes), np.zeros(n - classes, np.int64)]
    names = tuple(f"class {i}" for i in range(classes))
    probabilities = np.zeros((n, classes), np.float32)
    probabilities[np.arange(n), np.roll(labels, 1)] = 1
    prediction = classify_knn(synthetic_features(), protocol="knn1")
    prediction = replace(prediction, classes=names, labels=labels, probabilities=probabilities)
    ticks = tick_labels(confusion_matrices([prediction]).axes[0].get_yticklabels())
    assert len(ticks) == 25 and ticks[0] == "class 0" and ticks[-1] == "4976 other classes"
    train = Split(np.zeros((n, 4, 4), np.uint8), labels, names)
    sheet = sample_sheet(ImageDataset("synthetic", names, {"train": train}, ""))
    assert len(sheet.axes) == 24 * 8 and "the 24 largest of 5000 classes" in sheet.get_suptitle()


def test_the_forest_sets_measured_beside_published_on_the_same_line():
    features = synthetic_features(dataset="breastmnist-224", backbone="pixels")
    prediction = classify_knn(features, protocol="knn11")
    axis = forest(classification_rows(prediction, resamples=50), protocol="knn11").axes[0]
    published, measured = axis.lines
    names = tick_labels(axis.get_yticklabels())
    accuracy = published.get_xdata()[names.index("BreastMNIST, accuracy (small)")]
    assert accuracy == pytest.approx(91.67)
    assert measured.get_ydata() == pytest.approx([0, 1, 2])
    assert measured.get_label() == "pixels (no backbone)"
