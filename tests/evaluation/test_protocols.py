from dataclasses import replace

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation import protocols
from radiodino_utils.evaluation.predictions import prediction
from radiodino_utils.evaluation.protocols import classify, protocol_names, register_protocol

from ..synthetic import synthetic_features


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_names_itself(name):
    result = classify(synthetic_features(noise=0.2), name, iterations=100)
    assert result.protocol == name
    assert (result.probabilities.argmax(1) == result.labels).mean() > 0.9


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_is_scored_on_validation_by_the_same_model(name):
    features = synthetic_features(noise=2.0)
    result = classify(features, name, iterations=100)
    parts = [features.arrays, features.labels, features.ids]
    arrays, labels, ids = ({**part, "test": part["val"]} for part in parts)
    on_val = classify(
        replace(features, arrays=arrays, labels=labels, ids=ids), name, iterations=100
    )
    assert 0.3 < result.val_accuracy < 1
    assert result.val_accuracy == (on_val.probabilities.argmax(1) == on_val.labels).mean()


def test_without_a_validation_split_there_is_no_score_of_it():
    features = synthetic_features(sizes={"train": 60, "test": 30})
    assert classify(features, "knn11").val_accuracy is None


def test_an_unknown_protocol():
    with pytest.raises(InputError, match="unknown protocol 'lineer'; did you mean linear"):
        classify(synthetic_features(), "lineer")


def test_anything_but_features_is_one_sentence():
    with pytest.raises(
        InputError, match="features: expected the result of extract_features, got str"
    ):
        classify("breastmnist-28", "knn")


def test_a_registered_protocol_gets_the_options_that_it_declares(monkeypatch):
    monkeypatch.setattr(protocols, "_protocols", dict(protocols._protocols))

    def seeded_guess(features, *, seed):
        shape = len(features.labels["test"]), len(features.classes)
        probabilities = np.full(shape, 1 / shape[1])
        options = {"protocol": "guess", "split": "test", "seed": seed}
        return prediction(features, probabilities=probabilities, **options)

    register_protocol("guess", seeded_guess)
    result = classify(synthetic_features(), "guess", seed=3, iterations=7)
    assert (result.protocol, result.seed) == ("guess", 3)
    register_protocol("guess", seeded_guess)  # the same once more is harmless
    with pytest.raises(InputError, match="protocol knn: is registered already"):
        register_protocol("knn", seeded_guess)
    with pytest.raises(InputError, match="'guess' is no function of features"):
        register_protocol("other", "guess")
