"""MedMNIST's official files: found or downloaded, and checked by their MD5."""

import os
from pathlib import Path
from typing import NamedTuple

from ..core.downloads import Missing, download
from ..core.extras import extra
from ..core.files import data_folder, explaining, file_hash
from .dataset import ImageDataset
from .npz import read_npz

# the 2-D datasets with one label per image, as `medmnist.INFO` lists them
FLAGS = (
    *("pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "breastmnist"),
    *("bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist"),
)
SIZES = (28, 64, 128, 224)
NAMES = tuple(f"{flag}-{size}" for flag in FLAGS for size in SIZES)
POSITIVE = {"breastmnist": "malignant", "pneumoniamnist": "pneumonia"}


def load_medmnist(name: str, folder: str | Path | None = None) -> ImageDataset:
    """Load an official dataset; a missing file is downloaded into the data folder.

    Args:
        name: One of `NAMES`, FLAG-SIZE.
        folder: See `find_medmnist`.

    Returns:
        The dataset.

    Raises:
        InputError: If the file has the wrong MD5, or cannot be downloaded.
    """
    official = _official(name)
    path, own = find_medmnist(name, folder), _own_folder() / official.file
    if path == own and file_hash(own, "md5") != official.md5:
        print(f"{own}: damaged; downloaded again.", flush=True)
        with explaining(own):
            own.unlink()
        path = None
    path = path or download(official.url, own, expected=official.md5, hint=_hint(official))
    positive = POSITIVE.get(name.partition("-")[0], "")
    return read_npz(path, name, classes=official.classes, md5=official.md5, positive=positive)


def find_medmnist(name: str, folder: str | Path | None = None) -> Path | None:
    """Return the file of a dataset if it is on this machine.

    Args:
        name: One of `NAMES`.
        folder: First folder to look into, by default `$MEDMNIST`; then follows the data folder's
            `medmnist`.
    """
    first = folder or os.environ.get("MEDMNIST")
    folders = [Path(first).expanduser()] if first else []
    for candidate in (*folders, _own_folder()):
        if (path := candidate / _official(name).file).is_file():
            return path
    return None


def missing_medmnist(name: str) -> Missing | None:
    """Return what to do for a dataset whose file is not on this machine; `None` if it is."""
    if find_medmnist(name):
        return None
    official = _official(name)
    return Missing(name, official.url, f"download {official.url} and {_hint(official)}")


class _Official(NamedTuple):
    """Official file of a dataset: name, address, MD5, and the name of each label."""

    file: str
    url: str
    md5: str
    classes: tuple[str, ...]


def _official(name: str) -> _Official:
    with extra("evaluation"):
        from medmnist import INFO

    flag, size = name.split("-")
    info, suffix = INFO[flag], "" if size == "28" else f"_{size}"
    classes = tuple(info["label"].values())
    return _Official(f"{flag}{suffix}.npz", info[f"url{suffix}"], info[f"MD5{suffix}"], classes)


def _hint(official: _Official) -> str:
    return f"name the folder that holds {official.file} with the environment variable MEDMNIST"


def _own_folder() -> Path:
    return data_folder() / "medmnist"
