"""Perturbations change what they say, and stability tells stable features from others."""

import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.cases import Case
from radiodino_utils.radiomics.perturbations import PERTURBATIONS, noise_level, perturbed
from radiodino_utils.radiomics.stability import (
    feature_correlations,
    perturb_radiomics,
    stable_features,
)


@pytest.fixture(params=[1, 8])
def case(request):
    generator = np.random.default_rng(0)
    values = generator.normal(100, 5, (request.param, 48, 48)).astype(np.float32)
    labels = np.zeros(values.shape, np.uint8)
    labels[:, 10:24, 8:26], labels[:, 30:42, 20:40] = 1, 2
    return Case("a", values + 40 * labels, labels, spacing_mm=(2.0, 1.0, 1.0))


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_a_perturbation_is_seeded_and_leaves_the_case_as_it_is(case, kind):
    values, labels = case.values.copy(), case.labels.copy()
    first, again, other = (perturbed(case, kind, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(case.values, values) and np.array_equal(case.labels, labels)
    assert set(np.unique(first.labels)) == {0, 1, 2}
    assert first.labels.dtype == labels.dtype
    if kind in ("translation", "rotation", "noise"):
        assert not np.array_equal(first.values, other.values)


def test_growing_and_shrinking_move_the_border_by_a_voxel(case):
    sizes = [(perturbed(case, kind).labels == 1).sum((1, 2)) for kind in ("grown", "shrunk")]
    inner = sizes[1][len(sizes[1]) // 2]
    assert sizes[0][0] == 14 * 18 + 2 * (14 + 18) and inner == 12 * 16


def test_noise_is_that_of_the_image(case):
    assert noise_level(case.values) == pytest.approx(5, rel=0.25)
    added = perturbed(case, "noise").values - case.values
    assert added.std() == pytest.approx(noise_level(case.values), rel=0.05)


def test_contours_are_drawn_near_the_region(case):
    drawn = perturbed(case, "contour", seed=3).labels
    overlap = 2 * ((drawn == 1) & (case.labels == 1)).sum()
    assert 0.7 < overlap / ((drawn == 1).sum() + (case.labels == 1).sum()) <= 1


@pytest.fixture
def folders(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(8):
        edge = int(generator.integers(10, 30))
        image = generator.normal(100 + 10 * number, 2 + 2 * number, (64, 64)).clip(0, 255)
        labels = np.zeros((64, 64), np.uint8)
        labels[16 : 16 + edge, 20 : 20 + 2 * edge // 2] = 1
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path / "images", tmp_path / "masks"


def test_stable_features_are_found(folders):
    tables = perturb_radiomics(*folders, kinds=("none", "noise", "shrunk"), bin_count=16)
    table = feature_correlations(tables)
    assert set(table["family"]) >= {"shape2d", "firstorder", "glcm"}
    assert (table["regions"] == 8).all() and (table["measurements"] == 3).all()
    by_name = table.set_index("name")["icc2"]
    assert by_name["firstorder_mean"] > 0.9
    assert "firstorder_mean" in stable_features(table)
    assert set(stable_features(table, threshold=0.99)) < set(stable_features(table))


def test_unknown_kinds_and_single_tables_are_refused(folders):
    with pytest.raises(InputError, match="unknown perturbation 'blur'"):
        perturb_radiomics(*folders, kinds=("blur",))
    with pytest.raises(InputError, match="at least two"):
        feature_correlations({"one": perturb_radiomics(*folders, kinds=("none",))["none"]})
