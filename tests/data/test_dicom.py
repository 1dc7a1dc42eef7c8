"""Frames of DICOM files."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.images import read_image

pytestmark = pytest.mark.filterwarnings("ignore:.*scaled from")
GREY = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


def dicom(path, pixels, *, interpretation="MONOCHROME2", **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        SecondaryCaptureImageStorage,
        generate_uid(),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    frames = pixels.ndim - 2 - (tags.get("SamplesPerPixel", 1) == 3)
    file.Rows, file.Columns = pixels.shape[frames : frames + 2]
    if frames:
        file.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PhotometricInterpretation = interpretation
    file.SOPClassUID = SecondaryCaptureImageStorage
    for name, value in ({"SamplesPerPixel": 1} | tags).items():
        setattr(file, name, value)
    if file.SamplesPerPixel == 3:
        file.PlanarConfiguration = 0
    file.PixelData = pixels.tobytes()
    file.save_as(path)
    return path


HU = np.array([[-1000, -160], [40, 240]], np.int16)


def test_dicom_in_hounsfield_units(tmp_path):
    path = dicom(
        tmp_path / "ct.dcm", (HU + 1024).astype(np.uint16), RescaleSlope=1, RescaleIntercept=-1024
    )
    assert read_image(path, window=(-160, 240)).tolist() == [[0, 0], [128, 255]]
    assert read_image(path).tolist() == [[0, 173], [214, 255]]


def test_dicom_has_its_own_window(tmp_path):
    path = dicom(tmp_path / "ct.dcm", HU, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    assert read_image(path).tolist() == [[0, 0], [128, 255]]
    assert read_image(path, window=(-1000, -160)).tolist() == [[0, 255], [255, 255]]
    half = dicom(
        tmp_path / "half.dcm", HU, WindowCenter=40
    )  # a centre without a width is no window
    assert read_image(half).tolist() == [[0, 173], [214, 255]]


def test_dicom_monochrome1_is_inverted(tmp_path):
    values = np.array([[0, 100], [200, 255]], np.uint8)
    one, two = (
        dicom(tmp_path / f"{name}.dcm", values, interpretation=name)
        for name in ("MONOCHROME1", "MONOCHROME2")
    )
    assert (255 - read_image(one)).tolist() == read_image(two).tolist() == values.tolist()


def test_dicom_without_a_suffix(tmp_path):
    assert read_image(dicom(tmp_path / "IM0001", HU), window=(-160, 240)).tolist() == [
        [0, 0],
        [128, 255],
    ]


@pytest.mark.parametrize("space", ["RGB", "YBR_FULL"])
def test_dicom_in_colour(tmp_path, space):
    stored = COLOUR if space == "RGB" else convert_color_space(COLOUR, "RGB", space)
    image = read_image(dicom(tmp_path / "us.dcm", stored, interpretation=space, SamplesPerPixel=3))
    np.testing.assert_allclose(image.astype(int), COLOUR, atol=2)


def test_dicom_with_a_palette(tmp_path):
    tables = {}
    for position, name in enumerate(("Red", "Green", "Blue")):
        table = np.zeros(256, np.uint16)
        table[:3] = np.roll([65535, 0, 0], position)
        tables |= {
            f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16],
            f"{name}PaletteColorLookupTableData": table.tobytes(),
        }
    path = dicom(
        tmp_path / "us.dcm",
        np.array([[0, 1, 2]], np.uint8),
        interpretation="PALETTE COLOR",
        **tables,
    )
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_dicom_frames(tmp_path):
    frames = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8) + np.array(
        [[0, 255 - 9], [0, 0]], np.uint8
    )
    path = dicom(tmp_path / "cine.dcm", frames, WindowCenter=128, WindowWidth=256)
    assert read_image(path)[0, 0] == 2
    assert read_image(path, index=4)[0, 0] == 4
    for index in (5, -6):
        with pytest.raises(
            InputError, match=rf"cine\.dcm: frame {index} is outside the file's 5 frames"
        ):
            read_image(path, index=index)


def test_invalid_dicom(tmp_path):
    (tmp_path / "no.dcm").write_bytes(b"not DICOM at all" * 20)
    with pytest.raises(InputError, match=r"no\.dcm: the DICOM file cannot be decoded"):
        read_image(tmp_path / "no.dcm")
    path = dicom(tmp_path / "cut.dcm", HU)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"cut\.dcm: the DICOM file cannot be decoded"):
        read_image(path)


def test_pydicom_is_of_the_version_whose_colours_are_known():
    assert int(pydicom.__version__.split(".")[0]) >= 3
