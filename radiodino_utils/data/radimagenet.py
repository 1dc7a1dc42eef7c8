"""RadImageNet in its official layout."""

import os
import re
from pathlib import Path

import pandas as pd

from ..core.errors import InputError
from ..core.files import data_folder
from .dataset import SPLITS, ImageDataset
from .tables import dataset_from_table, read_table, require_disjoint, require_trained_labels

HINT = (
    "request it at https://www.radimagenet.com "
    "and name the folder that holds RadiologyAI_train.csv with the environment variable RADIMAGENET"
)
_PATIENT = re.compile(r"(?:patient|subject|pat|sub|pid)[-_]?\w*?\d+", re.IGNORECASE)


def read_radimagenet(folder: str | Path | None = None) -> ImageDataset:
    """Read the lists of RadImageNet: 1.35 million images, 165 classes, the official splits.

    Only names are held in memory; `extract_features` goes through the images in chunks. Patients
    are known only if the file names contain them ("patient0012"); the published names do not.

    Source: Mei et al., Radiology: Artificial Intelligence 4 (2022) e210315.

    Args:
        folder: Folder with `radiology_ai/` and the official `RadiologyAI_train.csv`, `_val.csv`
            and `_test.csv` (columns filename and label); by default `$RADIMAGENET` or the data
            folder's `radimagenet`.

    Returns:
        The dataset; images are read when needed.

    Raises:
        InputError: If the folder, a file or a column is missing, splits overlap, or a label of val
            or test does not occur in train.
    """
    root = find_radimagenet(folder)
    if root is None:
        raise InputError(f"{_expected_folder(folder)}: RadImageNet is not there; {HINT}.")
    tables = []
    for split in SPLITS:
        table = read_table(root / f"RadiologyAI_{split}.csv", ("filename", "label"))
        renamed = table[["filename", "label"]].rename(columns={"filename": "path"})
        tables.append(renamed.assign(split=split))
    table = pd.concat(tables, ignore_index=True)
    require_trained_labels(table, root)
    require_disjoint(table, "path", root)
    matches = [_PATIENT.search(path) for path in table["path"]]
    patients = [match[0].lower() if match else "" for match in matches]
    caveat = "" if all(patients) else "patients are not known: the official splits may share some"
    table = table.assign(group=patients)
    return dataset_from_table(table, root, "radimagenet", source=root, caveat=caveat)


def find_radimagenet(folder: str | Path | None = None) -> Path | None:
    """Return the folder that holds the lists of RadImageNet, or `None`; see `read_radimagenet`."""
    root = _expected_folder(folder)
    return root if (root / "RadiologyAI_train.csv").is_file() else None


def _expected_folder(folder: str | Path | None) -> Path:
    default = os.environ.get("RADIMAGENET") or data_folder() / "radimagenet"
    return Path(folder or default).expanduser()
