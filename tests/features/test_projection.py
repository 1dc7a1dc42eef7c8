import os
import shutil
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.features.projection import explained_variance, project

from ..conftest import REPOSITORY
from ..synthetic import synthetic_features


@pytest.fixture(scope="module")
def points():
    return project(synthetic_features(noise=0.1), seed=3)


def test_every_image_of_every_split_has_its_row(points):
    features = synthetic_features(noise=0.1)
    columns = ["dataset", "backbone", "split", "id", "class", "pca1", "pca2", "umap1", "umap2"]
    assert points.columns.tolist() == columns
    assert points["id"].tolist() == [one for split in features.ids.values() for one in split]
    assert points["class"].tolist() == [
        f"class {i}" for split in features.labels.values() for i in split
    ]
    assert np.isfinite(points[["pca1", "pca2", "umap1", "umap2"]].to_numpy()).all()


def test_the_same_seed_repeats_exactly(points):
    pd.testing.assert_frame_equal(
        project(synthetic_features(noise=0.1), seed=3), points, check_exact=True
    )


def test_another_seed_moves_umap_and_not_pca(points):
    other = project(synthetic_features(noise=0.1), seed=4)
    np.testing.assert_array_equal(other["pca1"], points["pca1"])
    assert not np.allclose(other["umap1"], points["umap1"])


def test_the_length_of_an_embedding_does_not_matter(points):
    features = synthetic_features(noise=0.1)
    for arrays in features.arrays.values():
        arrays["class_token"] *= (
            np.random.default_rng(0)
            .uniform(0.5, 20, (len(arrays["class_token"]), 1))
            .astype(np.float32)
        )
    np.testing.assert_allclose(
        project(features, seed=3)[["pca1", "pca2"]], points[["pca1", "pca2"]], atol=1e-5
    )


@pytest.mark.parametrize("columns", [["pca1", "pca2"], ["umap1", "umap2"]])
def test_classes_that_lie_apart_are_drawn_apart(points, columns):
    centres = points.groupby("class")[columns].mean()
    apart = min(
        np.linalg.norm(centres.iloc[i] - centres.iloc[j]) for i in range(3) for j in range(i)
    )
    within = max(
        np.linalg.norm(part[columns] - centres.loc[name], axis=1).mean()
        for name, part in points.groupby("class")
    )
    assert apart > 2 * within


def test_variance_is_that_of_the_singular_values():
    features = synthetic_features()
    table = explained_variance(features, components=5)
    values = np.concatenate([features.embedding(split) for split in features.labels]).astype(
        np.float64
    )
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    squares = np.linalg.svd(values - values.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(table["share"], (squares / squares.sum())[:5])
    np.testing.assert_allclose(table["cumulative"], table["share"].cumsum())
    assert table["component"].tolist() == [1, 2, 3, 4, 5]
    assert explained_variance(features)["cumulative"].iloc[-1] == pytest.approx(1)


def test_many_embeddings_are_copied_once():
    features = synthetic_features(sizes={"train": 3000, "test": 1000}, width=256)
    explained_variance(features)  # imports
    tracemalloc.start()
    try:
        explained_variance(features)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * 4000 * 256 * 8


def test_fewer_images_than_neighbours():
    assert len(project(synthetic_features(sizes={"train": 4, "test": 2}))) == 6


def test_too_few_images_are_an_error():
    with pytest.raises(InputError, match="made: 3 images are too few"):
        project(synthetic_features(sizes={"train": 2, "test": 1}))


@pytest.mark.parametrize("task", [project, explained_variance])
def test_nan_features_are_an_error(task):
    features = synthetic_features()
    features.arrays["val"]["class_token"][3, 1] = np.nan
    with pytest.raises(InputError, match="made: the features hold NaN"):
        task(features)


@pytest.mark.slow
@pytest.mark.parametrize("data_is_writable", [True, False])
def test_neither_the_environment_nor_the_home_need_be_writable(tmp_path, data_is_writable):
    packages, closed, data = tmp_path / "packages", tmp_path / "closed", tmp_path / "numbers"
    for name in ("umap", "pynndescent"):
        shutil.copytree(
            Path(find_spec(name).origin).parent,
            packages / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    closed.mkdir()
    for folder in (closed, *(path for path in packages.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    code = """
from tests.synthetic import synthetic_features
from radiodino_utils.features.projection import project
project(synthetic_features())
import umap
print(umap.__file__)
"""
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:  # root without its powers
        if not shutil.which("setpriv"):
            pytest.skip(
                "root may write anywhere, and setpriv, which would take that away, is not here"
            )
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {
        "HOME": str(closed),
        "XDG_CACHE_HOME": str(closed / "cache"),
        "PYTHONPATH": f"{packages}:{REPOSITORY}",
    }
    environment |= {
        "RADIODINO_DATA": str(data if data_is_writable else closed / "data"),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    for folder in (closed, *(path for path in packages.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(packages))
    assert bool(list((data / "numba").rglob("*.nbi"))) == data_is_writable
    assert not list(tmp_path.glob("radiodino-numba-*"))
