from pathlib import Path

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.logistic import classify_logistic
from radiodino_utils.features.features import Features


def made(classes=3, noise=0.3, absent=None):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, 6))
    arrays, labels = {}, {}
    for split, count in (("train", 90), ("val", 30), ("test", 30)):
        labels[split] = np.arange(count) % classes
        if split == "train" and absent is not None:
            labels[split] = np.where(labels[split] == absent, 0, labels[split])
        features = centres[labels[split]] + noise * generator.normal(size=(count, 6))
        arrays[split] = {"class_token": features.astype(np.float32)}
    backbone = {"name": "made", "fingerprint": "0", "outputs": ["class_token"]}
    names = tuple(f"class {label}" for label in range(classes))
    return Features(
        "made",
        names,
        "",
        arrays,
        labels,
        {key: [""] * len(one) for key, one in labels.items()},
        {
            "backbone": backbone,
            "engine": "torch",
            "precision": "fp32",
            "seen_in_pretraining": "none",
        },
        Path(),
    )


def test_separable_classes_are_told_apart():
    found = classify_logistic(made())
    assert (found.probabilities.argmax(1) == found.labels).mean() > 0.95
    assert found.probabilities.sum(1) == pytest.approx(1)
    assert found.protocol == "logistic" and found.choice["C"] > 0


def test_a_class_that_the_train_split_lacks():
    found = classify_logistic(made(absent=1), strengths=(0.1, 1.0))
    assert found.probabilities.shape == (30, 3)
    assert (found.probabilities[:, 1] == 0).all()


def test_class_weights_favour_the_rare_class():
    features = made(classes=2, noise=2.5)
    features.labels["train"][:] = (
        np.arange(90) % 9 == 0
    )  # labels by chance: the weights alone decide
    plain, balanced = (
        classify_logistic(features, strengths=(1e-4,), balanced=one) for one in (False, True)
    )
    assert (plain.protocol, balanced.protocol) == ("logistic", "logistic-balanced")
    assert balanced.probabilities[:, 1].mean() > plain.probabilities[:, 1].mean() + 0.2


def test_a_train_split_of_one_class_and_a_missing_split():
    features = made(classes=2)
    features.labels["train"][:] = 0
    with pytest.raises(
        InputError, match="made: all images of the train split are of one class; a probe needs two"
    ):
        classify_logistic(features)
    del features.labels["val"]
    with pytest.raises(
        InputError, match="made: has no split val; the logistic probe chooses C on val"
    ):
        classify_logistic(features)
