"""Cases are read in the orientation of the display, and regions are found in them."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.nifti import read_nifti_values
from radiodino_utils.radiomics.cases import Case, find_regions, read_case
from radiodino_utils.radiomics.readers import case_readers

AFFINE = np.diag([-2.0, 3.0, 4.0, 1.0])


def write_volume(path, array, affine=AFFINE):
    path.parent.mkdir(exist_ok=True, parents=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def pair(tmp_path):
    values = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    labels = (values > 60).astype(np.uint8)
    return write_volume(tmp_path / "a.nii.gz", values), write_volume(tmp_path / "b.nii", labels)


def test_slices_of_a_volume_are_those_that_are_displayed(pair):
    case = read_case(*pair)
    assert case.spacing_mm == (4.0, 3.0, 2.0) and case.values.shape == (4, 5, 6)
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        shown = read_nifti_values(pair[0], index=1, plane=plane)
        last = case.values.shape[axis] - 2
        # the planes of NIfTI are counted from the right, the back and below
        assert np.array_equal(np.take(case.values, last, axis), shown)


def test_the_affine_leads_back_to_the_voxels(pair):
    case = read_case(*pair)
    stored = nibabel.load(pair[0])
    voxel = np.array([3, 1, 2, 1])
    place = np.linalg.inv(stored.affine) @ case.affine @ voxel
    assert stored.get_fdata()[tuple(place[:3].round().astype(int))] == case.values[3, 1, 2]


def test_a_mask_on_another_grid_is_refused(pair, tmp_path):
    other = write_volume(tmp_path / "c.nii", np.ones((6, 5, 4), np.uint8), np.eye(4))
    with pytest.raises(InputError, match="not on the grid of a.nii.gz"):
        read_case(pair[0], other)


def test_a_volume_without_voxel_size_is_refused(pair):
    content = bytearray(pair[1].read_bytes())
    content[80:92], content[252:256] = bytes(12), bytes(4)  # pixdim, qform_code and sform_code
    pair[1].write_bytes(content)
    with pytest.raises(InputError, match="no voxel size"):
        read_case(*pair)


def test_a_mask_of_fractions_is_refused(pair, tmp_path):
    other = write_volume(tmp_path / "c.nii", np.full((6, 5, 4), 0.5, np.float32))
    with pytest.raises(InputError, match="fractions"):
        read_case(pair[0], other)


def test_images_and_masks_of_255(tmp_path):
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(tmp_path / "a.png")
    Image.fromarray(np.eye(10, dtype=np.uint8) * 255).save(tmp_path / "a_mask.png")
    case = read_case(tmp_path / "a.png", tmp_path / "a_mask.png")
    assert case.labels.max() == 1 and case.spacing_mm is None and case.values.shape == (1, 10, 10)


def test_a_mask_of_another_size_is_refused(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    Image.new("L", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="1 x 9 x 8 voxels, the image 1 x 9 x 9"):
        read_case(tmp_path / "a.png", tmp_path / "b.png")


def test_components_are_sorted_by_size():
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 0, :2], labels[0, 4:6, 4:7], labels[0, 7, 0] = 3, 3, 5
    case = Case("a", np.zeros(labels.shape), labels)
    whole = find_regions(case)
    assert [(region.label, int(region.inside.sum())) for region in whole] == [(3, 8), (5, 1)]
    parts = find_regions(case, components=True)
    assert [(r.label, r.component, int(r.inside.sum())) for r in parts] == [
        (3, 1, 6), (3, 2, 2), (5, 1, 1)
    ]  # fmt: skip
    for region in parts:
        assert (labels[region.box][region.inside] == region.label).all()


def test_a_case_of_labels_alone_has_a_region():
    case = Case("a", np.zeros((1, 4, 4)), np.full((1, 4, 4), 2, np.uint8))
    assert [region.label for region in find_regions(case)] == [2]


def test_masks_are_needed(tmp_path):
    with pytest.raises(InputError, match="needs masks; the cases demo-ct"):
        case_readers(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="give a folder for a folder"):
        case_readers(tmp_path / "images", tmp_path / "mask.nii")
