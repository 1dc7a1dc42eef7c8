import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.folds import in_folds
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.pooling import patient_level, pool
from radiodino_utils.evaluation.predictions import joined_folds
from radiodino_utils.evaluation.results import classification_rows

from ..synthetic import synthetic_features
from .test_folds import own_features


def grouped_features():
    """Return features whose patients have two images of one class each, not side by side."""
    features = synthetic_features(unit="patient", groups_from="PatientID", noise=2.0)
    for split, labels in features.labels.items():
        rank = np.zeros(len(labels), int)
        for label in range(3):
            rank[labels == label] = np.arange((labels == label).sum())
        features.groups[split] = [
            f"{split} {label}.{number // 2}" for label, number in zip(labels, rank, strict=True)
        ]
    return features


@pytest.mark.parametrize("how", ["mean", "max", "median"])
def test_probabilities_of_a_patient_are_pooled(how):
    prediction = classify_knn(grouped_features(), protocol="knn-k20")
    pooled = pool(prediction, how=how)
    assert pooled.protocol == f"knn-k20 (patient {how})"
    assert (len(pooled.labels), pooled.n, pooled.units) == (15, 15, 15)
    assert prediction.val_accuracy is not None and pooled.val_accuracy is None
    for row, name in enumerate(pooled.ids):
        members = np.array(prediction.groups) == name
        expected = getattr(np, how)(prediction.probabilities[members], axis=0)
        np.testing.assert_allclose(pooled.probabilities[row], expected / expected.sum(), atol=1e-6)
        assert set(prediction.labels[members]) == {pooled.labels[row]}
    rows = classification_rows(pooled, resamples=20)
    assert set(rows["unit"]) == {"patient"} and set(rows["n"]) == set(rows["units"]) == {15}


def test_embeddings_of_a_patient_are_pooled_and_can_be_classified():
    features = grouped_features()
    pooled = pool(features)
    assert {split: len(ids) for split, ids in pooled.ids.items()} == {
        "train": 30,
        "val": 12,
        "test": 15,
    }
    name = pooled.ids["val"][3]
    members = np.array(features.groups["val"]) == name
    np.testing.assert_allclose(
        pooled.embedding("val")[3], features.embedding("val")[members].mean(0), rtol=1e-6
    )
    assert pooled.embedding("val").dtype == np.float32
    assert classify_knn(pooled).units == 15


def test_each_repeat_of_a_cross_validation_is_pooled_for_itself():
    folds = in_folds([own_features(unit="patient")], folds=3, repeats=2)
    (joined,) = joined_folds(classify_knn(fold, protocol="knn1") for fold in folds)
    pooled = pool(joined)
    assert (len(pooled.labels), pooled.n, pooled.units) == (60, 30, 30)
    (before,) = joined_folds(pool(classify_knn(fold, protocol="knn1")) for fold in folds)
    assert before.ids == pooled.ids
    np.testing.assert_allclose(before.probabilities, pooled.probabilities)


def test_what_cannot_be_pooled_is_refused_in_a_sentence():
    prediction = classify_knn(grouped_features())
    with pytest.raises(InputError, match="unknown pooling 'sum'"):
        pool(prediction, how="sum")
    with pytest.raises(InputError, match="made: the groups of the test split are not known"):
        pool(classify_knn(synthetic_features()))
    features = grouped_features()
    features.groups.pop("val")
    with pytest.raises(InputError, match="made: the groups of the val split are not known"):
        pool(features)
    prediction.groups[:] = ["p1"] * 30
    with pytest.raises(InputError, match="made: the patient 'p1' has images of several classes"):
        pool(prediction)
    own = in_folds([synthetic_features(sizes={"all": 90})])
    (joined,) = joined_folds(classify_knn(fold, protocol="knn1") for fold in own)
    with pytest.raises(InputError, match="the groups of the test split are not known"):
        pool(joined)


def test_rows_of_patients_are_made_where_every_patient_has_one_class(capsys):
    prediction, plain = classify_knn(grouped_features()), classify_knn(synthetic_features())
    assert [entry.protocol for entry in patient_level([prediction, plain])] == [
        "knn (patient mean)"
    ]
    prediction.groups[:] = ["p1"] * 30
    assert patient_level([prediction]) == []
    assert "No rows of patients: made: the patient 'p1'" in capsys.readouterr().out
