"""Datasets from a folder of class folders, or from a CSV list of image files."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.files import value_hash
from .dataset import SPLITS, ImageDataset
from .folder_layout import (
    image_files,
    is_ignored,
    is_image_file,
    split_folders,
    split_of,
    stem_of,
)
from .images import ImageFiles
from .intensity import OPTIONS, Rule, parse_rule, rule_text
from .labels import parse_renames, renamed_labels
from .open_names import UNLABELLED, OpenName
from .tables import (
    LISTS,
    completed_names,
    dataset_from_table,
    read_table,
    require_disjoint,
    require_trained_labels,
)

SYNONYMS = {
    "path": ("path", "filename", "file", "filepath", "image", "image_path"),
    "label": ("label", "class", "diagnosis"),
    "split": ("split", "subset"),
    "group": ("group",),
    "patient": ("patient", "patient_id", "subject", "subject_id", "participant", "participant_id"),
    "positive": ("positive",),
}


def read_images(opened: OpenName, name: str, *, tolerated: float | None = None) -> ImageDataset:
    """Read the images of an open name such as `folder:PATH?labels=LIST.csv`.

    Args:
        opened: A folder or a list; the option `labels` names a list of the images in the folder, or
            says that they are unlabelled; `window` and `percentile` are one rule for all images,
            see `intensity.parse_rule`; `rename` gives labels new names, see `labels.parse_renames`.
        name: Name of the dataset.
        tolerated: See `tables.dataset_from_table`.

    Returns:
        See `read_folder`, `read_list` and `read_unlabelled`.

    Raises:
        InputError: See these, or if an option is unknown.
    """
    opened.require_options(("labels", "rename", *OPTIONS))
    renames = parse_renames(opened.options.get("rename", ""))
    root, rule = opened.root, parse_rule(opened.options)
    if opened.is_unlabelled:
        dataset = read_unlabelled(root, name, tolerated=tolerated)
    elif opened.labels:
        dataset = read_list(opened.labels, name, root=root, renames=renames, tolerated=tolerated)
    elif root.name.lower().endswith(LISTS) and not root.is_dir():
        dataset = read_list(root, name, renames=renames, tolerated=tolerated)
    else:
        dataset = read_folder(root, name, renames=renames, tolerated=tolerated)
    return dataset if rule is None else _with_rule(dataset, rule)


def _with_rule(dataset: ImageDataset, rule: Rule) -> ImageDataset:
    """Return a dataset of files whose grey levels follow one rule."""
    splits = {}
    for name, split in dataset.splits.items():
        assert isinstance(split.images, ImageFiles)
        splits[name] = replace(split, images=replace(split.images, window=rule))
    text = rule_text(rule)
    digest = value_hash([dataset.digest, text])
    return replace(dataset, splits=splits, digest=digest, intensity=text)


def read_unlabelled(root: Path, name: str, *, tolerated: float | None = None) -> ImageDataset:
    """Read all images of a folder and its subfolders, without labels.

    Args:
        root: The folder.
        name: Name of the dataset.
        tolerated: See `tables.dataset_from_table`.

    Returns:
        The dataset with the one split "all" and the one class `UNLABELLED`.

    Raises:
        InputError: If the folder is missing or holds no image files.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    images, masks = image_files(root)
    if not images:
        raise InputError(f"{root}: holds no image files.")
    _warn_of("masks beside their images", masks, root)
    paths = [path.relative_to(root).as_posix() for path in images]
    table = pd.DataFrame({"path": paths, "label": UNLABELLED, "split": "all"})
    return dataset_from_table(table, root, name, source=root, tolerated=tolerated)


def read_folder(
    root: Path,
    name: str,
    *,
    renames: Mapping[str, str] | None = None,
    tolerated: float | None = None,
) -> ImageDataset:
    """Read a folder of class folders, or of such folders inside split folders.

    The layout is that of torchvision's ImageFolder. Split folders have a name of
    `folder_layout.split_of` in any case, such as `Training`, `valid` and `test`.

    Args:
        root: The folder.
        name: Name of the dataset.
        renames: New name of labels.
        tolerated: See `tables.dataset_from_table`.

    Returns:
        The dataset; without split folders its only split is "all". Images are read when needed.

    Raises:
        InputError: If a folder is missing or empty, a class has one image, the splits have
            different classes, or folders of splits and of classes stand side by side.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    parts = split_folders(root) or {"all": root}
    entries = [entry for part in parts.values() for entry in part.iterdir() if entry.is_dir()]
    classes = sorted({entry.name for entry in entries if not is_ignored(entry.name)})
    if not classes:
        raise InputError(
            f"{root}: holds no class folders; "
            "put the images of each class into a folder of its name."
        )
    rows, all_masks = [], []
    for split, part in parts.items():
        found = {label: image_files(part / label) for label in classes}
        if not any(images for images, _ in found.values()):
            raise InputError(f"{part}: the split '{split}' is empty: it holds no image files.")
        for label, (images, masks) in found.items():
            rows += [(path.relative_to(root).as_posix(), label, split) for path in images]
            all_masks += masks
    _warn_of("masks beside their images", all_masks, root)
    _warn_of("images outside the class folders", _loose_images({root, *parts.values()}), root)
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    table["label"] = renamed_labels(table["label"], renames or {}, root)
    _require_single_files(table["path"], root)
    dataset = dataset_from_table(table, root, name, source=root, tolerated=tolerated)
    _require_equal_classes(table, root)
    return dataset


def _loose_images(folders: set[Path]) -> list[Path]:
    """Return the images directly in folders."""
    files = (path for folder in folders for path in folder.iterdir() if path.is_file())
    return sorted(path for path in files if not is_ignored(path.name) and is_image_file(path))


def _warn_of(what: str, paths: list[Path], root: Path) -> None:
    """Warn of images that are left out."""
    if paths:
        first = paths[0].relative_to(root).as_posix()
        warnings.warn(f"{root}: {len(paths)} {what} are left out, first '{first}'.", stacklevel=5)


def _require_single_files(names: Iterable[str], root: Path) -> None:
    """Check that no symbolic link brings an image in twice, perhaps under another label."""
    first: dict[Path, str] = {}
    for name in names:
        if "\0" in name:
            raise InputError(f"{root}: {name!r} is no file name; correct the list.")
        other = first.setdefault((root / name).resolve(), name)
        if other != name:
            raise InputError(
                f"{root}: '{name}' and '{other}' are one file by a symbolic link; remove the link."
            )


def _require_equal_classes(table: pd.DataFrame, root: Path) -> None:
    """Check that each split has images of each class."""
    classes = set(table["label"])
    for split, labels in table.groupby("split", sort=False)["label"]:
        if absent := sorted(classes - set(labels)):
            raise InputError(
                f"{root}: the split '{split}' has no image of the class '{absent[0]}'; "
                "add some, or leave the class out of the other splits."
            )


def read_list(
    path: Path,
    name: str,
    *,
    root: Path | None = None,
    renames: Mapping[str, str] | None = None,
    tolerated: float | None = None,
) -> ImageDataset:
    """Read a CSV list with the columns path and label, and optionally further ones.

    These are split, patient or group, and positive.

    Columns may have another name of `SYNONYMS`, in any case.

    Args:
        path: The CSV file, see `tables.read_table`. Its paths are relative to `root` and stay
            inside it, unless the environment variable RADIODINO_OUTSIDE_PATHS is 1. A `split` is
            train, val or test, or another name of `folder_layout.split_of`; without the column
            the only split is "all". Images of one `patient`, or of one `group` where there is such
            a column, must be in one split.
            The column `positive` names the positive class of two, in one row or in all; without it
            the last class in sorted order is positive.
        name: Name of the dataset.
        root: Folder of the images; by default that of the list. With it a list may name files
            without their folders or suffixes, or name patients alone: then a folder or file of each
            image has the name of its patient, or the file's begins with it and `_`.
        renames: New name of labels.
        tolerated: See `tables.dataset_from_table`.

    Returns:
        The dataset; images are read when needed.

    Raises:
        InputError: If a column or a file is missing, a label or split is empty or unknown, only
            some images have a patient or group, splits overlap, a class has one image, or the
            positive class does not exist or is ambiguous, or the splits have different classes.
    """
    table, folder = _listed(path, root), root or path.parent
    table = table if "split" in table else table.assign(split="all")
    table["split"] = [split_of(split) or split for split in table["split"]]
    table["label"] = renamed_labels(table["label"], renames or {}, path)
    if unknown_splits := sorted(set(table["split"]) - {*SPLITS, "all"}):
        raise InputError(
            f"{path}: unknown split '{unknown_splits[0]}'; "
            f"the column split holds {', '.join(SPLITS)}."
        )
    require_trained_labels(table, path)
    require_disjoint(table, "path", path)
    _require_single_files(table["path"], folder)
    unit = next((name for name in ("group", "patient") if name in table), "")
    if unit:
        _require_filled(table[unit], path)
        require_disjoint(table[table[unit] != ""], unit, path)
    declared = sorted(set(table["positive"]) - {""}) if "positive" in table else []
    if len(declared) > 1:
        raise InputError(
            f"{path}: the column positive names {', '.join(declared)}; "
            "only one class can be the positive one."
        )
    positive = declared[0] if declared else ""
    table = table.rename(columns={unit: "group"})
    dataset = dataset_from_table(
        table, folder, name, source=path, positive=positive, tolerated=tolerated
    )
    _require_equal_classes(table, path)
    return replace(dataset, unit=unit, groups_from=f"column {unit}") if unit else dataset


def _listed(path: Path, root: Path | None) -> pd.DataFrame:
    """Read the list of `read_list`, with the path of each image in the folder."""
    if root is None or not root.is_dir():
        return read_table(path, ("path", "label"), synonyms=SYNONYMS)
    images = [image.relative_to(root).as_posix() for image in image_files(root)[0]]
    table = read_table(path, ("label",), synonyms=SYNONYMS)
    if "path" not in table:
        if "patient" not in table:
            raise InputError(
                f"{path}: a column path or patient is needed beside label; it has "
                f"{', '.join(table.columns)}."
            )
        return _of_patients(table, images, path)
    table = read_table(path, ("path", "label"), synonyms=SYNONYMS)
    return table.assign(path=completed_names(table["path"], images, path))


def _of_patients(table: pd.DataFrame, images: list[str], source: Path) -> pd.DataFrame:
    """Return a row per image of a list of patients, by the names of folders or files."""
    patients = table["patient"]
    if len(repeated := patients[patients.duplicated()]):
        raise InputError(f"{source}: the patient '{repeated.iloc[0]}' is listed twice.")
    known, rows, without = set(patients), [], []
    for image in images:
        parts = stem_of(image).split("/")
        found = known & {*parts} or known & {parts[-1].partition("_")[0]}
        if len(found) > 1:
            raise InputError(
                f"{source}: {image} has the names of the patients {', '.join(sorted(found))}; list "
                "the images instead, in a column path."
            )
        rows += [(image, patient) for patient in found]
        without += [] if found else [image]
    if absent := sorted(known - {patient for _, patient in rows}):
        raise InputError(
            f"{source}: {len(absent)} of {len(known)} patients have no image, first '{absent[0]}': "
            "no folder or file has this name, no file begins with it and '_'; mend the list, or "
            "list the images in a column path."
        )
    if without:
        count = f"{len(without)} images of no listed patient"
        warnings.warn(f"{source}: {count} are left out, first '{without[0]}'.", stacklevel=4)
    return pd.DataFrame(rows, columns=["path", "patient"]).merge(table, on="patient")


def _require_filled(groups: pd.Series, path: Path) -> None:
    """Check that all images have a group, or none has one."""
    empty = np.flatnonzero(groups.str.strip() == "")
    if 0 < len(empty) < len(groups):
        raise InputError(
            f"{path}, line {empty[0] + 2}: the {groups.name} is empty ({len(empty)} such); "
            "give every image one, or leave the column out."
        )
