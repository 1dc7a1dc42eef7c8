"""Neighbours are exact, in blocks of any size, and the arguments stay as they are."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation import neighbours
from radiodino_utils.evaluation.neighbours import nearest


def problem(seed, *, bank=40, queries=12, width=5, classes=3):
    generator = np.random.default_rng(seed)
    shape = (bank + queries, width)
    values = generator.normal(size=shape).astype(np.float32)
    return values[:bank], generator.integers(classes, size=bank), values[bank:]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 7, 20])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_several_blocks_equal_one(monkeypatch, metric, block, k):
    bank, _, queries = problem(0)
    itself = np.where(np.arange(len(queries)) % 2, np.arange(len(queries)), -1)
    whole = nearest(bank, queries, k, metric=metric, exclude=itself)
    monkeypatch.setattr(neighbours, "BLOCK", block)
    parts = nearest(bank, queries, k, metric=metric, exclude=itself)
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5, atol=1e-6)


def test_a_float16_memory_map_is_searched_without_being_changed(tmp_path, monkeypatch):
    bank, _, queries = problem(1, bank=500)
    np.save(tmp_path / "bank.npy", bank.astype(np.float16))
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    kept = queries.copy()
    values, rows = nearest(mapped, queries, 9)
    expected = nearest(bank.astype(np.float16).astype(np.float32), queries, 9)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(values, expected[0], atol=1e-6)
    np.testing.assert_array_equal(queries, kept)
    assert (mapped == bank.astype(np.float16)).all()


def test_arguments_stay_as_they_are():
    bank, _, queries = problem(2)
    copies = bank.copy(), queries.copy()
    nearest(bank, queries, 3)
    np.testing.assert_array_equal(bank, copies[0])
    np.testing.assert_array_equal(queries, copies[1])


def test_euclidean_distances_survive_a_large_common_offset():
    generator = np.random.default_rng(0)
    bank, queries = ((generator.normal(size=(n, 384)) + 100).astype(np.float32) for n in (500, 40))
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - bank[None], axis=2)
    values, rows = nearest(bank, queries, 5, metric="euclidean")
    np.testing.assert_array_equal(rows, np.argsort(distances, axis=1)[:, :5])
    np.testing.assert_allclose(values, np.sort(distances, axis=1)[:, :5], rtol=1e-4)


def test_only_the_named_row_is_left_out():
    bank, _, _ = problem(0)
    _, rows = nearest(bank, bank[:4], 3, exclude=np.array([0, -1, 2, -1]))
    assert rows.shape == (4, 3)
    assert [0 in rows[0], 1 in rows[1], 2 in rows[2], 3 in rows[3]] == [False, True, False, True]


@pytest.mark.parametrize("place", ["bank", "queries"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nan_features_are_an_error(place, value, metric):
    bank, _, queries = problem(0)
    {"bank": bank, "queries": queries}[place][3, 2] = value
    with pytest.raises(InputError, match=f"the {place} of the kNN hold NaN"):
        nearest(bank, queries, 3, metric=metric)
