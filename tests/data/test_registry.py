"""Registered names, and datasets registered from outside the package."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data import registry
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.registry import (
    as_dataset,
    dataset_names,
    dataset_place,
    load_dataset,
    missing_dataset,
    register_dataset,
)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("organct-axal", "organct-axial"),
        ("brestmnist-224", "breastmnist-224"),
        ("organamnist_64", "organamnist-64"),
        ("OrganCT-axial", "organct-axial"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, nearest):
    with pytest.raises(InputError, match=rf"unknown dataset '{name}'; did you mean .*{nearest}"):
        load_dataset(name)


def test_the_registry():
    names = dataset_names()
    assert {
        "organct-axial",
        "organct-coronal",
        "organct-sagittal",
        "breastmnist-224",
        "organsmnist-28",
    } < set(names)
    assert not [name for name in names if "3d" in name or name.startswith("chestmnist")]
    with pytest.raises(InputError, match="nowhere"):
        load_dataset("npz:nowhere.npz")


@pytest.fixture
def registered(monkeypatch):
    """Register datasets for one test only."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def load_phantoms():
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    split = Split(images, labels, ["a", "b", "c", "d"])
    return ImageDataset("", ("empty", "full"), {"train": split, "test": split}, "phantoms-1")


def test_a_dataset_is_registered_from_outside(registered):
    register_dataset("phantoms", load_phantoms)
    dataset = load_dataset("phantoms", positive="empty")
    assert repr(dataset) == "ImageDataset('phantoms', 2 classes, train 4, test 4)"
    assert (dataset.digest, dataset.positive) == ("phantoms-1", "empty")
    assert as_dataset("phantoms").positive == "full" and dataset_names()[-1] == "phantoms"
    assert missing_dataset("phantoms") is None and dataset_place("phantoms") is None
    with pytest.raises(InputError, match="^phantoms: has no split 'val'; its splits: train, test"):
        dataset.splits["val"]


@pytest.mark.parametrize(
    ("name", "load", "message"),
    [
        ("busi", load_phantoms, "^busi: choose another name .* it is registered or has a colon"),
        ("npz:mine", load_phantoms, "^npz:mine: choose another name"),
        ("mine", "mine.npz", "^dataset mine: expected a function that returns it, got str"),
    ],
)
def test_registrations_that_are_refused(registered, name, load, message):
    with pytest.raises(InputError, match=message):
        register_dataset(name, load)


def test_places_of_the_datasets_of_the_package(busi_folder, monkeypatch):
    assert [dataset_place(name) for name in ("busi-fold0", "radimagenet")] == [(), ()]
    assert [dataset_place(name) for name in ("organct-axial", "npz:a.npz")] == [None, None]
    for name in ("busi-fold0", "busi-folds", "busi-lesions"):
        assert missing_dataset(name).name == name
    monkeypatch.setenv("BUSI", str(busi_folder))
    assert dataset_place("busi-folds") == dataset_place("busi") == (busi_folder,)
    assert missing_dataset("busi-fold0") is None


def test_a_path_and_a_folder_with_masks_are_told_how_to_be_named(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: is a path; write folder:{tmp_path}, or"):
        load_dataset(str(tmp_path))
    for name in ("masks:lesions", "volumes:ct"):
        with pytest.raises(InputError, match=f"^{name}: .*; use load_segmentation_dataset"):
            load_dataset(name)
    for name in ("", "x" * 5000, "a\0b", "~nobody-here/images"):
        with pytest.raises(InputError, match="^unknown dataset"):
            load_dataset(name)
