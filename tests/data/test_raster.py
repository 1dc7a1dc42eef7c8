"""Photographic formats: orientation, depth, polarity, pages and limits, against PIL."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.raster import read_raster_values
from radiodino_utils.data.reading import decode_image, read_image

pytestmark = pytest.mark.filterwarnings("ignore:.*scaled from")
GREY = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
DEEP = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    image = Image.fromarray(np.stack([GREY] * 3, -1))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert upright.shape[:2] == ((10, 6) if orientation > 4 else (6, 10))
    np.testing.assert_array_equal(read_image(path), upright)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("values", [GREY, DEEP], ids=["8 bits", "16 bits"])
def test_files_and_members_of_archives_are_read_alike(tmp_path, suffix, values):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    decoded = decode_image(path.read_bytes(), f"z.zip:a.{suffix}")
    np.testing.assert_array_equal(decoded, read_image(path))
    np.testing.assert_allclose(
        decoded, GREY.astype(float) / GREY.max() * (GREY.max() if values is GREY else 255), atol=1
    )
    with pytest.raises(InputError, match=r"z\.zip:a\.png: the file is empty"):
        decode_image(b"", "z.zip:a.png")


def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "white.tif", tiffinfo={262: 0})  # PIL stores 255 - GREY
    np.testing.assert_array_equal(read_image(tmp_path / "white.tif"), GREY)
    Image.fromarray(DEEP).save(tmp_path / "black.tif")
    Image.fromarray(DEEP).save(tmp_path / "deep.tif", tiffinfo={262: 0})  # and here DEEP
    np.testing.assert_array_equal(
        read_image(tmp_path / "deep.tif"), 255 - read_image(tmp_path / "black.tif")
    )


def test_signed_bytes_of_a_tiff(tmp_path):
    values = np.array([[-100, 0], [50, 100]], np.int8)
    image = Image.fromarray(values.view(np.uint8))
    image.save(tmp_path / "signed.tif", tiffinfo={339: 2})
    assert read_image(tmp_path / "signed.tif").tolist() == [[0, 128], [191, 255]]


def test_pages_of_a_tiff_and_frames_of_a_gif(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 20, 30)]
    for suffix in ("tif", "gif"):
        path = tmp_path / f"pages.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        read = [read_image(path, index=index)[..., 0].max() for index in (0, 2, -1)]
        assert read == [10, 30, 30]
        with pytest.warns(UserWarning, match=rf"pages\.{suffix}: the first of 3 pages is read"):
            assert read_image(path)[0].max() == 10
        with pytest.raises(InputError, match=rf"pages\.{suffix}: page 3 is outside the file's 3"):
            read_image(path, index=3)


def test_a_large_image_is_said_to_be_large(tmp_path, monkeypatch):
    Image.new("1", (200, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("RADIODINO_MAX_PIXELS", "10000")
    with pytest.raises(
        InputError, match=r"large\.png: the image has more than 10000 pixels;.*RADIO"
    ):
        read_image(tmp_path / "large.png")
    monkeypatch.setenv("RADIODINO_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="RADIODINO_MAX_PIXELS is 'many'"):
        read_image(tmp_path / "large.png")
    monkeypatch.delenv("RADIODINO_MAX_PIXELS")
    assert read_image(tmp_path / "large.png").shape == (200, 200)


def test_values_are_read_as_they_are_stored(tmp_path):
    labels = np.array([[0, 2], [300, 1]], np.uint16)
    Image.fromarray(labels).save(tmp_path / "deep.png")
    assert read_raster_values(tmp_path / "deep.png").tolist() == labels.tolist()
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    indices.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30] + [0] * 759)
    indices.save(tmp_path / "palette.png")
    assert read_raster_values(tmp_path / "palette.png").tolist() == [[0, 1], [2, 1]]
    Image.fromarray(GREY > 100).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_raster_values(tmp_path / "bits.png"), GREY > 100)


TYPES = ("int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")


@pytest.mark.parametrize("dtype", [*TYPES, *FLOATS])
@pytest.mark.parametrize("polarity", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
def test_tiffs_of_every_type_are_read(tmp_path, dtype, polarity, options):
    limits = (-0.5, 0.5) if dtype in FLOATS else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    steps = np.linspace(0, 1, 60).reshape(6, 10)
    values = (limits[0] * (1 - steps) + limits[1] * 0.999 * steps).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric=polarity, **options)
    expected = steps * 255 if polarity == "minisblack" else 255 - steps * 255
    np.testing.assert_allclose(read_image(path), expected, atol=1)
    np.testing.assert_array_equal(read_raster_values(path), values)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_colours_of_every_depth_are_read(tmp_path, planes, dtype):
    colour = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
    values = colour / 255 if dtype == "float32" else colour * np.array(257 if "16" in dtype else 1)
    stored = (np.moveaxis(values, -1, 0) if planes == "separate" else values).astype(dtype)
    options = {"photometric": "rgb", "planarconfig": planes}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), colour, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiffs_are_upright(tmp_path, orientation):
    tag = (274, "H", 1, orientation, True)
    values = np.linspace(0, 1, 60).reshape(6, 10)
    for name, dtype in (("deep", np.float64), ("plain", np.float32)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values.astype(dtype), extratags=[tag])
    deep, plain = (read_image(tmp_path / f"{name}.tif") for name in ("deep", "plain"))
    np.testing.assert_array_equal(deep, plain)


def test_transparency_of_deep_tiffs_is_over_black(tmp_path):
    values = np.stack([DEEP, DEEP[::-1], DEEP, np.full_like(DEEP, 65535)], -1).astype(np.float32)
    values /= 65535
    values[0, :, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (6, 10, 3) and not image[0].any() and image[1:].max() == 255


def test_a_tiff_that_cannot_be_read_says_why(tmp_path):
    volume, channels = np.zeros((5, 16, 16)), np.zeros((4, 5, 7))
    tifffile.imwrite(
        tmp_path / "a.tif", volume, volumetric=True, tile=(1, 16, 16), photometric="minisblack"
    )
    with pytest.raises(InputError, match=r"a\.tif: a TIFF with the axes ZYX"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"a\.tif: a TIFF with 7 channels"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "cut.tif", np.random.default_rng(0).random((99, 99)))
    content = (tmp_path / "cut.tif").read_bytes()
    for keep in (100, 5000):
        with pytest.raises(InputError, match=r"cut\.tif: "):
            decode_image(content[:keep], "cut.tif")
    with pytest.raises(InputError, match=r"cut\.tif: page 1 is outside the file's 1 pages"):
        read_image(tmp_path / "cut.tif", index=1)
