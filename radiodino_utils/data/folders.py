"""Datasets from a folder of class folders, or from a CSV list of image files."""

from pathlib import Path

import pandas as pd

from ..core.errors import InputError
from .dataset import SPLITS, ImageDataset
from .images import SUFFIXES
from .tables import dataset_from_table, read_table, require_disjoint, require_trained_labels


def read_folder(root: Path, name: str) -> ImageDataset:
    """Read a folder of class folders, or of such folders inside `train`, `val` and `test`.

    The layout is that of torchvision's ImageFolder.

    Args:
        root: The folder.
        name: Name of the dataset.

    Returns:
        The dataset; without split folders its only split is "all". Images are read when needed.

    Raises:
        InputError: If a folder is missing or empty, or a class has one image.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    parts = {split: root / split for split in SPLITS if (root / split).is_dir()} or {"all": root}
    entries = [entry for part in parts.values() for entry in part.iterdir() if entry.is_dir()]
    classes = sorted({entry.name for entry in entries if not entry.name.startswith(".")})
    if not classes:
        raise InputError(
            f"{root}: holds no class folders; "
            "put the images of each class into a folder of its name."
        )
    rows = []
    for split, part in parts.items():
        paths = {label: _image_files(part / label) for label in classes}
        if not any(paths.values()):
            raise InputError(f"{part}: the split '{split}' is empty: it holds no image files.")
        for label in classes:
            rows += [(path.relative_to(root).as_posix(), label, split) for path in paths[label]]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    return dataset_from_table(table, root, name, source=root)


def _image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
    ]


def read_list(path: Path, name: str) -> ImageDataset:
    """Read a CSV list with the columns path and label, and optionally split, group and positive.

    Args:
        path: The CSV file. Its paths are relative to its folder and stay inside it, unless the
            environment variable RADIODINO_OUTSIDE_PATHS is 1. A `split` is train, val or test;
            without the column the only split is "all". Images of one `group`, such as a patient,
            must be in one split. The column `positive` names the positive class of two, in one
            row or in all; without it the last class in sorted order is positive.
        name: Name of the dataset.

    Returns:
        The dataset; images are read when needed.

    Raises:
        InputError: If a column or a file is missing, a label, split or group is empty or unknown,
            splits overlap, a class has one image, or the positive class does not exist or is
            ambiguous.
    """
    table = read_table(path, ("path", "label"))
    table = table if "split" in table else table.assign(split="all")
    if unknown_splits := sorted(set(table["split"]) - {*SPLITS, "all"}):
        raise InputError(
            f"{path}: unknown split '{unknown_splits[0]}'; "
            f"the column split holds {', '.join(SPLITS)}."
        )
    require_trained_labels(table, path)
    require_disjoint(table, "path", path)
    if "group" in table:
        require_disjoint(table[table["group"] != ""], "group", path)
    declared = sorted(set(table["positive"]) - {""}) if "positive" in table else []
    if len(declared) > 1:
        raise InputError(
            f"{path}: the column positive names {', '.join(declared)}; "
            "only one class can be the positive one."
        )
    positive = declared[0] if declared else ""
    return dataset_from_table(table, path.parent, name, source=path, positive=positive)
