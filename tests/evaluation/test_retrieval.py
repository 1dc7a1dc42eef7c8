import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.results import COLUMNS, wide_table
from radiodino_utils.evaluation.retrieval import retrieval_rows, retrieval_scores, retrieve

from ..synthetic import synthetic_features


def test_the_nearest_image_of_a_training_image_is_itself():
    features = synthetic_features()
    found = retrieve(features, 2 * features.embedding("train")[7], k=3)
    assert found["row"][0] == 7 and found["id"][0] == "train/7"
    assert found["distance"].iloc[0] == pytest.approx(0, abs=1e-6)
    assert found["distance"].is_monotonic_increasing and len(found) == 3
    assert found["class"][0] == features.classes[features.labels["train"][7]]


def test_an_embedding_of_another_width_is_an_error():
    with pytest.raises(InputError, match="different backbones"):
        retrieve(synthetic_features(), np.zeros(3, np.float32))


def test_precision_is_the_share_of_neighbours_of_the_same_class():
    features = synthetic_features(noise=2.0)
    scores = retrieval_scores([features], ks=(1, 5))
    unit = {split: features.embedding(split) for split in ("train", "test")}
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in unit.items()}
    nearest = np.argsort(-unit["test"] @ unit["train"].T, axis=1)[:, :5]
    same = features.labels["train"][nearest] == features.labels["test"][:, None]
    np.testing.assert_allclose(scores["precision_at_5"], same.mean(1))
    rows = retrieval_rows(scores, seed=3)
    assert tuple(rows) == COLUMNS and (rows["n"] == 30).all() and (rows["unit"] == "image").all()
    one = rows[rows["metric"] == "precision_at_1"].iloc[0]
    assert one["value"] == pytest.approx(same[:, 0].mean())
    assert one["ci_low"] < one["value"] < one["ci_high"]
    assert "precision at 1 %" in wide_table(rows, metrics=["precision_at_1"])


def test_folds_are_one_dataset_and_groups_are_resampled():
    names = {"test": [f"patient {i // 10}" for i in range(30)]}
    folds = [
        synthetic_features(
            seed=i,
            dataset=f"made-fold{i}",
            **{"fold_of": "made-folds", "groups": names, "unit": "patient", "noise": 3.0},
        )
        for i in range(2)
    ]
    rows = retrieval_rows(retrieval_scores(folds, ks=(1,)))
    assert rows["dataset"].tolist() == ["made-folds"]
    assert rows[["unit", "units", "n"]].iloc[0].tolist() == ["patient", 3, 30]


def test_rows_follow_from_written_scores(tmp_path):
    scores = retrieval_scores([synthetic_features(), synthetic_features(backbone="pixels")])
    path = tmp_path / "scores.parquet"
    scores.to_parquet(path)
    pd.testing.assert_frame_equal(retrieval_rows(pd.read_parquet(path)), retrieval_rows(scores))
