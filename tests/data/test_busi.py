"""The release of BUSI: images and masks that fit, and those that do not."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.busi import CLASSES, read_busi

from ..synthetic_busi import synthetic_busi, write_png


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


def test_the_folder_comes_from_the_environment(busi_folder, monkeypatch, data_folder):
    with pytest.raises(
        InputError,
        match=r"busi: BUSI is not there .*; download it from https://.* environment variable BUSI",
    ):
        read_busi()
    monkeypatch.setenv("BUSI", str(busi_folder))
    assert len(read_busi()) == 39


def test_duplicates_share_a_group(busi):
    first, last = busi.names.index("benign (1)"), busi.names.index("malignant (13)")
    assert busi.groups[first] == busi.groups[last]
    assert len(np.unique(busi.groups)) == len(busi) - 1


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
            r"benign \(2\)_mask\.png: not an image",
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
