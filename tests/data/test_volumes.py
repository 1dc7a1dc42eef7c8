"""Volumes and label volumes as slices."""

import nibabel
import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.nifti import read_nifti, read_nifti_values
from radiodino_utils.data.segmentation import load_segmentation_dataset
from radiodino_utils.data.volumes import volume_segmentation

SHAPE = (4, 5, 6)


@pytest.fixture
def folders(tmp_path):
    """Five volumes that are 100 inside a box, and label volumes that hold 2 there."""

    def write(flip=1.0, value=2):
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:, :2, 4] = value
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        for number in range(5):
            image = nibabel.Nifti1Image(labels.astype(np.int16) * 50, np.eye(4))
            nibabel.save(image, tmp_path / "images" / f"case{number}.nii.gz")
            affine = np.diag([flip, 1, 1, 1])
            affine[0, 3] = 0 if flip > 0 else SHAPE[0] - 1
            stored = labels[:: int(flip)]
            mask = nibabel.Nifti1Image(stored, affine)
            nibabel.save(mask, tmp_path / "masks" / f"case{number}_seg.nii.gz")
        return tmp_path / "images", tmp_path / "masks"

    return write


@pytest.mark.parametrize("flip", [1.0, -1.0])
@pytest.mark.parametrize(("plane", "count"), [("axial", 6), ("coronal", 5), ("sagittal", 4)])
def test_images_and_labels_are_of_one_slice(folders, flip, plane, count):
    dataset = volume_segmentation(
        *folders(flip), classes=("background", "a", "b"), plane=plane, window=(0, 100)
    )
    assert len(dataset) == 5 * count
    for row in range(count):
        np.testing.assert_array_equal(dataset.images[row] == 255, dataset.mask(row) == 2)
        assert dataset.mask(row).flags.c_contiguous  # torch takes no turned views
    assert sum(dataset.mask(row).sum() for row in range(count)) == 2 * 6


def test_volumes_stay_in_one_split(folders):
    dataset = volume_segmentation(*folders(), classes=("background", "a", "b"), slices="3")
    assert [name.split()[-1] for name in dataset.ids[:4]] == ["000", "002", "005", "000"]
    assert dataset.spacing_mm == (1, 1)
    volumes = {
        split: {dataset.ids[row].split()[0] for row in rows}
        for split, rows in dataset.splits.items()
    }
    assert sorted(len(names) for names in volumes.values()) == [1, 1, 3]
    assert len(set().union(*volumes.values())) == 5
    with pytest.raises(InputError, match="unknown value 2"):
        [volume_segmentation(*folders()).mask(row) for row in range(6)]


def test_options_of_the_name(folders):
    root = folders()[0].parent
    name = f"volumes:{root}?window=0,200&slices=2&plane=coronal&classes=background,a,b"
    (dataset,) = load_segmentation_dataset(name)
    assert (len(dataset), len(dataset.classes)) == (10, 3)
    assert dataset.images[0].shape == (6, 4) and dataset.images[0].max() == 128
    for text, match in (
        ("windows=lung", "unknown option of volumes: 'windows'; did you mean window"),
        ("slices=0", "slices '0'"),
        ("volume=b", "volume 'b'"),
        ("volume=1", "volume 1 is outside the file's 1 volumes"),
    ):
        with pytest.raises(InputError, match=match):
            load_segmentation_dataset(f"volumes:{root}?{text}")


def test_one_of_several_volumes_is_chosen(folders):
    images, masks = folders()
    for path in images.iterdir():
        volume = nibabel.load(path)
        both = np.stack([volume.get_fdata() * 0, volume.get_fdata()], -1)
        nibabel.save(nibabel.Nifti1Image(both.astype(np.int16), np.eye(4)), path)
    first, second = (
        volume_segmentation(images, masks, window=(0, 100), volume=volume) for volume in (0, 1)
    )
    assert first.images[4].max() == 0 and second.images[4].max() == 255
    assert first.digest != second.digest


def test_labels_on_another_grid_are_refused(folders):
    images, masks = folders()
    shifted = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([2.0, 1, 1, 1]))
    nibabel.save(shifted, masks / "case1_seg.nii.gz")
    with pytest.raises(
        InputError, match=r"case1_seg\.nii\.gz: the labels are not on the grid of c"
    ):
        volume_segmentation(images, masks)


def test_planes_lie_as_radiologists_see_them(tmp_path):
    volume = np.zeros(SHAPE, np.int16)
    volume[3, 4, 5] = 100  # the most right, anterior and superior voxel
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
    for plane, index, shape in (
        ("axial", 5, (5, 4)),
        ("coronal", 4, (6, 4)),
        ("sagittal", 3, (6, 5)),
    ):
        image = read_nifti(tmp_path / "v.nii", window=(0, 100), index=index, plane=plane)
        assert image.shape == shape
        assert (image[0, 0], image.sum()) == (255, 255)
    with pytest.raises(InputError, match="unknown plane 'axal'; did you mean axial"):
        read_nifti_values(tmp_path / "v.nii", plane="axal")
