"""Deep features: tokens by coverage, on any slice, in any plane."""

import numpy as np
import pytest

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.features.dense import dense_backbone
from radiodino_utils.features.engines import make_engine
from radiodino_utils.radiomics.cases import Case, find_regions
from radiodino_utils.radiomics.deep import DeepExtractor, _overlap, _padding
from radiodino_utils.radiomics.options import RadiomicsOptions

SIZE = 64


def extracted(case, **options):
    made = RadiomicsOptions(size=SIZE, **options)
    extractor = DeepExtractor(load_backbone("pixels"), made, engine="torch")
    regions = find_regions(case)
    return dict(zip(extractor.names(), extractor(case, regions).T, strict=True))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE), np.uint8)


def patches_of(image):
    dense = dense_backbone(load_backbone("pixels"), size=SIZE)
    (maps,) = make_engine(dense, engine="torch")(image[..., None])
    return maps[0].reshape(maps.shape[1], -1).T


def test_a_region_of_whole_patches_is_their_mean_max_and_deviation(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[0, :32, 16:32] = 1
    found = extracted(Case("a", image, labels), crop=False)
    tokens = patches_of(image)[[1, 5]]
    width = tokens.shape[1]
    assert found["patches"] == pytest.approx(2)
    for kind, expected in (
        ("mean", tokens.mean(0)), ("max", tokens.max(0)), ("std", tokens.std(0))
    ):  # fmt: skip
        values = [found[f"deep_{kind}_{n:04d}"][0] for n in range(width)]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_partial_patches_count_by_their_share(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[0, :16, :20] = 1
    found = extracted(Case("a", image, labels), crop=False)
    first, second = patches_of(image)[:2]
    assert found["deep_mean_0000"][0] == pytest.approx((first[0] + second[0] / 4) / 1.25, rel=1e-4)
    assert found["deep_max_0000"][0] == pytest.approx(first[0], rel=1e-4)


def test_a_region_smaller_than_a_patch_is_that_patch(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[0, 20, 20] = 1
    found = extracted(Case("a", image, labels))
    assert found["patches"] == pytest.approx(1 / 256) and found["deep_std_0000"] == 0
    assert found["deep_mean_0000"][0] == pytest.approx(patches_of(image)[5][0], rel=1e-4)
    assert all(np.isfinite(values).all() for values in found.values())


def test_regions_do_not_depend_on_each_other(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[0, 3:20, 5:30] = 1
    alone = extracted(Case("a", image, labels))
    labels[0, 40:, 40:] = 2
    both = extracted(Case("a", image, labels))
    assert all(both[name][0] == pytest.approx(alone[name][0], rel=1e-5) for name in alone)


def test_slices_weigh_by_area_or_the_largest_counts():
    values = np.zeros((2, SIZE, SIZE), np.uint8)
    values[1] = 200
    labels = np.zeros(values.shape, np.uint8)
    labels[0, :16, :16], labels[1, :16, :48] = 1, 1
    case = Case("a", values, labels)
    dark, bright = (patches_of(values[k : k + 1])[0][0] for k in range(2))
    every = extracted(case, crop=False)["deep_mean_0000"][0]
    assert every == pytest.approx((dark + 3 * bright) / 4, rel=1e-4)
    largest = extracted(case, crop=False, slices="largest")["deep_mean_0000"][0]
    assert largest == pytest.approx(bright, rel=1e-4)


def test_planes_are_averaged_and_the_aspect_is_kept():
    values = np.random.default_rng(0).normal(size=(20, 64, 48))
    labels = np.zeros(values.shape, np.uint8)
    labels[5:15, 20:40, 10:30] = 1
    case = Case("a", values, labels, spacing_mm=(2.5, 0.7, 0.7))
    one = [extracted(case, planes=(plane,)) for plane in ("axial", "coronal", "sagittal")]
    three = extracted(case, planes=("axial", "coronal,sagittal"))
    for name, found in three.items():
        assert found[0] == pytest.approx(np.mean([part[name][0] for part in one]), rel=1e-4)
    down, right = _padding((20, 64), np.array([2.5, 0.7]))
    assert (20 + sum(down)) * 2.5 == pytest.approx((64 + sum(right)) * 0.7, abs=2.5)


@pytest.mark.parametrize(("pixels", "patches"), [(64, 4), (50, 28), (10, 28)])
def test_the_pixels_of_a_patch_cover_it(pixels, patches):
    shares = _overlap(pixels, patches)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares.sum(0), patches / pixels)


def test_convolutional_networks_and_transformers(image):
    labels = np.zeros(image.shape, np.uint8)
    labels[0, 3:20, 5:30] = 1
    extractor = DeepExtractor(
        load_backbone("random-t16"), RadiomicsOptions(size=SIZE), engine="torch"
    )
    case = Case("a", image, labels)
    found = extractor(case, find_regions(case))
    assert found.shape == (1, len(extractor.names())) and np.isfinite(found).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hole", [np.nan, -np.inf])
def test_voxels_without_a_value_outside_of_the_region_are_black(image, hole):
    values, labels = image.astype(np.float32), np.zeros(image.shape, np.uint8)
    labels[0, 8:40, 8:40], values[0, 50:] = 1, 0
    low, high = np.percentile(values[0, :50], (0.5, 99.5))
    window = f"{low},{high}"
    black = extracted(Case("a", values, labels), window=window, crop=False)
    values[0, 50:] = hole
    for given in (None, window):
        found = extracted(Case("a", values, labels), window=given, crop=False)
        assert all(np.allclose(found[name], black[name], atol=1e-5) for name in black)
