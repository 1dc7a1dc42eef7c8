"""DICOM files as the standard says, on pydicom's own test files and against its functions."""

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_rescale, apply_windowing
from pydicom.sequence import Sequence

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dicom import is_dicom, isolated, read_stored
from radiodino_utils.data.images import read_image

from .test_dicom import HU, dicom

pytestmark = pytest.mark.filterwarnings("ignore")
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NO_IMAGES = {
    "reportsi.dcm": "a structured report, not an image",
    "test-SR.dcm": "a structured report, not an image",
    "rtplan.dcm": "a radiotherapy plan or record, not an image",
    "rtstruct.dcm": "a radiotherapy structure set, not an image",
    "waveform_ecg.dcm": "a waveform, not an image",
    "liver_1frame.dcm": "a DICOM segmentation, which holds masks",
    "dicomdirtests/DICOMDIR": "a DICOMDIR, which lists other files",
    "nested_priv_SQ.dcm": "a DICOM file without rows and columns, not an image",
    "ExplVR_BigEndNoMeta.dcm": "a radiotherapy plan or record, not an image",  # no preamble either
}
REFUSED = {
    "MR_truncated.dcm",
    "badVR.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
}
NO_SIZE = {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"}


def readable(header):
    return "PixelData" in header and header.get("Modality") != "SEG"


def files_with_pixels():
    logging.disable()
    headers = {
        path: pydicom.dcmread(path, force=True, stop_before_pixels=False)
        for path in sorted(FILES.glob("*.dcm"))
        if path.name not in REFUSED | NO_SIZE | {"JPEG-lossy.dcm", "JPGExtended.dcm"}
    }
    logging.disable(logging.NOTSET)
    return [path for path, header in headers.items() if readable(header)]


@pytest.mark.parametrize("path", files_with_pixels(), ids=lambda path: path.name)
def test_files_of_all_transfer_syntaxes_equal_pydicom(path):
    header = pydicom.dcmread(path, force=True)
    pixels = header.pixel_array
    if int(header.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[len(pixels) // 2]
    image = read_image(path)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        limit = np.iinfo(pixels.dtype).max
        atol = 3 if header.file_meta.TransferSyntaxUID.is_encapsulated else 0.51  # lossy JPEG
        np.testing.assert_allclose(image, pixels / limit * 255, atol=atol)
        return
    values = apply_rescale(pixels, header)
    if header.get("WindowWidth"):
        low, high = sorted(apply_rescale(np.array(_ends(header)), header))
        shown = (apply_windowing(values, header) - low) / (high - low)
    elif pixels.dtype == np.uint8:
        shown = pixels / 255
    else:
        kept = pixels != header.get("PixelPaddingValue")
        low, high = values[kept].min(), values[kept].max()
        shown = np.where(kept, (values - low) / (high - low), 0)
    np.testing.assert_allclose(image, np.clip(shown, 0, 1) * 255, atol=0.51)


def _ends(header):
    """Smallest and greatest stored value, between which pydicom lays a window."""
    bits = header.BitsStored
    return (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if header.PixelRepresentation
        else (0, 2**bits - 1)
    )


@pytest.mark.parametrize("name", NO_IMAGES)
def test_files_that_are_no_images_are_named(name):
    with pytest.raises(InputError, match=NO_IMAGES[name]):
        read_image(FILES / name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_decoded_is_one_sentence(name):
    with pytest.raises(InputError, match=rf"{name}: the DICOM file cannot be decoded \("):
        read_image(FILES / name)
    assert is_dicom(FILES / name)


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_jpeg_extended_of_12_bits(name):
    values = read_stored(FILES / name)  # as pydicom's tests know them by libjpeg
    assert (values[420, 140], values[230, 120], values.shape) == (244, 95, (1024, 256))
    np.testing.assert_allclose(read_image(FILES / name), values / values.max() * 255, atol=0.51)


def item(**tags):
    dataset = pydicom.Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def test_rescale_and_window_stand_in_functional_groups(tmp_path):
    def transform(intercept):
        macro = item(RescaleSlope=1, RescaleIntercept=intercept)
        return item(PixelValueTransformationSequence=Sequence([macro]))

    shared = item(
        FrameVOILUTSequence=Sequence([item(WindowCenter=40, WindowWidth=400)]),
    )
    frames = np.stack([HU, HU + 100])
    path = dicom(
        tmp_path / "enhanced.dcm",
        frames,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence([transform(0), transform(-100)]),
        WindowCenter=0,  # an enhanced file says it in the groups
        WindowWidth=10,
    )
    for index in (0, 1):
        assert read_image(path, index=index).tolist() == [[0, 0], [128, 255]]
    assert read_image(path, index=1, window=(-1000, -160)).tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 63, 127, 191, 255]),
        ("LINEAR_EXACT", [0, 64, 128, 191, 255]),
        ("SIGMOID", [30, 69, 128, 186, 225]),
    ],
)
def test_voi_functions(tmp_path, function, expected):
    values = np.array([[-200, -100, 0, 100, 200]], np.int16)
    path = dicom(
        tmp_path / "a.dcm", values, WindowCenter=0, WindowWidth=400, VOILUTFunction=function
    )
    np.testing.assert_allclose(read_image(path)[0], expected, atol=1)


def test_a_width_of_one_is_a_step_and_of_zero_is_none(tmp_path):
    step = dicom(tmp_path / "one.dcm", HU, WindowCenter=40, WindowWidth=1)
    assert read_image(step).tolist() == [[0, 0], [255, 255]]
    for width in (0, ""):
        path = dicom(tmp_path / "none.dcm", HU, WindowCenter=40, WindowWidth=width)
        assert read_image(path).tolist() == [[0, 173], [214, 255]]


def test_empty_rescale_tags_and_a_slope_of_zero(tmp_path):
    for slope in ("", 0):
        path = dicom(tmp_path / "ct.dcm", HU, RescaleSlope=slope, RescaleIntercept="")
        assert read_image(path, window=(-160, 240)).tolist() == [[0, 0], [128, 255]]


def test_a_voi_lut_sequence_fills_its_own_range(tmp_path):
    levels = np.array([0, 1000, 2000, 4095], np.uint16)
    table = item(LUTDescriptor=[4, 0, 12], LUTData=levels.tobytes())
    values = np.array([[0, 1], [2, 9]], np.uint16)
    path = dicom(tmp_path / "lut.dcm", values, VOILUTSequence=Sequence([table]))
    assert read_image(path).tolist() == [[0, 62], [125, 255]]


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch_the_image(tmp_path, interpretation):
    values = np.array([[-2000, 0, 100]], np.int16)
    path = dicom(
        tmp_path / "pad.dcm", values, interpretation=interpretation, PixelPaddingValue=-2000
    )
    expected = [0, 255, 0] if interpretation == "MONOCHROME1" else [0, 0, 255]
    assert read_image(path).tolist() == [expected]


def test_odd_bit_depths_drop_what_is_no_value(tmp_path):
    signed = np.array([[-3, 5]], np.int16) & 0x0FFF | 0x4000  # an overlay in bit 14
    path = dicom(tmp_path / "odd.dcm", signed.astype(np.int16))
    header = pydicom.dcmread(path)
    header.BitsStored, header.HighBit = 12, 11
    header.save_as(path)
    assert read_stored(path).tolist() == [[-3, 5]]


def test_missing_tags_of_the_image_are_implied(tmp_path):
    path = dicom(tmp_path / "bare.dcm", np.array([[7, 9]], np.uint8))
    header = pydicom.dcmread(path)
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit"):
        delattr(header, keyword)
    del header.PixelRepresentation
    header.save_as(path)
    assert read_image(path).tolist() == [[7, 9]]


def test_a_decoder_that_aborts_is_an_error_and_starts_again(tmp_path):
    path = FILES / "MR_small_jpeg_ls_lossless.dcm"
    before = read_image(path)
    worker = isolated._workers[os.getpid()]
    worker.kill()
    worker.wait()
    np.testing.assert_array_equal(read_image(path), before)
    header = pydicom.dcmread(path)
    header.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(60)])
    header.save_as(tmp_path / "broken.dcm")
    with pytest.raises(InputError, match=r"broken\.dcm: the DICOM file cannot be decoded"):
        read_image(tmp_path / "broken.dcm")
    np.testing.assert_array_equal(read_image(path), before)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_damage_is_an_input_error_or_harmless(tmp_path, name):
    content = (FILES / name).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "broken.dcm"
    for attempt in range(40):
        damaged = bytearray(content)
        if attempt % 4 == 0:
            damaged = damaged[: generator.integers(1, len(damaged))]
        else:
            for position in generator.integers(128, min(len(damaged), 2000), 3):
                damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except InputError as error:
            assert "broken.dcm: " in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim in (2, 3)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    header = pydicom.dcmread(FILES / "MR_small_jp2klossless.dcm")
    header.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    header.save_as(tmp_path / "ht.dcm")
    with pytest.raises(InputError, match=r"pylibjpeg - requires pylibjpeg.* pylibjpeg-openjpeg"):
        read_image(tmp_path / "ht.dcm")
    script = Path(isolated.__file__).with_name("gdcm_worker.py")
    (tmp_path / "gdcm_worker.py").write_text(
        "import sys; sys.modules['gdcm'] = sys.modules['_gdcm'] = None\n" + script.read_text()
    )
    monkeypatch.setattr(isolated, "__file__", str(tmp_path / "isolated.py"))
    monkeypatch.setattr(isolated, "_workers", {})
    # JPEG-LS has another decoder where highdicom is installed
    with pytest.raises(InputError, match=r"JPEG-lossy\.dcm: .*gdcm - requires python-gdcm"):
        read_image(FILES / "JPEG-lossy.dcm")


def test_a_frame_may_not_be_huge(tmp_path, monkeypatch):
    path = dicom(tmp_path / "huge.dcm", HU)
    monkeypatch.setenv("RADIODINO_MAX_PIXELS", "3")
    with pytest.raises(InputError, match=r"huge\.dcm: the image has more than 3 pixels"):
        read_image(path)


def test_an_interruption_leaves_no_answer_for_the_next_image(monkeypatch):
    def interrupted(worker, request):
        worker.stdin.write(request)
        worker.stdin.flush()
        raise KeyboardInterrupt

    worker, header = isolated._worker(), pydicom.dcmread(FILES / "CT_small.dcm")
    monkeypatch.setattr(isolated, "_asked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        isolated.decode_isolated(header, 0)
    assert worker.poll() is not None and isolated._worker() is not worker


def test_a_decoder_that_hangs_is_an_error_and_starts_again(monkeypatch):
    path = FILES / "MR_small_jpeg_ls_lossless.dcm"
    before = read_image(path)
    worker = isolated._workers[os.getpid()]
    worker.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(isolated, "LIMIT", 0.2)
        with pytest.raises(InputError, match=r"cannot be decoded \(GDCM took longer than 0\.2 s"):
            read_image(path)
    assert worker.poll() is not None
    np.testing.assert_array_equal(read_image(path), before)
