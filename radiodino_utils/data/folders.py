"""Labelled sets from image files: class folders, CSV lists, and RadImageNet."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.files import data_folder, explaining, files_digest, require_inside, value_hash
from .dataset import SPLITS, ImageDataset, Split
from .images import SUFFIXES, ImageFiles

RADIMAGENET_HINT = (
    "request it at https://www.radimagenet.com "
    "and name the folder that holds RadiologyAI_train.csv with the environment variable RADIMAGENET"
)
_PATIENT = re.compile(r"(?:patient|subject|pat|sub|pid)[-_]?\w*?\d+", re.IGNORECASE)


def read_folder(root: Path, name: str) -> ImageDataset:
    """Reads a folder of class folders, or of such folders inside `train`, `val` and `test`
    (torchvision's ImageFolder).

    Args:
        root: The folder.
        name: Name of the set.

    Returns:
        The set; without split folders its one split is "all". Of two classes the last one in sorted
        order is positive, unless `load_dataset(..., positive=...)` says otherwise. Images are read
        when asked for.

    Raises:
        InputError: If a folder is missing or empty, or a class has one image.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    tops = [split for split in SPLITS if (root / split).is_dir()]
    parts = {split: root / split for split in tops} or {"all": root}
    folders = {
        folder.name for part in parts.values() for folder in part.iterdir() if folder.is_dir()
    }
    classes = sorted(name for name in folders if not name.startswith("."))
    if not classes:
        raise InputError(
            f"{root}: holds no class folders; put the images of each class into a folder of its name."
        )
    tables = []
    for split, part in parts.items():
        paths = [
            (path.relative_to(root).as_posix(), label, split)
            for label in classes
            for path in sorted((part / label).rglob("*"))
            if path.is_file()
            and path.name.lower().endswith(SUFFIXES)
            and not path.name.startswith(".")
        ]
        if not paths:
            raise InputError(f"{part}: the split '{split}' is empty: it holds no image files.")
        tables.append(pd.DataFrame(paths, columns=["path", "label", "split"]))
    return _from_table(pd.concat(tables, ignore_index=True), root, name, str(root))


def read_list(path: Path, name: str) -> ImageDataset:
    """Reads a CSV list with the columns path and label, and if wanted split, group and positive.

    Args:
        path: The CSV file; the paths in it count from its folder and stay in it, unless the
            environment variable RADIODINO_OUTSIDE_PATHS is 1. A `split` is train, val or test;
            without the column all images are in the split "all". Images of one `group`, such as a
            patient, must lie in one split. The column `positive` names the positive class of two,
            in one line or in all; without it the last one in sorted order is.
        name: Name of the set.

    Returns:
        The set. Images are read when asked for.

    Raises:
        InputError: If a column or a file is missing, a label, split or group is empty or unknown,
            splits overlap, a class has one image, or the positive class is none of two or named
            twice.
    """
    table = _read_csv(path, ("path", "label"))
    table = table if "split" in table else table.assign(split="all")
    if odd := sorted(set(table["split"]) - {*SPLITS, "all"}):
        raise InputError(
            f"{path}: unknown split '{odd[0]}'; the column split holds {', '.join(SPLITS)}."
        )
    _refuse_unknown_labels(table, path)
    _refuse_overlap(table, "path", path)
    if "group" in table:
        _refuse_overlap(table[table["group"] != ""], "group", path)
    declared = sorted(set(table["positive"]) - {""}) if "positive" in table else []
    if len(declared) > 1:
        raise InputError(
            f"{path}: the column positive names {', '.join(declared)}; only one class can be the positive one."
        )
    return _from_table(
        table, path.parent, name, str(path), positive=declared[0] if declared else ""
    )


def read_radimagenet(folder: str | Path | None = None) -> ImageDataset:
    """Finds RadImageNet (Mei et al., Radiology: Artificial Intelligence 4 (2022) e210315): 1.35
    million images, 165 classes.

    Nothing but the names is held in memory; `extract_features` goes through the images in chunks.
    The official splits are taken as they are. Patients are known only where the file names tell
    them ("patient0012"); the published names do not.

    Args:
        folder: With `radiology_ai/` and the official `RadiologyAI_train.csv`, `_val.csv` and
            `_test.csv` (columns filename and label); `$RADIMAGENET` or the data folder's
            `radimagenet` by default.

    Returns:
        The set. Images are read when asked for.

    Raises:
        InputError: If it is not there, a file or column is missing, or a label of val or test does
            not occur in train.
    """
    root = find_radimagenet(folder)
    if root is None:
        raise InputError(
            f"{folder or os.environ.get('RADIMAGENET') or data_folder() / 'radimagenet'}: RadImageNet is not there; "
            f"{RADIMAGENET_HINT}."
        )
    tables = []
    for split in SPLITS:
        table = _read_csv(root / f"RadiologyAI_{split}.csv", ("filename", "label"))
        tables.append(
            table[["filename", "label"]].rename(columns={"filename": "path"}).assign(split=split)
        )
    table = pd.concat(tables, ignore_index=True)
    _refuse_unknown_labels(table, root)
    _refuse_overlap(table, "path", root)
    patients = [
        match[0].lower() if (match := _PATIENT.search(name)) else "" for name in table["path"]
    ]
    caveat = "" if all(patients) else "patients are not known: the official splits may share some"
    return _from_table(table.assign(group=patients), root, "radimagenet", str(root), caveat)


def find_radimagenet(folder: str | Path | None = None) -> Path | None:
    """The folder that holds RadImageNet's split files, if there is one; see `read_radimagenet`."""
    root = Path(
        folder or os.environ.get("RADIMAGENET") or data_folder() / "radimagenet"
    ).expanduser()
    return root if (root / "RadiologyAI_train.csv").is_file() else None


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Text columns without gaps."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such CSV file.")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a CSV file that can be read ({str(error).strip()})."
        ) from error
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{path}: the columns {', '.join(missing)} are missing; it has {', '.join(table.columns)}."
        )
    if table.empty:
        raise InputError(f"{path}: lists no images.")
    require_inside(table[columns[0]], path)
    for column in columns:
        if len(bare := np.flatnonzero(table[column] == "")):
            raise InputError(
                f"{path}, line {bare[0] + 2}: the {column} is empty; every image needs one."
            )
    return table


def _refuse_unknown_labels(table: pd.DataFrame, source: Path) -> None:
    learnt = set(table.loc[table["split"] == "train", "label"])
    if learnt and len(odd := table[~table["label"].isin(learnt)]):
        label, split = odd[["label", "split"]].iloc[0]
        raise InputError(
            f"{source}: unknown label '{label}' in {split}: train has no image of it; add some, or leave it out."
        )


def _refuse_overlap(table: pd.DataFrame, column: str, source: Path) -> None:
    splits = table.groupby(column, sort=False)["split"].nunique()
    if len(shared := splits[splits > 1]):
        which = sorted(set(table.loc[table[column] == shared.index[0], "split"]), key=SPLITS.index)
        raise InputError(
            f"{source}: the splits overlap: {column} '{shared.index[0]}' is in {' and '.join(which)} "
            f"({len(shared)} such); put each into one split."
        )
    if column == "path" and len(twice := table["path"][table["path"].duplicated()]):
        raise InputError(
            f"{source}: '{twice.iloc[0]}' is listed twice ({len(twice)} such); list each image once."
        )


def _from_table(
    table: pd.DataFrame, root: Path, name: str, source: str, caveat: str = "", *, positive: str = ""
) -> ImageDataset:
    """Makes a set of a table with path, label, split and perhaps group, in the order of its rows."""
    classes = sorted(set(table["label"]))
    counts = table["label"].value_counts()
    if table["split"].nunique() > 1 and counts.min() == 1:
        raise InputError(
            f"{source}: the class '{counts.idxmin()}' has one image; it cannot be both learnt and tested: leave it out."
        )
    missing = [path for path in table["path"] if not (root / path).is_file()]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(table)} listed files are missing, first '{missing[0]}'; add them."
        )
    with explaining(root):
        content = files_digest(root, table["path"].tolist())
    digest = value_hash([content, *table[["label", "split"]].to_numpy().tolist()])
    splits = {}
    for split in [one for one in (*SPLITS, "all") if one in set(table["split"])]:
        part = table[table["split"] == split]
        paths = part["path"].tolist()
        labels = pd.Categorical(part["label"], categories=classes).codes.astype(np.int64)
        groups = part["group"].tolist() if "group" in part and (part["group"] != "").all() else None
        splits[split] = Split(ImageFiles(root, paths), labels, paths, groups)
    return ImageDataset(name, tuple(classes), splits, digest, caveat, positive)
