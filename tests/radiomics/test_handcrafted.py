"""Handcrafted features agree with published values and survive odd regions."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.radiomics.handcrafted import handcrafted_features, resampled
from radiodino_utils.radiomics.options import RadiomicsOptions
from radiodino_utils.radiomics.table import handcrafted_dictionary

# IBSI digital phantom: 2 mm voxels; reference manual, arXiv 1612.07003, chapter 5
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [1, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 9, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
INSIDE = np.ones(PHANTOM.shape, bool)
INSIDE[1, 2, 0] = INSIDE[2, 2, 2] = False
INSIDE[2:, 0, 3:] = False
SPACING = (2.0, 2.0, 2.0)
# reference values: theibsi.github.io, consensus of the Image Biomarker Standardisation Initiative
REFERENCE = Path(__file__).with_name("ibsi_digital_phantom.csv")
with REFERENCE.open() as _file:
    PUBLISHED = list(csv.DictReader(_file))
UNIT_BINS = RadiomicsOptions(bin_width=1.0)


@pytest.fixture(scope="module")
def computed():
    def features(values, inside):
        found, _ = handcrafted_features(values, inside, spacing_mm=SPACING, options=UNIT_BINS)
        return found

    slices = [features(PHANTOM[k : k + 1], INSIDE[k : k + 1]) for k in range(4)]
    return {"3D": features(PHANTOM, INSIDE), "2D": pd.DataFrame(slices).mean()}


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["name"])
def test_ibsi_digital_phantom(computed, row):
    value, published = computed[row["aggregation"]][row["name"]], float(row["value"])
    rounded = float(f"{value:.3g}")  # as it is published
    assert abs(value - published) <= float(row["tolerance"]) or rounded == published


def test_every_feature_is_in_the_dictionary_and_codes_are_those_of_the_reference(computed):
    names = {*computed["3D"], *computed["2D"].index}
    dictionary = handcrafted_dictionary()
    assert names == set(dictionary)
    for row in PUBLISHED:
        assert dictionary[row["name"]][3] == row["ibsi_code"]


def test_features_do_not_change_with_the_place_of_the_region():
    values = np.pad(PHANTOM, 5, constant_values=99)
    there, _ = handcrafted_features(values, np.pad(INSIDE, 5), options=UNIT_BINS)
    here, _ = handcrafted_features(PHANTOM, INSIDE, options=UNIT_BINS)
    assert there == pytest.approx(here, rel=1e-6)


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize(
    ("inside", "reason"),
    [(np.zeros((4, 4, 5), bool), "smaller than a voxel"), (PHANTOM == 1, "one grey level")],
)
def test_odd_regions_have_a_reason(slices, inside, reason):
    features, why = handcrafted_features(PHANTOM[:slices], inside[:slices])
    assert reason in why
    assert not any(name.startswith("glcm") for name in features)
    assert np.isfinite(list(features.values())).all()


def test_one_voxel_has_first_order_and_no_texture():
    inside = np.zeros(PHANTOM.shape, bool)
    inside[0, 0, 0] = True
    features, why = handcrafted_features(PHANTOM, inside)
    assert features["firstorder_mean"] == 1 and "one grey level" in why


def test_isolated_voxels_do_not_stop_the_neighbourhood_matrix():
    inside = INSIDE.copy()
    inside[1] = False
    inside[1, 0, 0] = True
    values = np.pad(PHANTOM, ((0, 0), (0, 0), (0, 3)))
    values[0, 0, 7], inside = 200, np.pad(inside, ((0, 0), (0, 0), (0, 3)))
    inside[0, 0, 7] = True
    features, why = handcrafted_features(values, inside, options=UNIT_BINS)
    assert not why and np.isfinite(features["ngtdm_contrast"])


def test_too_many_levels_are_refused():
    generator = np.random.default_rng(0)
    values = generator.uniform(0, 1e5, (4, 8, 8)).astype(np.float32)
    features, why = handcrafted_features(values, np.ones(values.shape, bool))
    assert "wider bin" in why and "firstorder_mean" in features


def test_values_outside_of_the_range_do_not_count():
    options = RadiomicsOptions(bin_width=1.0, lowest=2, highest=5)
    features, _ = handcrafted_features(PHANTOM, INSIDE, options=options)
    assert (features["firstorder_minimum"], features["firstorder_maximum"]) == (3, 4)


def test_bin_count_gives_that_many_levels():
    options = RadiomicsOptions(bin_count=2)
    features, _ = handcrafted_features(PHANTOM, INSIDE, options=options)
    assert features["glcm_joint_average"] <= 2


def test_resampling_a_part_equals_a_part_of_the_resampled_image():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(9, 12, 11)).astype(np.float32)
    inside = np.zeros(values.shape, bool)
    inside[3:6, 4:9, 2:7] = True
    shared = {"shape": values.shape, "spacing_mm": (2.5, 0.7, 0.7), "edge_mm": 1.1}
    whole = resampled(values, inside, start=(0, 0, 0), **shared)
    box = np.s_[2:7, 3:10, 1:8]
    part = resampled(values[box], inside[box], start=(2, 3, 1), **shared)
    assert part[1].sum() == whole[1].sum() > 0
    np.testing.assert_allclose(part[0][part[1]], whole[0][whole[1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_robust_deviation_counts_values_that_equal_a_percentile(seed):
    """With 761 values the percentiles are values; in float32 they come out a little lower."""
    values = np.random.default_rng(seed).integers(-100, 900, (1, 1, 761)).astype(np.float32)
    features, _ = handcrafted_features(values, np.ones(values.shape, bool))
    low, high = np.percentile(values.astype(float), [10, 90])
    assert np.isin([low, high], values).all()
    central = values[(values >= low) & (values <= high)]
    expected = np.abs(central - central.mean()).mean()
    found = features["firstorder_robust_mean_absolute_deviation"]
    assert found == pytest.approx(expected, rel=1e-6)
