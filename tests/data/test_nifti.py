"""Slices of NIfTI volumes."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.nifti import read_nifti_values
from radiodino_utils.data.reading import decode_image, read_image

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


FILES = Path(nibabel.__file__).parent / "tests" / "data"


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "reoriented_anat_moved.nii"])
def test_nibabels_own_files(name):
    volume = nibabel.as_closest_canonical(nibabel.load(FILES / name)).get_fdata()
    plane = volume[:, :, volume.shape[2] // 2].T[::-1, ::-1]
    low, high = plane.min(), plane.max()
    expected = (plane - low) / ((high - low) or 1) * 255
    np.testing.assert_allclose(read_image(FILES / name), expected, atol=0.51)
    content = (FILES / name).read_bytes()
    np.testing.assert_array_equal(decode_image(content, f"a.zip:{name}"), read_image(FILES / name))


def test_a_4_d_file_is_refused_unless_it_holds_one_volume(tmp_path):
    with pytest.raises(InputError, match="example4d.nii.gz: a volume of shape"):
        read_image(FILES / "example4d.nii.gz")
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "single.nii")
    nibabel.save(nibabel.Nifti1Image(volume[..., 0], np.eye(4)), tmp_path / "plain.nii")
    for index in (0, 3):
        single, plain = (
            read_image(tmp_path / f"{name}.nii", index=index) for name in ("single", "plain")
        )
        np.testing.assert_array_equal(single, plain)


def test_scale_nan_and_colour(tmp_path):
    image = nibabel.Nifti1Image(np.array([[[0], [1]], [[2], [4]]], np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1)
    nibabel.save(image, tmp_path / "slope.nii")
    assert read_nifti_values(tmp_path / "slope.nii").tolist() == [[7, 1], [3, -1]]
    values = np.array([[[np.nan], [1]], [[2], [3]]], np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "nan.nii")
    assert read_image(tmp_path / "nan.nii").tolist() == [[255, 0], [128, 0]]
    colours = np.zeros((2, 2, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"][1, 1] = 200
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colour.nii")
    assert read_image(tmp_path / "colour.nii")[0, 0].tolist() == [0, 200, 0]
