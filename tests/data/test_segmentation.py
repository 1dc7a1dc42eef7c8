"""Segmentation datasets of the package, and a folder of one's own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data import demo_ct
from radiodino_utils.data.segmentation import (
    folder_segmentation,
    load_segmentation_dataset,
    segmentation_summary,
    with_labelled,
)

from ..synthetic_segmentation import synthetic_segmentation


@pytest.fixture
def folders(tmp_path):
    """Write images of several sizes and their masks; return the folder of both."""

    def write(count=10, *, values=(0, 255), skip=(), shape=None):
        generator = np.random.default_rng(0)
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        for row in range(count):
            size = (40 + row, 30)
            Image.fromarray(generator.integers(0, 256, size, np.uint8)).save(
                tmp_path / "images" / f"p{row}.jpg"
            )
            mask = np.full(shape or size, values[0], np.uint8)
            mask[:10, :10] = values[-1]
            if row not in skip:
                Image.fromarray(mask).save(tmp_path / "masks" / f"p{row}.png")
        return tmp_path

    return write


def test_a_folder_of_images_and_a_folder_of_masks(folders):
    root = folders()
    (dataset,) = load_segmentation_dataset(f"masks:{root}")
    (named,) = load_segmentation_dataset(f"lesions=masks:{root / 'masks'}?images={root / 'images'}")
    assert named.name == "lesions" and named.ids == dataset.ids
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        "train": 7,
        "val": 1,
        "test": 2,
    }
    assert sorted(np.concatenate(list(dataset.splits.values())).tolist()) == list(range(10))
    for row in range(10):
        assert dataset.mask(row).shape == dataset.images[row].shape
        assert dataset.mask(row).sum() == 100
    assert segmentation_summary([dataset]).loc[0, "train"] == 7


@given(seed=st.integers(0, 1000), few=st.integers(1, 6), many=st.integers(1, 6))
def test_fewer_labelled_images_are_among_more(seed, few, many):
    dataset = synthetic_segmentation()
    few, many = sorted((few, many))
    smaller, greater = (with_labelled(dataset, n, seed=seed).splits for n in (few, many))
    assert len(smaller["train"]) == few
    assert set(smaller["train"]) <= set(greater["train"]) <= set(dataset.splits["train"])
    assert smaller["test"] is dataset.splits["test"]


@pytest.mark.parametrize("values", [(0, -1), (0, 0.5), (0, np.nan), (0, 256)])
def test_masks_in_memory_are_neither_wrapped_nor_truncated(values):
    dataset = synthetic_segmentation()
    masks = dataset.masks.astype(np.result_type(np.int64, type(values[1])))
    masks[:, 3, 3] = values[1]
    with pytest.raises(InputError, match="holds the unknown value"):
        replace(dataset, masks=masks).mask(0)


def test_small_masks_follow_the_masks():
    dataset = synthetic_segmentation()
    before = dataset.small_masks([0], 16)
    other = replace(dataset, masks=1 - dataset.masks)
    assert (other.small_masks([0], 16) == 1 - before).all()
    assert (dataset.small_masks([0], 16) == before).all() and before.any()
    dataset.masks[0] = 0
    assert not dataset.small_masks([0], 16).any()
    listed = replace(dataset, masks=[mask.copy() for mask in dataset.masks])
    listed.small_masks([0], 16)
    listed.masks[0][:] = 1
    assert listed.small_masks([0], 16).all()


def test_an_image_without_mask(folders):
    with pytest.raises(
        InputError, match=r"1 image names cannot be paired with a mask in .*: p3\.jpg has no mask\."
    ):
        load_segmentation_dataset(f"masks:{folders(skip=(3,))}")


def test_a_mask_of_another_size(folders):
    (dataset,) = load_segmentation_dataset(f"masks:{folders(shape=(40, 31))}")
    with pytest.raises(
        InputError, match=r"p0\.jpg: its mask has 40 x 31 pixels, the image 40 x 30; mend it\."
    ):
        dataset.mask(0)


def test_a_mask_with_unknown_values(folders):
    root = folders(values=(0, 7))
    dataset = folder_segmentation(root / "images", root / "masks")
    with pytest.raises(
        InputError, match=r"holds the unknown value 7; 0 to 1 are known \(background, foreground\)"
    ):
        dataset.mask(0)


@pytest.mark.parametrize("name", ["organct-segm", "busi-fold", "masks:"])
def test_an_unknown_name(name):
    with pytest.raises(InputError, match="unknown segmentation dataset"):
        load_segmentation_dataset(name)


def test_a_missing_folder_and_too_few_images(tmp_path, folders):
    with pytest.raises(InputError, match="there is no such folder"):
        load_segmentation_dataset(f"masks:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="holds 2 images; at least three"):
        load_segmentation_dataset(f"masks:{folders(2)}")


@pytest.mark.slow
def test_organct_slices_lie_apart_and_have_every_organ_in_every_split():
    (dataset,) = load_segmentation_dataset("organct-seg")
    assert len(dataset.classes) == 11
    assert dataset.spacing_mm == (0.703125, 0.703125)
    assert dataset.caveat == demo_ct.CAVEAT
    heights = np.array([int(name.split()[1]) * 2.5 for name in dataset.ids])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        gaps = np.abs(heights[dataset.splits[one]][:, None] - heights[dataset.splits[other]])
        assert gaps.min() > demo_ct.GUARD_MM
    for rows in dataset.splits.values():
        assert set(np.unique([dataset.mask(row) for row in rows])) == set(range(11))


@pytest.mark.data
class TestBusi:
    def test_folds_share_images_and_cover_them_once(self, shared_data):
        folds = load_segmentation_dataset("busi-folds", folder=shared_data / "busi")
        assert len(folds) == 5
        assert len({id(fold.images) for fold in folds}) == 1
        tested = np.concatenate([fold.splits["test"] for fold in folds])
        assert sorted(tested.tolist()) == list(range(len(folds[0])))
        for fold in folds:
            assert len(set(np.concatenate(list(fold.splits.values())).tolist())) == len(fold)

    def test_a_normal_image_has_an_empty_mask_a_lesion_has_not(self, shared_data):
        (dataset,) = load_segmentation_dataset("busi-breastmnist", folder=shared_data / "busi")
        assert {split: len(rows) for split, rows in dataset.splits.items()} == {
            "train": 546,
            "val": 78,
            "test": 156,
        }
        for kind in ("normal", "benign", "malignant"):
            assert dataset.mask(dataset.kinds.index(kind)).any() == (kind != "normal")
