"""Slices of NIfTI volumes."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.nifti import PLANES, read_nifti_values, volume_grid
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


def test_volumes_of_a_4_d_file(tmp_path):
    path = FILES / "example4d.nii.gz"
    values = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    for volume in (0, 1, -1):
        for index in (0, 20):
            expected = values[:, :, index, volume].T[::-1, ::-1]
            read = read_nifti_values(path, index=index, volume=volume)
            np.testing.assert_array_equal(read, expected)
    with pytest.warns(UserWarning, match=r"example4d\.nii\.gz: the first of 2 volumes is read"):
        read_image(path)
    with pytest.raises(InputError, match="volume 2 is outside the file's 2 volumes"):
        read_nifti_values(path, volume=2)
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "single.nii")
    nibabel.save(nibabel.Nifti1Image(volume[..., 0], np.eye(4)), tmp_path / "plain.nii")
    for index in (0, 3):
        single, plain = (
            read_image(tmp_path / f"{name}.nii", index=index) for name in ("single", "plain")
        )
        np.testing.assert_array_equal(single, plain)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_slices_of_any_orientation_equal_nibabels_canonical_volume(order, signs):
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = np.zeros((4, 4))
    affine[order, range(3)] = np.array(signs) * (1.0, 1.2, 1.4)
    affine[:3, :3] += 0.1  # oblique
    affine[3, 3] = 1
    image = nibabel.Nifti1Image(volume, affine)
    canonical = nibabel.as_closest_canonical(image)
    for axis, plane in enumerate(PLANES):
        for index in (0, -1):
            values = np.take(canonical.get_fdata(), index, axis)
            read = read_nifti_values(image.to_bytes(), index=index, plane=plane)
            np.testing.assert_array_equal(read, values.T[::-1, ::-1])


@pytest.mark.parametrize(
    ("shape", "spacing", "plane", "pixel"),
    [
        ((5, 5, 5), (1, 1, 1), "axial", (1, 1)),
        ((5, 5, 5), (0.7, 0.8, 5), "axial", (0.8, 0.7)),
        ((5, 5, 5), (0.7, 4, 0.9), "coronal", (0.9, 0.7)),
        ((5, 5, 5), (3.3, 0.5, 0.9), "sagittal", (0.9, 0.5)),
        ((5, 5, 5), (1.2, 1, 1), "axial", (1, 1.2)),
        ((1, 5, 5), (1, 1, 1), "sagittal", (1, 1)),
        ((5, 5), (1, 2, 1), "axial", (2, 1)),
    ],
)
def test_the_plane_of_acquisition_and_the_spacing_of_its_pixels(
    tmp_path, shape, spacing, plane, pixel
):
    affine = np.diag([*spacing, 1.0])
    affine[:3, :3] /= 1000
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "v.nii")
    grid = volume_grid(tmp_path / "v.nii")
    assert grid.plane == plane
    np.testing.assert_allclose(grid.pixel_mm(plane), pixel, rtol=1e-5)
    height, width = read_image(tmp_path / "v.nii").shape
    assert sorted((height, width)) == sorted(np.delete((*shape, 1)[:3], PLANES.index(plane)))


def test_names_that_are_wrong_about_packing(tmp_path):
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    (tmp_path / "a.nii").write_bytes(gzip.compress(image.to_bytes()))
    (tmp_path / "b.nii.gz").write_bytes(image.to_bytes())
    for name in ("a.nii", "b.nii.gz"):
        assert read_nifti_values(tmp_path / name, index=0).tolist() == [[6, 2], [4, 0]]


def test_what_a_header_cannot_mean_is_one_sentence(tmp_path, monkeypatch):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["srow_y"] = 0
    content = image.header.binaryblock + bytes(4) + bytes(16)
    with pytest.raises(InputError, match=r"v\.nii: the affine does not say how the volume lies"):
        decode_image(content, "v.nii")
    large = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header
    large["dim"][1:4] = 30000
    with pytest.raises(InputError, match=r"v\.nii: the image has more than"):
        decode_image(large.binaryblock + bytes(4) + bytes(16), "v.nii")
    with pytest.raises(InputError, match=r"dconn\.nii: holds no slices \(shape \(1, 1, 1, 1,"):
        read_image(FILES / "row_major.dconn.nii")
    values = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4))
    with pytest.raises(InputError, match=r"v\.nii: holds complex numbers"):
        decode_image(values.to_bytes(), "v.nii")


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
