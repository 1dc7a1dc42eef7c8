import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.few_shot import _drawn, classify_few_shot

from ..synthetic import synthetic_features


def test_every_number_draw_and_method_is_there():
    predictions = classify_few_shot(synthetic_features(), shots=(1, 5), draws=3)
    assert len(predictions) == 2 * 3 * 2
    assert {prediction.protocol for prediction in predictions} == {
        f"fewshot-{n}-{method}" for n in (1, 5) for method in ("knn", "logistic")
    }
    assert sorted({prediction.seed for prediction in predictions}) == [0, 1, 2]
    assert all(prediction.probabilities.sum(1) == pytest.approx(1) for prediction in predictions)


def test_more_labels_help_and_all_of_them_leave_no_choice():
    predictions = classify_few_shot(
        synthetic_features(noise=1.2), shots=(1, 20), draws=6, methods=("logistic",)
    )
    accuracies = {"fewshot-1-logistic": [], "fewshot-20-logistic": []}
    for prediction in predictions:
        is_right = prediction.probabilities.argmax(1) == prediction.labels
        accuracies[prediction.protocol].append(is_right.mean())
    few, all_labels = (np.mean(values) for values in accuracies.values())
    assert all_labels > few + 0.05
    last, before = predictions[-1], predictions[-2]  # both draw 20 of 20
    np.testing.assert_allclose(last.probabilities, before.probabilities, atol=1e-3)


@pytest.mark.parametrize("shots", [1, 5, 50])
def test_logistic_regressions_are_those_of_a_tight_solution(shots):
    features = synthetic_features(sizes={"train": 300, "val": 6, "test": 30}, width=384, noise=4.0)
    # like those of a backbone: far off the origin, and of very different scales
    for arrays in features.arrays.values():
        scaled = arrays["class_token"] * np.geomspace(0.05, 3, 384) + 5
        arrays["class_token"] = scaled.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        (ours,) = classify_few_shot(features, shots=(shots,), draws=1, methods=("logistic",))
    rows = _drawn(features, shots, np.random.default_rng([0, shots, 0]))
    bank, queries = (features.embedding(split).astype(np.float64) for split in ("train", "test"))
    # another solver on an easier problem: the mean moves the intercept alone, which has no penalty
    mean = bank[rows].mean(0)
    tight = LogisticRegression(C=384 * 3 / 100, solver="lbfgs", tol=1e-10, max_iter=100_000)
    tight.fit(bank[rows] - mean, features.labels["train"][rows])
    np.testing.assert_allclose(ours.probabilities, tight.predict_proba(queries - mean), atol=1e-3)


def test_backbones_see_the_same_images():
    first = classify_few_shot(synthetic_features(), shots=(2,), draws=2)
    second = classify_few_shot(synthetic_features(backbone="pixels"), shots=(2,), draws=2)
    for prediction, other in zip(first, second, strict=True):
        assert np.array_equal(prediction.probabilities, other.probabilities)


def test_neither_validation_nor_test_labels_are_used():
    features = synthetic_features()
    before = classify_few_shot(features, shots=(3,), draws=1)
    for split in ("val", "test"):
        features.labels[split][:] = 0
    after = classify_few_shot(features, shots=(3,), draws=1)
    assert all(
        np.array_equal(a.probabilities, b.probabilities) for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shots": (1, 21)},
            "made: 21 labels per class are asked for and the train split has 20 of 'class 0'",
        ),
        ({"shots": (0,)}, r"shots is \[0\]"),
        ({"methods": ("svm",)}, "unknown few-shot method 'svm'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        classify_few_shot(synthetic_features(), **options)
