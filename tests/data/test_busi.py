import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.busi import CLASSES, FOLDS, busi_splits, read_busi
from radiodino_utils.data.registry import load_dataset

from ..synthetic_busi import synthetic_busi, write_png


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_busi(
        tmp_path_factory.mktemp("busi") / "Dataset_BUSI_with_GT", counts=(12, 14, 13)
    )


@pytest.fixture(scope="module")
def busi(folder):
    return read_busi(folder.parent)


def test_images_masks_and_labels_belong_together(busi):
    assert busi.names[:2] == ("normal (1)", "normal (2)")
    assert busi.names[12] == "benign (1)"
    assert np.bincount(busi.labels).tolist() == [12, 14, 13]
    assert [CLASSES[label] for label in busi.labels] == [name.split()[0] for name in busi.names]
    for row in (0, 12, 13):
        assert busi.images[row].dtype == np.uint8
        assert busi.masks[row].dtype == bool
        assert busi.images[row].shape == busi.masks[row].shape == (40, 48)
    assert not busi.masks[0].any()
    assert busi.masks[12].sum() == 6 * 10 + 5 * 10  # both masks
    assert busi.masks[13].sum() == 7 * 10


def test_grey_and_colour_files_give_the_same(busi, tmp_path):
    grey = read_busi(synthetic_busi(tmp_path / "grey", counts=(12, 14, 13), colour=False))
    assert all(np.array_equal(grey.images[row], busi.images[row]) for row in range(len(busi)))
    assert np.array_equal(grey.masks[12], busi.masks[12])


def test_the_folder_comes_from_the_environment(folder, monkeypatch, data_folder):
    with pytest.raises(
        InputError,
        match=r"busi: BUSI is not there .*; download it from https://.* environment variable BUSI",
    ):
        read_busi()
    monkeypatch.setenv("BUSI", str(folder))
    assert len(read_busi()) == 39


def test_duplicates_share_a_group(busi):
    first, last = busi.names.index("benign (1)"), busi.names.index("malignant (13)")
    assert busi.groups[first] == busi.groups[last]
    assert len(np.unique(busi.groups)) == len(busi) - 1


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


def test_a_fold_is_a_labelled_set(folder):
    dataset = load_dataset("busi-fold1", folder=folder)
    busi = read_busi(folder)
    rows = busi_splits(busi, "folds", fold=1)
    assert dataset.classes == CLASSES
    for name, split in dataset.splits.items():
        assert list(split.ids) == [busi.names[row] for row in rows[name]]
        assert split.labels.tolist() == busi.labels[rows[name]].tolist()
        assert np.array_equal(split.images[0], busi.images[rows[name][0]])
    assert load_dataset("busi-fold2", folder=folder).digest != dataset.digest
    assert list(load_dataset("busi", folder=folder).splits) == ["all"]


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
        InputError, match="1 images of 'normal' that are no duplicates; 5 parts need as many"
    ):
        busi_splits(small, "folds")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "benign (2)_mask.png").unlink(),
            r"benign \(2\)\.png: the image has no mask",
        ),
        (
            lambda folder: write_png(folder / "benign (2)_mask.png", np.zeros((40, 40), np.uint8)),
            r"the mask is .* and its image .*must be of one size",
        ),
        (
            lambda folder: (folder / "benign (2)_mask.png").write_bytes(b"text"),
            r"benign \(2\)_mask\.png: not a image",
        ),
        (
            lambda folder: [
                path.rename(path.with_suffix(".bmp")) for path in folder.parent.rglob("*.png")
            ],
            "holds no images named",
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, damage, message):
    folder = synthetic_busi(tmp_path / "busi", counts=(2, 3, 2))
    damage(folder / "benign")
    with pytest.raises(InputError, match=message):
        read_busi(folder)


def test_a_mask_with_unknown_values(tmp_path):
    folder = synthetic_busi(tmp_path / "busi", counts=(2, 3, 2))
    write_png(folder / "benign" / "benign (2)_mask.png", np.full((40, 48), 128, np.uint8))
    busi = read_busi(folder)
    with pytest.raises(
        InputError,
        match=r"benign \(2\)_mask\.png: the mask holds the values 128; only 0 and 255 are known",
    ):
        busi.masks[busi.names.index("benign (2)")]


@pytest.mark.data
def test_the_real_set_carries_breastmnists_split(shared_data):
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
