"""Public lists of BUSI: who has them names their folder."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.busi_splits import busi_splits
from radiodino_utils.data.registry import dataset_place, load_dataset, missing_dataset
from radiodino_utils.data.segmentation import load_segmentation_dataset

TEST = ["benign (2)", "malignant (3)", "benign (14)"]


@pytest.fixture
def lists(busi, tmp_path, monkeypatch):
    """Write lists as they are published, with Windows line ends; return their folder."""
    lesions = [name for name in busi.names if not name.startswith("normal")]

    def write(test=TEST, *, train=None):
        train = [name for name in lesions if name not in TEST] if train is None else train
        for file, names in (("busi_train2.txt", train), ("busi_val2.txt", test)):
            (tmp_path / file).write_bytes("".join(f"{name}\r\n" for name in names).encode())
        monkeypatch.setenv("BUSI_LISTS", str(tmp_path))
        return tmp_path

    return write


def test_the_second_list_is_tested_and_a_tenth_of_the_first_validates(busi, lists):
    lists()
    splits = busi_splits(busi, "list2")
    assert [busi.names[row] for row in splits["test"]] == TEST
    rows = np.concatenate(list(splits.values()))
    assert sorted(rows) == np.flatnonzero(busi.labels > 0).tolist()
    assert 2 <= len(splits["val"]) <= 4
    train, val = (set(busi.groups[splits[name]]) for name in ("train", "val"))
    assert not train & val


def test_a_public_list_is_a_segmentation_dataset(busi_folder, lists, monkeypatch):
    lists()
    (dataset,) = load_segmentation_dataset("busi-list2", folder=busi_folder)
    assert (len(dataset), len(dataset.splits["test"]), dataset.unit) == (39, 3, "cluster")
    assert "public list2" in dataset.protocol and "duplicates" in dataset.caveat
    with pytest.raises(InputError, match="busi-list2: is a segmentation dataset; use load_seg"):
        load_dataset("busi-list2")


def test_what_a_list_needs_is_found_or_asked_for(busi_folder, lists, monkeypatch):
    assert "BUSI" in missing_dataset("busi-list2").hint
    monkeypatch.setenv("BUSI", str(busi_folder))
    assert "BUSI_LISTS" in missing_dataset("busi-list2").hint
    folder = lists()
    assert missing_dataset("busi-list2") is None
    files = (folder / "busi_train2.txt", folder / "busi_val2.txt")
    assert dataset_place("busi-list2") == (busi_folder, *files)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (["benign (999)"], r"busi_val2\.txt: 'benign \(999\)' is no image of BUSI; use"),
        (["benign (1)"], r"busi_val2\.txt: 'benign \(1\)' is listed already in busi_train2\.txt"),
        (["benign (2)"] * 2, r"busi_val2\.txt: 'benign \(2\)' is listed already in busi_val2\.txt"),
        ([], r"busi_val2\.txt: the list is empty; download the lists .* variable BUSI_LISTS"),
    ],
)
def test_lists_that_do_not_fit(busi, lists, test, message):
    lists(test)
    with pytest.raises(InputError, match=message):
        busi_splits(busi, "list2")


def test_a_missing_list(busi, lists):
    lists()
    with pytest.raises(InputError, match=r"busi_train1\.txt: the list is not there; download"):
        busi_splits(busi, "list1")


@pytest.mark.data
def test_the_public_lists_divide_the_real_images(shared_data, monkeypatch):
    folder = shared_data / "busi-lists"
    if not folder.is_dir():
        pytest.skip(f"no public lists: {folder} is not there")
    monkeypatch.setenv("BUSI_LISTS", str(folder))
    for number in (1, 2, 3):
        (dataset,) = load_segmentation_dataset(f"busi-list{number}", folder=shared_data / "busi")
        assert len(dataset.splits["test"]) == 195
        assert len(dataset.splits["train"]) + len(dataset.splits["val"]) == 452
