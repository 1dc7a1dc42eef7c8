from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from medmnist import Evaluator

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.metrics import classification_metrics
from radiodino_utils.evaluation.predictions import joined_folds, prediction, write_medmnist
from radiodino_utils.evaluation.results import classification_rows

from ..synthetic import synthetic_features


def test_labels_and_ids_are_those_of_the_split():
    features = synthetic_features(caveat="one patient")
    probabilities = np.full((24, 3), 1 / 3)
    one = prediction(
        features, protocol="knn", split="val", probabilities=probabilities, choice={"k": 5}
    )
    assert one.labels is features.labels["val"] and one.ids == features.ids["val"]
    assert (one.dataset, one.backbone, one.weights, one.caveat) == (
        "made",
        "random-t16",
        "0123456789ab",
        "one patient",
    )
    assert (one.protocol, one.split, one.classes, one.choice) == (
        "knn",
        "val",
        features.classes,
        {"k": 5},
    )
    assert (
        np.array_equal(one.probabilities, probabilities.astype(np.float32))
        and one.probabilities.dtype == np.float64
    )


PAIRS = [
    ("COVID", "Normal"),
    ("abnormal", "healthy"),
    ("Tumor", "no_tumor"),
    ("cancer", "control"),
    ("0_normal", "1_abnormal"),
]


@pytest.mark.parametrize("classes", PAIRS)
def test_the_positive_class_is_the_declared_one_and_else_the_last(classes):
    for declared, expected in (
        ("", classes[1]),
        (classes[0], classes[0]),
        (classes[1], classes[1]),
    ):
        one = classify_knn(synthetic_features(classes=2, noise=3.0), protocol="knn1")
        one = replace(one, classes=classes, positive=declared)
        assert (one.positive, one.classes[one.positive_label]) == (expected, expected)
        rows = classification_rows(one, resamples=10).set_index("metric")
        hit = one.probabilities.argmax(1) == one.labels
        assert rows.loc["sensitivity", "value"] == pytest.approx(
            hit[one.labels == classes.index(expected)].mean()
        )
        assert set(rows["positive"]) == {expected}


def test_a_positive_class_must_be_one_of_two():
    with pytest.raises(
        InputError,
        match="made: positive class 'x': it must be one of exactly two classes; .* 2: a, b",
    ):
        replace(classify_knn(synthetic_features(classes=2)), classes=("a", "b"), positive="x")
    with pytest.raises(
        InputError,
        match="positive class 'class 0': it must be one of exactly two classes; the dataset has 3",
    ):
        classify_knn(synthetic_features(positive="class 0"))
    assert classify_knn(synthetic_features()).positive == ""


def busi_fold(number, **changes):
    name = f"busi-fold{number}"
    return synthetic_features(seed=number, dataset=name, fold_of="busi-folds", **changes)


def test_folds_become_one_prediction_in_their_order():
    folds = [
        classify_knn(
            synthetic_features(seed=seed, dataset=f"busi-fold{seed}", fold_of="busi-folds"),
            protocol="knn1",
        )
        for seed in (1, 0)
    ]
    other = classify_knn(synthetic_features(), protocol="knn1")
    joined, same = joined_folds([*folds, other])
    assert same is other and joined.dataset == "busi-folds" and joined.choice == {"k": 1}
    assert np.array_equal(joined.labels, np.concatenate([folds[1].labels, folds[0].labels]))
    assert (
        np.array_equal(joined.probabilities[30:], folds[0].probabilities)
        and joined.ids[:30] == folds[1].ids
    )


def test_the_validation_score_of_folds_is_their_mean_if_all_have_one():
    folds = [classify_knn(busi_fold(number, noise=2.0 + number)) for number in (0, 1)]
    scores = [fold.val_accuracy for fold in folds]
    assert None not in scores and scores[0] != scores[1]
    (joined,) = joined_folds(folds)
    assert joined.val_accuracy == pytest.approx(sum(scores) / 2)
    (joined,) = joined_folds([folds[0], replace(folds[1], val_accuracy=None)])
    assert joined.val_accuracy is None


def test_a_path_that_looks_like_a_fold_is_none():
    names = [f"folder:/data/study-fold{fold}/images" for fold in (0, 1)] + [
        "npz:/data/own-fold1",
        "npz:/data/own-fold2",
    ]
    made = [
        classify_knn(synthetic_features(seed=seed, dataset=name), protocol="knn1")
        for seed, name in enumerate(names)
    ]
    assert [joined.dataset for joined in joined_folds(made)] == names


def test_what_is_pooled_over_folds_says_so():
    folds = []
    for fold, seen in enumerate(("none", "unlabelled test")):
        features = synthetic_features(
            seed=fold, dataset=f"busi-fold{fold}", fold_of="busi-folds", caveat="one hospital"
        )
        sidecar = features.sidecar | {"seen_in_pretraining": seen}
        folds.append(classify_knn(replace(features, sidecar=sidecar), protocol="knn1"))
    (joined,) = joined_folds(folds)
    assert joined.caveat == "one hospital; pooled over 2 folds, AUC too"
    assert joined.seen_in_pretraining == "unlabelled test"


def test_folds_of_other_backbones_stay_apart():
    folds = [classify_knn(busi_fold(0, backbone=name)) for name in ("pixels", "random-t16")]
    assert [joined.backbone for joined in joined_folds(folds)] == ["pixels", "random-t16"]


def test_medmnists_own_evaluator_agrees_on_its_own_file(shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDMNIST", str(shared_data / "medmnist"))
    test = load_dataset("breastmnist-224").splits["test"]
    scores = np.random.default_rng(0).random(len(test))
    scores = np.clip(0.4 * test.labels + 0.6 * scores, 0, 1)
    features = synthetic_features(
        sizes={"train": 60, "val": 24, "test": len(test)}, classes=2, dataset="breastmnist-224"
    )
    probabilities = np.stack([1 - scores, scores], 1)
    made = prediction(features, protocol="logistic", split="test", probabilities=probabilities)
    made = replace(made, labels=test.labels)
    path = write_medmnist(made, tmp_path, run="logistic-file:a/b.c")
    assert path.name.startswith("breastmnist_224_test_[AUC]") and path.name.endswith(
        "@logistic-file-a-b-c.csv"
    )
    table = pd.read_csv(path, header=None, index_col=0)
    theirs = Evaluator(
        "breastmnist", "test", size=224, root=str(shared_data / "medmnist")
    ).evaluate(table.to_numpy())
    ours = classification_metrics(made.labels, made.probabilities, resamples=0)
    assert (ours["auc"].value, ours["accuracy"].value) == pytest.approx(
        (theirs.AUC, theirs.ACC), abs=1e-12
    )
    assert f"[AUC]{theirs.AUC:.3f}_[ACC]{theirs.ACC:.3f}" in path.name


def test_a_dataset_that_is_not_medmnists_has_no_such_file(tmp_path):
    with pytest.raises(InputError, match="made: MedMNIST's evaluator knows its own sets only"):
        write_medmnist(classify_knn(synthetic_features()), tmp_path, run="a")
    assert not list(tmp_path.glob("*.csv"))
