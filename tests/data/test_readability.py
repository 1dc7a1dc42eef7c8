"""Datasets with unreadable files."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.readability import unreadable_images, without_unreadable
from radiodino_utils.data.registry import load_dataset

LABELS = ("heart", "lung")


@pytest.fixture
def folder(images):
    """A folder dataset of 200 images; the files are named by their numbers."""
    return images([f"{label}/{number:03d}.png" for label in LABELS for number in range(100)])


def test_a_whole_dataset_stays_the_same(folder):
    dataset = load_dataset(f"folder:{folder}")
    readable = without_unreadable(dataset, progress=False)
    assert readable.dataset is dataset and readable.left_out.empty


def test_one_bad_file_is_left_out_and_listed(folder):
    (folder / "lung" / "007.png").write_bytes(b"cut")
    dataset = load_dataset(f"folder:{folder}")
    with pytest.warns(UserWarning, match=r"1 of 200 images cannot be read and are left out.*007"):
        readable, left_out = without_unreadable(dataset, progress=False)
    assert left_out[["split", "id"]].to_numpy().tolist() == [["all", "lung/007.png"]]
    split = readable.splits["all"]
    assert len(split) == len(split.images) == len(split.ids) == 199
    assert "lung/007.png" not in split.ids
    row = split.ids.index("lung/008.png")
    np.testing.assert_array_equal(split.images[row], dataset.splits["all"].images[row + 1])
    assert split.labels[row] == 1
    assert readable.digest != dataset.digest
    with pytest.warns(UserWarning, match="1 of 200"):
        assert load_dataset(dataset.name, on_error="skip").digest == readable.digest
    with pytest.raises(InputError, match="unknown on_error 'ignore'"):
        load_dataset(dataset.name, on_error="ignore")


def test_more_than_the_limit_is_an_error(folder):
    for number in range(3):
        (folder / "lung" / f"{number:03d}.png").write_bytes(b"cut")
    dataset = load_dataset(f"folder:{folder}")
    assert len(unreadable_images(dataset, progress=False)) == 3
    with pytest.raises(InputError, match=r"3 of 200 images cannot be read, more than .* 1\.0%"):
        without_unreadable(dataset, progress=False)
    with pytest.warns(UserWarning, match="3 of 200"):
        assert len(without_unreadable(dataset, limit=0.02).dataset.splits["all"]) == 197


def test_a_class_does_not_vanish(images):
    root = images(["a/1.png", "a/2.png", "b/1.png"])
    (root / "b" / "1.png").write_bytes(b"cut")
    dataset = load_dataset(f"folder:{root}")
    with pytest.raises(InputError, match="no image of 'b' in all can be read"):
        without_unreadable(dataset, limit=0.5, progress=False)
