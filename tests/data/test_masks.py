"""Masks as they are stored, and their pairing with images."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.folder_layout import stem_of
from radiodino_utils.data.masks import MaskFiles, pair_masks, read_mask
from radiodino_utils.data.reading import count_planes
from radiodino_utils.data.segmentation import folder_segmentation

from .test_dicom import dicom

LABELS = np.array([[0, 2], [2, 1]], np.uint8)


@pytest.mark.parametrize("values", [LABELS, LABELS * 200, LABELS.astype(np.uint16) * 300])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_of_images_are_never_stretched(tmp_path, values, suffix):
    Image.fromarray(values).save(tmp_path / f"mask.{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask.{suffix}"), values)


def test_labels_of_volumes_and_dicom_files_are_never_stretched(tmp_path):
    volume = LABELS.astype(np.float32)[:, :, None]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "mask.nii.gz")
    expected = LABELS.T[::-1, ::-1]
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz"), expected)
    path = dicom(tmp_path / "mask.dcm", LABELS, RescaleSlope=3, RescaleIntercept=5)
    np.testing.assert_array_equal(read_mask(path), LABELS)
    nibabel.save(nibabel.Nifti1Image(volume / 2 + 0.1, np.eye(4)), tmp_path / "soft.nii")
    with pytest.raises(InputError, match=r"soft\.nii: the mask holds fractions"):
        read_mask(tmp_path / "soft.nii")


def test_palette_masks_are_read_by_index(tmp_path):
    palette = Image.fromarray(LABELS, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 128, 0, 0] + [0] * 759)
    palette.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), LABELS)


def test_colours_need_a_table(tmp_path):
    table = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    Image.fromarray(np.array(table, np.uint8)[LABELS]).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: a mask in colour; say which colour"):
        read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", colours=table), LABELS)
    with pytest.raises(InputError, match=r"holds the colour \(0, 255, 0\), which no class has"):
        read_mask(tmp_path / "mask.png", colours=table[:2])
    Image.fromarray(np.stack([LABELS] * 3, -1)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), LABELS)


def test_transparent_masks_are_refused_and_opaque_ones_read(tmp_path):
    layer = np.stack([LABELS, LABELS, LABELS, np.full_like(LABELS, 255)], -1)
    Image.fromarray(layer).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "opaque.png"), LABELS)
    layer[0, 0, 3] = 0
    Image.fromarray(layer).save(tmp_path / "clear.png")
    with pytest.raises(InputError, match=r"clear\.png: the mask is partly transparent"):
        read_mask(tmp_path / "clear.png")


def test_0_and_255_are_background_and_foreground(tmp_path):
    Image.fromarray(LABELS // 2 * 255).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(MaskFiles((tmp_path / "mask.png",))[0], LABELS // 2)
    Image.fromarray(LABELS).save(tmp_path / "other.png")  # 0, 1 and 2 stay what they are
    np.testing.assert_array_equal(MaskFiles((tmp_path / "other.png",))[0], LABELS)


@pytest.fixture
def files(tmp_path):
    def write(images, masks):
        for folder, names in (("images", images), ("masks", masks)):
            (tmp_path / folder).mkdir()
            for name in names:
                (tmp_path / folder / name).touch()
        return tmp_path / "images", tmp_path / "masks"

    return write


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("p3.png", "p3.nii.gz"),
        ("p3.nii.gz", "p3_seg.nii.gz"),
        ("p3.slice2.bmp", "p3.slice2.png"),
        ("p3.slice2.bmp", "p3.slice2-Mask.PNG"),
        ("1.2.840.77.dcm", "1.2.840.77.png"),
        ("case_1.jpg", "case_1_segmentation.tif"),
    ],
)
def test_names_that_belong_together(files, image, mask):
    images, masks = files(["1.2.840.7.dcm", "p3.slice1.bmp", image], ["p3.slice1.png", mask])
    (masks / "1.2.840.7_gt.png").touch()
    assert (images / image, masks / mask) in pair_masks(images, masks)


def test_every_file_that_does_not_belong_together_is_listed(files):
    images, masks = files(
        [f"{name}.png" for name in ("a", "b", "c", "d", "e", "e_seg", *range(9))] + ["a.jpg"],
        ["a.png", "d_mask.png", "d_mask_1.png", "e_seg.png", "x.png", "y_gt.png"],
    )
    with pytest.raises(InputError) as error:
        pair_masks(images, masks)
    text = str(error.value)
    assert "14 image names cannot be paired" in text
    assert "a.jpg, a.png have one name" in text
    assert "d.png has the masks d_mask.png, d_mask_1.png" in text
    assert "masks without an image: x.png, y_gt.png." in text
    for name in ("b", "c", "e", *range(9)):  # the mask of e_seg.png is not one of e.png
        assert f"{name}.png has no mask" in text


def test_masks_without_an_image_are_listed_and_subfolders_are_read(files):
    images, masks = files(["a.png"], ["a-gt.png", *(f"{n}.png" for n in range(9))])
    for folder, name in ((images, "a.png"), (masks, "a_seg.png")):
        (folder / "p1").mkdir()
        (folder / "p1" / name).touch()
    expected = ", ".join(f"{n}.png" for n in range(9))
    with pytest.warns(UserWarning, match=f"masks without an image in .*: {expected}"):
        pairs = pair_masks(images, masks)
    assert pairs == [
        (images / "a.png", masks / "a-gt.png"),
        (images / "p1" / "a.png", masks / "p1" / "a_seg.png"),
    ]


@pytest.mark.parametrize("several", ["image", "mask"])
def test_a_mask_and_its_image_are_of_one_plane(tmp_path, several):
    pages = [Image.fromarray(LABELS)] * 3
    for folder, what in (("images", "image"), ("masks", "mask")):
        (tmp_path / folder).mkdir()
        more = {"save_all": True, "append_images": pages[1:]} if what == several else {}
        for name in "abc":
            pages[0].save(tmp_path / folder / f"{name}.tif", **more)
    with pytest.raises(InputError, match=rf"a\.tif: the .*{several}.* holds 3 planes"):
        folder_segmentation(tmp_path / "images", tmp_path / "masks").mask(0)


def test_planes_are_counted_from_headers(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 3, 2)), np.eye(4)), tmp_path / "v.nii.gz")
    dicom(tmp_path / "cine.dcm", np.zeros((5, 4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((7, 4, 4)), photometric="minisblack")
    Image.fromarray(LABELS).save(tmp_path / "one.png")
    expected = {"v.nii.gz": 6, "cine.dcm": 5, "deep.tif": 7, "one.png": 1}
    assert {name: count_planes(tmp_path / name) for name in expected} == expected
    for name in ("a.png", "a.tif", "a.dcm", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"II*\0 what is this")
        with pytest.raises(InputError, match=f"{name}: "):
            count_planes(tmp_path / name)


def test_stems():
    names = ("a.b.nii.gz", "a.b.PNG", "a.b", "1.2.3.dcm")
    assert [stem_of(name) for name in names] == ["a.b", "a.b", "a.b", "1.2.3"]


def test_a_folder_of_colour_masks(tmp_path):
    table = ((0, 0, 0), (255, 0, 0))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        Image.fromarray(LABELS).save(tmp_path / "images" / f"{name}.png")
        colours = np.array(table, np.uint8)[LABELS // 2]
        Image.fromarray(colours).save(tmp_path / "masks" / f"{name}_mask.png")
    folders = (tmp_path / "images", tmp_path / "masks")
    dataset = folder_segmentation(*folders, colours=table)
    np.testing.assert_array_equal(dataset.mask(0), LABELS // 2)
    with pytest.raises(InputError, match="1 colours for 2 classes"):
        folder_segmentation(*folders, colours=table[:1])


def segmentation(path, frames, segments, places, kind="BINARY"):
    """Write a DICOM segmentation of frames with the number and the height of each."""
    groups = []
    for number, place in zip(segments, places, strict=True):
        segment, position, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        segment.ReferencedSegmentNumber = number
        position.ImagePositionPatient = [0, 0, place]
        group.SegmentIdentificationSequence = [segment]
        group.PlanePositionSequence = [position]
        groups.append(group)
    tags = {"Modality": "SEG", "SegmentationType": kind}
    return dicom(path, frames, PerFrameFunctionalGroupsSequence=groups, **tags)


def test_dicom_segmentations(tmp_path):
    first = np.array([[1, 0], [0, 0]], np.uint8)
    frames = np.stack([first, first[::-1], first[:, ::-1]])
    path = segmentation(tmp_path / "seg", frames, segments=(3, 5, 3), places=(0, 0, 4))
    assert read_mask(path, index=0).tolist() == [[3, 0], [5, 0]]
    assert read_mask(path, index=1).tolist() == [[0, 3], [0, 0]]
    with pytest.raises(InputError, match="seg: the mask holds 2 planes, and which one is meant"):
        read_mask(path)
    with pytest.raises(InputError, match="plane 2 is outside the file's 2 planes"):
        read_mask(path, index=2)
    overlap = segmentation(tmp_path / "over", frames[[0, 0]], segments=(1, 2), places=(0, 0))
    with pytest.raises(InputError, match="over: segments overlap"):
        read_mask(overlap)
    soft = segmentation(tmp_path / "soft", frames[:2], (1, 1), (0, 1), kind="FRACTIONAL")
    with pytest.raises(InputError, match="soft: a fractional segmentation"):
        read_mask(soft, index=0)


def test_pydicoms_own_segmentation():
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "liver_1frame.dcm"
    np.testing.assert_array_equal(read_mask(path), pydicom.dcmread(path).pixel_array)
