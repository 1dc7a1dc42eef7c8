"""Image files of the usual formats, whole and damaged, and resizing."""

import warnings

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.images import padded, read_image, resized
from radiodino_utils.data.reading import pixel_aspect

from .test_dicom import dicom

pytestmark = pytest.mark.filterwarnings("ignore:.*scaled from")
GREY = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


def saved(array, path, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_grey_stays_grey(tmp_path, suffix):
    image = read_image(saved(GREY, tmp_path / f"a.{suffix}"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image if image.ndim == 2 else image[..., 0], GREY)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour_stays_colour(tmp_path, suffix):
    np.testing.assert_array_equal(read_image(saved(COLOUR, tmp_path / f"a.{suffix}")), COLOUR)


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30] + [0] * 759)
    image.save(tmp_path / "palette.png")
    expected = [[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [0, 255, 0]]]
    assert read_image(tmp_path / "palette.png").tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_black(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    image.putalpha(
        Image.fromarray(np.where(np.arange(60).reshape(6, 10) < 30, 0, 255).astype(np.uint8))
    )
    image.save(tmp_path / "layer.png")
    image = read_image(tmp_path / "layer.png")
    opaque = (
        COLOUR
        if mode == "RGBA"
        else np.repeat(np.asarray(Image.fromarray(COLOUR).convert("L"))[..., None], 3, -1)
    )
    assert not image[:3].any()
    np.testing.assert_array_equal(image[3:], opaque[3:])


def test_cmyk(tmp_path):
    image = read_image(saved(COLOUR, tmp_path / "cmyk.tif", "CMYK"))
    np.testing.assert_array_equal(image, COLOUR)
    assert read_image(saved(COLOUR, tmp_path / "cmyk.jpg", "CMYK")).shape == (6, 10, 3)


def test_one_bit(tmp_path):
    bits = GREY > 100
    np.testing.assert_array_equal(
        read_image(saved(bits, tmp_path / "bits.png")), bits * np.uint8(255)
    )


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_with_a_warning(tmp_path, name):
    values = np.array([[1000, 1500], [2000, 3000]], np.uint16)
    path = saved(values, tmp_path / name)
    with pytest.warns(
        UserWarning, match=rf"{name}: scaled from 1000\.\.3000 to 0\.\.255; give a window"
    ):
        assert read_image(path).tolist() == [[0, 64], [128, 255]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, window=(1500, 2000)).tolist() == [[0, 0], [255, 255]]


def test_floating_point_and_its_nan(tmp_path):
    values = np.array([[-1.0, 0.0, 1.0]], np.float32)
    assert read_image(saved(values, tmp_path / "f.tif")).tolist() == [[0, 128, 255]]
    values[0, 1] = np.nan
    assert read_image(saved(values, tmp_path / "g.tif")).tolist() == [[0, 0, 255]]
    values[0] = np.nan
    assert not read_image(saved(values, tmp_path / "h.tif")).any()


def test_a_constant_image_of_16_bits_is_black(tmp_path):
    assert not read_image(saved(np.full((3, 3), 700, np.uint16), tmp_path / "flat.png")).any()


@pytest.mark.parametrize("window", [(5, 5), (240, -160)])
def test_empty_windows_are_refused(tmp_path, window):
    with pytest.raises(InputError, match=r"a\.png: the window .* is empty"):
        read_image(saved(GREY, tmp_path / "a.png"), window=window)


def test_missing_empty_and_other_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.png: there is no such image file"):
        read_image(tmp_path / "nowhere.png")
    for name in ("empty.png", "empty.dcm", "empty.nii.gz"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"{name}: the file is empty \(0 bytes\)"):
            read_image(tmp_path / name)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(
        InputError, match=r"text\.png: not an image that can be read \(known: \.png"
    ):
        read_image(tmp_path / "text.png")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    suffix=st.sampled_from(["png", "jpg", "tif", "gif", "bmp", "webp"]),
    share=st.floats(0, 0.999),
    flip=st.booleans(),
)
def test_damage_is_an_input_error_or_harmless(tmp_path, suffix, share, flip):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = saved(noise, tmp_path / f"whole.{suffix}").read_bytes()
    position, broken = int(share * len(content)), tmp_path / f"broken.{suffix}"
    damaged = (
        content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]
        if flip
        else content[:position]
    )
    broken.write_bytes(damaged)
    try:
        image = read_image(broken)
    except InputError as error:
        assert f"broken.{suffix}: " in str(error)
    else:
        assert image.dtype == np.uint8
        assert image.ndim in (2, 3)


def test_a_truncated_image_is_never_half_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    for suffix in ("png", "jpg", "tif", "bmp"):
        path = saved(noise, tmp_path / f"a.{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(InputError, match=rf"a\.{suffix}: "):
            read_image(path)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 40),
    value=st.integers(0, 255),
    colour=st.booleans(),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_resizing_keeps_kind_and_constants(height, width, size, value, colour, interpolation):
    image = np.full((height, width, 3) if colour else (height, width), value, np.uint8)
    result = resized(image, size, interpolation)
    assert result.shape == (size, size, *image.shape[2:])
    assert (result == value).all()
    assert (result is image) == (height == width == size)


def test_resizing_equals_pil(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized(image, 16, "bilinear"), expected)


def test_padding_lays_the_image_in_the_middle_of_the_mean_colour():
    image = np.full((4, 2), 9, np.uint8)
    square = padded(image, 8, (0.5, 0.25, 0.0))
    assert square.shape == (8, 8, 3) and (square[2:6, 3:5] == 9).all()
    assert square[0, 0].tolist() == [128, 64, 0] and (square != 9).any(-1).sum() == 64 - 8


def test_an_image_that_is_larger_than_the_square_is_not_padded():
    with pytest.raises(InputError, match="an image of 9 x 4 pixels does not fit into 8 x 8"):
        padded(np.zeros((9, 4), np.uint8), 8, (0.0, 0.0, 0.0))


def test_proportions_of_pixels_come_from_headers(tmp_path):
    path = dicom(tmp_path / "us.dcm", np.zeros((4, 4), np.uint8), PixelAspectRatio=[2, 1])
    assert pixel_aspect(path) == 2
    path = dicom(tmp_path / "mr.dcm", np.zeros((4, 4), np.uint8), PixelSpacing=[0.5, 1])
    assert pixel_aspect(path) == 0.5
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6)), np.diag([1.0, 8.0, 2.0, 1.0]))
    nibabel.save(volume, tmp_path / "v.nii.gz")
    assert pixel_aspect(tmp_path / "v.nii.gz") == 2  # coronal: superior by right
    assert pixel_aspect(saved(np.zeros((2, 2), np.uint8), tmp_path / "a.png")) == 1
