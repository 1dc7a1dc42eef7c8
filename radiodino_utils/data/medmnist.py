"""MedMNIST's official files: found where they lie or downloaded, and always checked by their MD5."""

import os
from pathlib import Path

from ..core.downloads import Missing, download
from ..core.extras import extra
from ..core.files import data_folder, explaining, file_hash
from .dataset import ImageDataset
from .npz import read_npz

SIZES = (28, 64, 128, 224)
_TASKS = ("binary-class", "multi-class")
_POSITIVE = {"breastmnist": "malignant", "pneumoniamnist": "pneumonia"}


def medmnist_names() -> list[str]:
    """The registered names, `FLAG-SIZE`, of the flat sets with one label a image."""
    with extra("evaluation"):
        from medmnist import INFO

    flags = [flag for flag, info in INFO.items() if info["task"] in _TASKS and "3d" not in flag]
    return [f"{flag}-{size}" for flag in flags for size in SIZES]


def find_medmnist(name: str, folder: str | Path | None = None) -> Path | None:
    """The file of a set where it lies already: in `folder` or `$MEDMNIST`, else in the data folder's `medmnist`."""
    given = folder or os.environ.get("MEDMNIST")
    places = [Path(given).expanduser()] if given else []
    paths = [place / _official(name)["file"] for place in [*places, _own_folder()]]
    return next((path for path in paths if path.is_file()), None)


def load_medmnist(name: str, *, folder: str | Path | None = None) -> ImageDataset:
    """Loads an official set; a file that lies nowhere is downloaded into the data folder.

    Args:
        name: One of `medmnist_names()`.
        folder: See `find_medmnist`.

    Returns:
        The set.

    Raises:
        InputError: If the file has the wrong MD5, or cannot be downloaded.
    """
    official = _official(name)
    path, own = find_medmnist(name, folder), _own_folder() / official["file"]
    if path == own and file_hash(own, "md5") != official["md5"]:
        print(f"{own}: damaged; downloaded again.", flush=True)
        with explaining(own):
            own.unlink()
        path = None
    path = path or download(official["url"], own, expected=official["md5"], hint=_way_out(official))
    return read_npz(
        path, name, classes=official["classes"], md5=official["md5"], positive=official["positive"]
    )


def missing_medmnist(name: str) -> Missing | None:
    """The file of a set, where it lies nowhere yet."""
    official = _official(name)
    return (
        None
        if find_medmnist(name)
        else Missing(name, official["url"], f"download {official['url']} and {_way_out(official)}")
    )


def _way_out(official: dict) -> str:
    return f"name the folder that holds {official['file']} with the environment variable MEDMNIST"


def _own_folder() -> Path:
    return data_folder() / "medmnist"


def _official(name: str) -> dict:
    with extra("evaluation"):
        from medmnist import INFO

    flag, size = name.split("-")
    info, suffix = INFO[flag], "" if size == "28" else f"_{size}"
    classes = tuple(info["label"].values())
    return {
        "file": f"{flag}{suffix}.npz",
        "url": info[f"url{suffix}"],
        "md5": info[f"MD5{suffix}"],
        "classes": classes,
        "positive": _POSITIVE.get(flag, ""),
    }
