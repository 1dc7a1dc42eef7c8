"""Perturbations change what they say, and stability tells stable features from others."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.cases import Case
from radiodino_utils.radiomics.perturbations import GROWN, PERTURBATIONS, noise_level, perturbed
from radiodino_utils.radiomics.stability import (
    feature_correlations,
    measured_values,
    perturb_radiomics,
    stability_table,
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


def test_stored_values_keep_their_type_and_range(case):
    stored = replace(case, values=case.values.clip(0, 255).astype(np.uint8))
    for kind in PERTURBATIONS:
        found = perturbed(stored, kind).values
        assert found.dtype == np.uint8
        assert np.abs(found.astype(float) - stored.values).max() < 130


def test_translation_moves_by_part_of_a_voxel(case):
    steps = {"rows": np.arange(48.0)[:, None], "columns": np.arange(48.0)}
    for axis, ramp in steps.items():
        values = np.broadcast_to(ramp, case.values.shape).astype(np.float32)
        found = perturbed(replace(case, name=axis, values=values), "translation")
        moved = np.abs(found.values - values)[:, 2:-2, 2:-2]
        assert moved.min() >= 0.25 and moved.max() <= 0.5 and np.ptp(moved) < 1e-3
        assert np.array_equal(found.labels, case.labels)


def test_rotation_turns_image_and_labels_by_the_same_angle(case):
    labels = np.zeros_like(case.labels)
    labels[:, 22:26, 36:44] = 1
    angles = []
    for seed in range(8):
        turned = perturbed(
            replace(case, values=100.0 * labels, labels=labels), "rotation", seed=seed
        )
        places = [np.argwhere(part[0] > 0).mean(0) - 23.5 for part in
                  (turned.values > 50, turned.labels)]  # fmt: skip
        assert places[0] == pytest.approx(places[1], abs=0.6)
        angles.append(np.degrees(np.arctan2(*places[1])))
    assert min(np.abs(angles)) > 1 and max(np.abs(angles)) < 11.5
    assert min(angles) < 0 < max(angles)


def test_each_image_has_draws_of_its_own(case):
    first, second = (perturbed(replace(case, name=name), "noise").values for name in "ab")
    assert not np.array_equal(first, second)


def test_contours_follow_supervoxels_near_the_region(case):
    drawings = [perturbed(case, "contour", seed=seed).labels for seed in range(4)]
    for drawn in drawings:
        overlap = 2 * ((drawn == 1) & (case.labels == 1)).sum()
        assert 0.7 < overlap / ((drawn == 1).sum() + (case.labels == 1).sum()) <= 1
    generator = np.random.default_rng(0)
    blurred = replace(case, values=generator.normal(size=case.values.shape))
    drawings = [perturbed(blurred, "contour", seed=seed).labels for seed in range(2)]
    assert not np.array_equal(*drawings)  # without an edge, supervoxels cross the contour
    near = binary_dilation(blurred.labels > 0, np.ones((3, 3, 3)), iterations=GROWN)
    assert not drawings[0][~near].any()


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
    assert {table.facts["seed"] for table in tables.values()} == {0}
    values = measured_values(tables)
    table = feature_correlations(values)
    assert set(table["family"]) >= {"shape2d", "firstorder", "glcm"}
    assert (table["regions"] == 8).all() and (table["measurements"] == 3).all()
    by_name = table.set_index("name")["icc2"]
    assert by_name["firstorder_mean"] > 0.9
    assert "firstorder_mean" in stable_features(table)
    assert set(stable_features(table, threshold=0.99)) < set(stable_features(table))
    families = stability_table(table).set_index("family")
    assert families["stable"].sum() == len(stable_features(table))
    assert families["features"].sum() == len(table) == len(values.columns) - 4


def test_unknown_kinds_and_single_tables_are_refused(folders):
    with pytest.raises(InputError, match="unknown perturbation 'blur'"):
        perturb_radiomics(*folders, kinds=("blur",))
    with pytest.raises(InputError, match="at least two"):
        measured_values({"one": perturb_radiomics(*folders, kinds=("none",))["none"]})
