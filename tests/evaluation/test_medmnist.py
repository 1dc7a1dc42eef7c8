"""Predictions on MedMNIST's datasets become files for its evaluator; no others do."""

from dataclasses import replace

from radiodino_utils.evaluation import classify_knn, deduplicated, write_for_medmnist

from ..synthetic import synthetic_features


def test_only_official_predictions_on_medmnists_datasets_are_written(tmp_path) -> None:
    other = classify_knn(synthetic_features(classes=2, dataset="breastmnist-of-mine"))
    official = classify_knn(synthetic_features(classes=2, dataset="breastmnist-224"))
    twins = {"breastmnist-224": {"test": [0, 1]}}
    tuned = replace(official, protocol="finetune", seed=3)
    paths = write_for_medmnist([other, official, *deduplicated([official], twins), tuned], tmp_path)
    assert [path.name.partition("@")[2] for path in paths] == [
        "knn-random-t16-0.csv",
        "finetune-random-t16-3.csv",
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
