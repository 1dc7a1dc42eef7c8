"""Slices of NIfTI volumes."""

import nibabel
import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.images import read_image

pytestmark = pytest.mark.filterwarnings("ignore:.*scaled from")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, 1, -1)])
def test_nifti_lies_as_radiologists_see_it(tmp_path, suffix, flips):
    volume = np.zeros((4, 5, 3), np.int16)  # right, anterior, superior
    volume[3, 4, 2] = 100  # the most right, anterior and superior voxel
    affine = np.diag([*flips, 1.0])
    stored = volume[tuple(slice(None, None, flip) for flip in flips)]
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / f"v{suffix}")
    top = read_image(tmp_path / f"v{suffix}", index=2, window=(0, 100))
    assert top.shape == (5, 4)
    assert top[0, 0] == 255  # anterior up, the patient's right at the left
    assert top.sum() == 255
    assert not read_image(tmp_path / f"v{suffix}", window=(0, 100)).any()  # the middle slice


def test_invalid_nifti(tmp_path):
    good = tmp_path / "good.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(
            np.random.default_rng(0).integers(0, 99, (20, 20, 3)).astype(np.int16), np.eye(4)
        ),
        good,
    )
    with pytest.raises(
        InputError, match=r"good\.nii\.gz: slice 3 is outside the volume of 3 slices"
    ):
        read_image(good, index=3)
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), np.eye(4)), tmp_path / "four.nii"
    )
    with pytest.raises(
        InputError, match=r"four\.nii: a volume of shape \(2, 2, 2, 2\); only 2-D and 3-D"
    ):
        read_image(tmp_path / "four.nii")
    content = good.read_bytes()
    for keep in (1, 20, len(content) // 2, len(content) * 3 // 4):
        (tmp_path / "cut.nii.gz").write_bytes(content[:keep])
        with pytest.raises(
            InputError, match=r"cut\.nii\.gz: the NIfTI file is damaged or truncated"
        ):
            read_image(tmp_path / "cut.nii.gz", index=2)
    (tmp_path / "flipped.nii.gz").write_bytes(
        content[:60] + bytes(byte ^ 255 for byte in content[60:90]) + content[90:]
    )
    with pytest.raises(InputError, match=r"flipped\.nii\.gz: the NIfTI file is damaged"):
        read_image(tmp_path / "flipped.nii.gz")
