"""Fixtures of the tests of datasets."""

import numpy as np
import pytest
from PIL import Image

from radiodino_utils.data.busi import read_busi

from ..conftest import synthetic_arrays
from ..synthetic_busi import synthetic_busi


@pytest.fixture(scope="session")
def busi_folder(tmp_path_factory):
    """Folder of a synthetic BUSI."""
    folder = tmp_path_factory.mktemp("busi") / "Dataset_BUSI_with_GT"
    return synthetic_busi(folder, counts=(12, 14, 13))


@pytest.fixture(scope="session")
def busi(busi_folder):
    """A synthetic BUSI."""
    return read_busi(busi_folder.parent)


@pytest.fixture
def npz(tmp_path):
    """Write arrays as an npz file; `None` leaves a key out."""

    def write(name="made.npz", compressed=False, **changes):
        arrays = {
            key: value for key, value in (synthetic_arrays() | changes).items() if value is not None
        }
        (np.savez_compressed if compressed else np.savez)(tmp_path / name, **arrays)
        return tmp_path / name

    return write


@pytest.fixture
def images(tmp_path):
    """Write an image of one grey value for each name."""

    def write(names, root=tmp_path):
        for value, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), value % 256, np.uint8)).save(root / name)
        return root

    return write
