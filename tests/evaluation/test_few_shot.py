import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.few_shot import _drawn, classify_few_shot

from ..synthetic import synthetic_features


def test_every_number_draw_and_method_is_there():
    found = classify_few_shot(synthetic_features(), shots=(1, 5), draws=3)
    assert len(found) == 2 * 3 * 2
    assert {one.protocol for one in found} == {
        f"fewshot-{n}-{method}" for n in (1, 5) for method in ("knn", "logistic")
    }
    assert sorted({one.seed for one in found}) == [0, 1, 2]
    assert all(one.probabilities.sum(1) == pytest.approx(1) for one in found)


def test_more_labels_help_and_all_of_them_leave_no_choice():
    found = classify_few_shot(
        synthetic_features(noise=1.2), shots=(1, 20), draws=6, methods=("logistic",)
    )
    accuracy = {
        n: np.mean(
            [
                (p.probabilities.argmax(1) == p.labels).mean()
                for p in found
                if f"-{n}-" in p.protocol
            ]
        )
        for n in (1, 20)
    }
    assert accuracy[20] > accuracy[1] + 0.05
    whole = [
        one.probabilities for one in found if one.protocol == "fewshot-20-logistic"
    ]  # 20 of 20
    np.testing.assert_allclose(whole[0], whole[1], atol=1e-3)


@pytest.mark.parametrize("shots", [1, 5, 50])
def test_logistic_regressions_are_those_of_a_tight_solution(shots):
    features = synthetic_features(sizes={"train": 300, "val": 6, "test": 30}, width=384, noise=4.0)
    for one in (
        features.arrays.values()
    ):  # as of a backbone: far off the origin, and of very different scales
        one["class_token"] = (one["class_token"] * np.geomspace(0.05, 3, 384) + 5).astype(
            np.float32
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        (found,) = classify_few_shot(features, shots=(shots,), draws=1, methods=("logistic",))
    rows = _drawn(features, shots, np.random.default_rng([0, shots, 0]))
    bank, queries = (features.embedding(split).astype(np.float64) for split in ("train", "test"))
    mean = bank[rows].mean(
        0
    )  # moves the intercept alone, which has no penalty; another solver, on a kinder problem
    tight = LogisticRegression(C=384 * 3 / 100, solver="lbfgs", tol=1e-10, max_iter=100_000)
    expected = tight.fit(bank[rows] - mean, features.labels["train"][rows]).predict_proba(
        queries - mean
    )
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)


def test_backbones_see_the_same_images():
    one, other = synthetic_features(), synthetic_features(backbone="pixels")
    first, second = (classify_few_shot(each, shots=(2,), draws=2) for each in (one, other))
    assert all(
        np.array_equal(a.probabilities, b.probabilities) for a, b in zip(first, second, strict=True)
    )


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
