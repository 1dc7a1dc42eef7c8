"""One intensity rule for a dataset: its parts, and what it does to each kind of file."""

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.intensity import (
    WINDOWS,
    Percentiles,
    limits,
    parse_rule,
    rule_text,
    scaled,
)
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.data.segmentation import load_segmentation_dataset
from radiodino_utils.features.extraction import extract_features

from .test_dicom import dicom

BOTH = ("image", "volume")


def test_rules_of_names():
    assert parse_rule({}) is None and parse_rule({"labels": "x"}) is None
    assert parse_rule({"window": "lung"}) == WINDOWS["lung"]
    assert parse_rule({"window": "-10,2.5"}) == (-10, 2.5)
    assert parse_rule({"percentile": "1,99"}) == Percentiles(1, 99)
    assert parse_rule({"percentile": "1,99"}, over=("volume",)).over == "volume"
    assert parse_rule({"percentile": "0,100", "over": "volume"}, over=BOTH).over == "volume"
    assert rule_text(None) == "" and rule_text((-1350, 150)) == "window lung, -1350..150"
    assert rule_text(Percentiles(1, 99)) == "percentiles 1..99 of each image"


WRONG = {
    "an unknown window": ({"window": "lang"}, "unknown window 'lang'; did you mean lung"),
    "one number": ({"window": "5"}, "unknown window '5'"),
    "descending": ({"window": "5,5"}, "the upper value must be greater"),
    "infinite": ({"window": "0,inf"}, "the upper value must be greater"),
    "both": ({"window": "lung", "percentile": "1,99"}, "give one of them"),
    "outside": ({"percentile": "-1,99"}, "two numbers from 0 to 100, such as 1,99"),
    "a word": ({"percentile": "most"}, "two numbers from 0 to 100"),
    "nan": ({"percentile": "nan,99"}, "two numbers from 0 to 100"),
    "over alone": ({"over": "volume"}, "belongs to percentile=LOWER,UPPER"),
    "no volumes": ({"percentile": "1,99", "over": "volume"}, "unknown value of over 'volume'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_rules(fault):
    options, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        parse_rule(options)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), st.booleans())
def test_limits_ascend_and_scaling_keeps_order(numbers, with_nan):
    values = np.sort(np.array(numbers, np.float32))
    rule = Percentiles(5, 95)
    low, high = limits(values, rule)
    assert low < high
    grey = scaled(np.append(values, [np.nan] * with_nan), rule, "x").astype(int)
    assert (np.diff(grey[: len(values)]) >= 0).all() and not grey[len(values) :].any()


def test_limits_of_nothing():
    assert limits(np.array([np.nan]), Percentiles(0, 100)) == (0, 1)
    assert limits(np.array([]), Percentiles(0, 100)) == (0, 1)


@pytest.fixture
def study(tmp_path):
    """A series of three slices, 0 to 30 HU, and one of another patient, 0 to 300 HU."""
    for patient, step in (("anna", 1), ("berta", 10)):
        for number in range(3):
            pixels = np.arange(12, dtype=np.int16).reshape(3, 4) * step * (number + 1)
            tags = {
                "PatientID": patient,
                "SeriesInstanceUID": f"1.{step}",
                "InstanceNumber": number,
            }
            dicom(tmp_path / f"{patient}{number}", pixels, **tags)
    return f"dicom:{tmp_path}?labels=unlabelled&slices=all"


def test_rules_of_studies(study):
    def greatest(options):
        images = load_dataset(f"{study}{options}").splits["all"].images
        return [int(image.max()) for image in images]

    assert greatest("&window=0,330") == [8, 17, 26, 85, 170, 255]
    assert greatest("&percentile=0,100") == [255] * 6
    assert greatest("&percentile=0,100&over=volume") == [85, 170, 255] * 2
    digests = {
        load_dataset(f"{study}{options}").digest
        for options in ("", "&window=0,330", "&percentile=0,100", "&percentile=0,100&over=volume")
    }
    assert len(digests) == 4


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_padding_is_outside_the_percentiles(tmp_path):
    pixels = np.full((10, 10), -2000, np.int16)
    pixels[5:] = np.arange(50).reshape(5, 10)
    dicom(tmp_path / "a", pixels, PixelPaddingValue=-2000, PatientID="a")
    name = f"dicom:{tmp_path}?labels=unlabelled&percentile=0,100"
    for options in ("", "&over=volume"):
        image = load_dataset(f"{name}{options}").splits["all"].images[0]
        assert image[5, 0] == 0 and image[9, 9] == 255 and not image[:5].any()


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_rules_of_files_and_the_sidecar(tmp_path):
    for label in "ab":
        for number in (1, 2):
            path = tmp_path / "set" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * number).save(path)
    name = f"folder:{tmp_path / 'set'}"
    plain, ruled = load_dataset(name), load_dataset(f"{name}?window=0,126")
    assert plain.intensity == "" and ruled.intensity == "window 0..126"
    assert plain.digest != ruled.digest
    assert [int(image.max()) for image in ruled.splits["all"].images] == [128, 255] * 2
    features = extract_features("pixels", ruled)
    assert features.sidecar["intensity"] == "window 0..126"
    assert extract_features("pixels", plain).path != features.path


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_rules_of_volumes_and_masks(tmp_path):
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    for part, values in (("images", volume), ("masks", np.zeros(volume.shape, np.uint8))):
        (tmp_path / part).mkdir()
        for name in "abc":
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / part / f"{name}.nii")
    name = f"volumes:{tmp_path}"
    by_volume, by_image, by_window = (
        load_segmentation_dataset(f"{name}?{options}")[0]
        for options in ("percentile=0,100", "percentile=0,100&over=image", "window=0,59.5")
    )
    (default,) = load_segmentation_dataset(name)
    assert default.intensity == "percentiles 0.5..99.5 of each volume"
    assert by_image.intensity == "percentiles 0..100 of each image"
    assert [image.max() for image in by_image.images] == [255] * len(by_image)
    assert by_volume.images[0].max() < 255 and by_window.images[5].max() == 255
    assert len({part.digest for part in (default, by_volume, by_image, by_window)}) == 4


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_rules_of_images_with_masks(tmp_path):
    for part, dtype in (("images", np.uint16), ("masks", np.uint8)):
        (tmp_path / part).mkdir()
        for name in "abc":
            values = np.arange(64, dtype=dtype).reshape(8, 8) * (part == "images")
            Image.fromarray(values.astype(dtype)).save(tmp_path / part / f"{name}.png")
    (plain,), (ruled,) = (
        load_segmentation_dataset(f"masks:{tmp_path}{options}") for options in ("", "?window=0,126")
    )
    assert ruled.intensity == "window 0..126" and ruled.images[0].max() == 128
    assert plain.intensity == "" and plain.digest != ruled.digest
