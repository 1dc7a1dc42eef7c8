"""Photographic formats: orientation, depth, polarity, pages and limits, against PIL."""

import io

import numpy as np
import pytest
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


def test_a_tiff_of_another_kind_says_so(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GREY.astype(np.float32)).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    place = content.index((258).to_bytes(2, "little") + (3).to_bytes(2, "little"))  # BitsPerSample
    content[place + 8 : place + 10] = (64).to_bytes(2, "little")
    with pytest.raises(InputError, match=r"a\.tif: a TIFF of a kind that is not read"):
        decode_image(bytes(content), "a.tif")
