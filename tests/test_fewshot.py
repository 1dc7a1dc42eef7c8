import numpy as np
import pytest

from radiodino_utils.errors import InputError
from radiodino_utils.fewshot import classify_few_shot

from .made import made_features


def test_every_number_draw_and_method_is_there():
    found = classify_few_shot(made_features(), shots=(1, 5), draws=3)
    assert len(found) == 2 * 3 * 2
    assert {one.protocol for one in found} == {f"fewshot-{n}-{method}" for n in (1, 5) for method in ("knn", "logistic")}
    assert sorted({one.seed for one in found}) == [0, 1, 2]
    assert all(one.probabilities.sum(1) == pytest.approx(1) for one in found)


def test_more_labels_help_and_all_of_them_leave_no_choice():
    found = classify_few_shot(made_features(noise=1.2), shots=(1, 20), draws=6, methods=("logistic",))
    accuracy = {
        n: np.mean([(p.probabilities.argmax(1) == p.labels).mean() for p in found if f"-{n}-" in p.protocol]) for n in (1, 20)
    }
    assert accuracy[20] > accuracy[1] + 0.05
    whole = [one.probabilities for one in found if one.protocol == "fewshot-20-logistic"]  # 20 of 20
    np.testing.assert_allclose(whole[0], whole[1], atol=1e-3)


def test_backbones_see_the_same_pictures():
    one, other = made_features(), made_features(backbone="pixels")
    first, second = (classify_few_shot(each, shots=(2,), draws=2) for each in (one, other))
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(first, second, strict=True))


def test_neither_validation_nor_test_labels_are_used():
    features = made_features()
    before = classify_few_shot(features, shots=(3,), draws=1)
    for split in ("val", "test"):
        features.labels[split][:] = 0
    after = classify_few_shot(features, shots=(3,), draws=1)
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shots": (1, 21)},
            "made: 21 labels a class are asked for and the train split has 20 of 'class 0'; ask for fewer shots",
        ),
        ({"shots": (0,)}, r"shots is \[0\]"),
        ({"methods": ("svm",)}, "unknown few-shot method 'svm'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        classify_few_shot(made_features(), **options)
