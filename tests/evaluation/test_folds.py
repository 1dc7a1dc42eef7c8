from dataclasses import replace

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.evaluation.folds import in_folds
from radiodino_utils.evaluation.knn import classify_knn, knn_curve
from radiodino_utils.evaluation.predictions import joined_folds
from radiodino_utils.evaluation.results import classification_rows, paired_table

from ..synthetic import synthetic_features

OWN = {"sizes": {"all": 90}, "dataset": "folder:own"}


def own_features(*, images=3, **changes):
    """Return features of 90 images without splits, whose patients have several images each."""
    features = synthetic_features(**OWN, **changes)
    order = np.argsort(features.labels["all"], kind="stable")
    groups = np.empty(90, object)
    groups[order] = [f"p{i // images}" for i in range(90)]
    features.groups["all"] = groups.tolist()
    return features


def test_features_without_splits_become_folds_and_others_stay(capsys):
    official = synthetic_features()
    own = own_features(unit="patient", groups_from="column patient_id")
    first, *folds = in_folds([official, own, own], folds=3, repeats=2)
    assert first is official and len(folds) == 2 * 6
    assert [fold.dataset for fold in folds[:6]] == [f"folder:own-fold{i}" for i in range(6)]
    assert capsys.readouterr().out == (
        "folder:own: 3 folds x 2, stratified by class, "
        "30 patients kept together (from column patient_id)\n"
    )
    for fold, again in zip(folds[:6], folds[6:], strict=True):
        patients = [set(fold.groups[split]) for split in ("train", "val", "test")]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 30
        assert np.array_equal(fold.embedding("test"), again.embedding("test"))
        rows = [own.ids["all"].index(name) for name in fold.ids["test"]]
        assert np.array_equal(fold.embedding("test"), own.embedding("all")[rows])


def test_rows_of_folds_name_the_unit_and_count_each_image_once():
    folds = in_folds([own_features(unit="patient", groups_from="PatientID")], folds=3, repeats=2)
    (joined,) = joined_folds(classify_knn(fold) for fold in folds)
    assert (joined.dataset, joined.n, joined.units, joined.folds) == ("folder:own", 90, 30, 6)
    assert joined.caveat == "pooled over 6 folds, AUC too"
    rows = classification_rows(joined, resamples=50)
    (facts,) = rows[["n", "unit", "units", "groups_from"]].drop_duplicates().to_numpy().tolist()
    assert facts == [90, "patient", 30, "PatientID"]
    paired = paired_table([joined, replace(joined, backbone="pixels")])
    assert set(paired["unit"]) == {"patient"} and set(paired["units"]) == {30}


def test_repeats_of_an_image_are_resampled_together_where_no_group_is_known():
    own = synthetic_features(**OWN, noise=3.0)
    (once,) = joined_folds(classify_knn(fold, protocol="knn1") for fold in in_folds([own]))
    rows = classification_rows(once, resamples=300).set_index("metric").loc["accuracy"]
    assert (rows["unit"], rows["units"], rows["n"]) == ("image", 90, 90)
    one = in_folds([own], repeats=1)
    (single,) = joined_folds(classify_knn(fold, protocol="knn1") for fold in one)
    single_rows = classification_rows(single, resamples=300).set_index("metric").loc["accuracy"]
    width, single_width = (row["ci_high"] - row["ci_low"] for row in (rows, single_rows))
    assert width > 0.75 * single_width  # three independent tests would have 0.58 of it


def test_curves_of_folds_are_joined_for_each_k_and_split():
    folds = in_folds([own_features()], folds=3, repeats=1)
    curve = [point for fold in folds for point in knn_curve(fold, ks=(1, 5))]
    joined = joined_folds(curve, by_choice=True)
    assert [(point.split, point.choice) for point in joined] == [
        (split, {"k": k}) for split in ("val", "test") for k in (1, 5)
    ]
    assert [point.n for point in joined[2:]] == [90, 90]


def test_a_dataset_is_divided_as_its_features_are():
    own = own_features()
    images = np.arange(90 * 4, dtype=np.uint8).reshape(90, 2, 2)
    split = Split(images, own.labels["all"], own.ids["all"], own.groups["all"])
    dataset = ImageDataset("folder:own", own.classes, {"all": split}, digest="1")
    parts = in_folds([dataset], folds=3, repeats=1)
    for part, fold in zip(parts, in_folds([own], folds=3, repeats=1), strict=True):
        assert part.name == fold.dataset and part.fold_of == fold.fold_of == "folder:own"
        for name in ("train", "val", "test"):
            assert part.splits[name].ids == fold.ids[name]
            assert part.splits[name].groups == fold.groups[name]
        row = own.ids["all"].index(part.splits["val"].ids[0])
        assert np.array_equal(part.splits["val"].images[0], images[row])
    assert len({part.digest for part in parts}) == 3


def test_one_patient_or_too_few_of_a_class_are_refused():
    own = own_features(images=90, unit="patient")
    with pytest.raises(InputError, match="folder:own: 3 parts need 3 patients of each class"):
        in_folds([own])
    few = own_features(images=8)
    assert len(in_folds([few], folds=10, repeats=1)) == 4
