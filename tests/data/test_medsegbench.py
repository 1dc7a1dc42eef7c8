"""MedSegBench's BUSI, read from its npz file."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data import medsegbench
from radiodino_utils.data.registry import dataset_place, missing_dataset
from radiodino_utils.data.segmentation import load_segmentation_dataset

COUNTS = {"train": 5, "val": 2, "test": 3}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a small file in MedSegBench's layout; a test image is a copy of one of train."""

    def write(*, known=True, **changes):
        generator = np.random.default_rng(0)
        arrays = {}
        for split, count in COUNTS.items():
            coarse = generator.integers(0, 256, (count, 8, 8), np.uint8)
            arrays[f"{split}_images"] = np.kron(coarse, np.ones((1, 4, 4), np.uint8))
            masks = np.zeros((count, 32, 32), np.uint8)
            masks[:, 4:12, 4:12] = 1
            arrays[f"{split}_label"] = masks
        arrays["test_images"][1] = arrays["train_images"][4]
        arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
        path = tmp_path / medsegbench.FILE
        np.savez(path, **arrays)
        monkeypatch.setenv("MEDSEGBENCH", str(tmp_path))
        if known:
            monkeypatch.setattr(medsegbench, "MD5", file_hash(path, "md5"))
        return path

    return write


def test_the_file_is_a_segmentation_dataset_with_its_own_split(file):
    path = file()
    (dataset,) = load_segmentation_dataset("busi-medsegbench")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == COUNTS
    assert [dataset.ids[row] for row in dataset.splits["test"]][0] == "test/000000"
    assert np.array_equal(dataset.images[4], dataset.images[dataset.splits["test"][1]])
    assert dataset.groups[4] == dataset.groups[8]
    assert (dataset.mask(0).sum(), dataset.caveat[:15]) == (64, "near duplicates")
    assert dataset_place("busi-medsegbench") == (path,)
    assert missing_dataset("busi-medsegbench") is None


def test_the_published_md5_is_required(file):
    path = file(known=False)
    with pytest.raises(InputError, match=f"^{path}: wrong MD5: .* instead of fab7550a6c52"):
        load_segmentation_dataset("busi-medsegbench")


def test_a_file_of_another_layout(file):
    path = file(val_label=None)
    with pytest.raises(InputError, match=f"^{path}: the keys val_label are missing; MedSegBench"):
        load_segmentation_dataset("busi-medsegbench")
    path = file(test_label=np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(InputError, match=r"test_images is uint8 \(3, 32, 32\) and test_label"):
        load_segmentation_dataset("busi-medsegbench")


def test_a_missing_file_comes_with_its_address():
    missing = missing_dataset("busi-medsegbench")
    assert missing.url.endswith("busi_512.npz?download=1") and "MEDSEGBENCH" in missing.hint
    assert dataset_place("busi-medsegbench") == ()
