"""Splits of BUSI, and its classes as a labelled dataset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.busi import CLASSES, read_busi
from radiodino_utils.data.busi_splits import FOLDS, busi_splits
from radiodino_utils.data.registry import load_dataset

from ..synthetic_busi import synthetic_busi


@given(
    seed=st.integers(0, 1000),
    fold=st.integers(0, FOLDS - 1),
    protocol=st.sampled_from(["folds", "lesions"]),
)
def test_splits_are_disjoint_and_keep_duplicates_together(busi, seed, fold, protocol):
    splits = busi_splits(busi, protocol, seed=seed, fold=fold)
    rows = np.concatenate(list(splits.values()))
    whole = np.flatnonzero(busi.labels > 0) if protocol == "lesions" else np.arange(len(busi))
    assert sorted(rows) == whole.tolist()
    groups = [set(busi.groups[part]) for part in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(set(busi.labels[part]) == set(busi.labels[whole]) for part in splits.values())


def test_every_image_is_tested_once_in_five_folds(busi):
    tested = np.concatenate(
        [busi_splits(busi, "folds", fold=fold)["test"] for fold in range(FOLDS)]
    )
    assert sorted(tested) == list(range(len(busi)))


def test_a_fold_is_a_labelled_dataset(busi_folder):
    dataset = load_dataset("busi-fold1", folder=busi_folder)
    busi = read_busi(busi_folder)
    rows = busi_splits(busi, "folds", fold=1)
    assert dataset.classes == CLASSES
    for name, split in dataset.splits.items():
        assert list(split.ids) == [busi.names[row] for row in rows[name]]
        assert split.labels.tolist() == busi.labels[rows[name]].tolist()
        assert np.array_equal(split.images[0], busi.images[rows[name][0]])
    assert load_dataset("busi-fold2", folder=busi_folder).digest != dataset.digest
    assert list(load_dataset("busi", folder=busi_folder).splits) == ["all"]


def test_unknown_protocols_and_folds(busi):
    with pytest.raises(InputError, match="unknown split of BUSI 'fold'; did you mean folds"):
        busi_splits(busi, "fold")
    with pytest.raises(InputError, match="fold 5: there are 5 folds, 0 to 4"):
        busi_splits(busi, "folds", fold=5)
    with pytest.raises(
        InputError,
        match="741 of BreastMNIST's images are missing, first 'normal.*; use the whole release",
    ):
        busi_splits(busi, "breastmnist")


def test_a_class_that_is_too_small(tmp_path):
    small = read_busi(synthetic_busi(tmp_path / "small", counts=(1, 8, 8)))
    with pytest.raises(
        InputError,
        match="5 parts need 5 clusters of each class, and the class 'normal' has 1",
    ):
        busi_splits(small, "folds")


@pytest.mark.data
def test_the_real_release_carries_breastmnists_split(shared_data):
    busi = read_busi(shared_data / "busi")
    assert np.bincount(busi.labels).tolist() == [133, 437, 210]
    assert sum(len(files) for files in busi.masks.files) == 798
    assert sum(mask.any() for mask in busi.masks) == 647
    groups = dict(zip(busi.names, busi.groups, strict=True))
    assert groups["malignant (145)"] == groups["benign (433)"]
    breastmnist = load_dataset("breastmnist-28", folder=shared_data / "medmnist")
    for name, rows in busi_splits(busi, "breastmnist").items():
        assert np.array_equal(
            busi.labels[rows] != CLASSES.index("malignant"), breastmnist.splits[name].labels == 1
        )
