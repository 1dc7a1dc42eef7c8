"""Splits of BUSI, and its classes as a labelled dataset."""

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError, unknown_name
from ..core.files import files_digest, value_hash
from .busi import CLASSES, Busi, read_busi
from .busi_lists import LISTS, read_lists
from .cross_validation import require_groups, stratified_parts
from .dataset import ImageDataset, Split
from .images import ImageFiles

PROTOCOLS = ("breastmnist", "folds", "lesions", *LISTS)
FOLDS = 5
NAMES = ("busi", "busi-breastmnist", *(f"busi-fold{fold}" for fold in range(FOLDS)))
CAVEATS = {
    "breastmnist": "near duplicates lie across the official splits",
    **dict.fromkeys(LISTS, "near duplicates lie across the public lists"),
}


def busi_dataset(name: str, folder: str | Path | None = None) -> ImageDataset:
    """Load the three classes of BUSI as a labelled dataset.

    Args:
        name: One of `NAMES`: `busi` (one split, "all"), `busi-breastmnist`, or `busi-fold0` to
            `busi-fold4`; see `busi_splits`.
        folder: See `read_busi`.

    Returns:
        The dataset; ids are the names of BUSI, groups its duplicates.

    Raises:
        InputError: See `read_busi` and `busi_splits`.
    """
    busi, kind = read_busi(folder), name.removeprefix("busi-")
    if kind == "busi":
        rows = {"all": np.arange(len(busi))}
    elif kind == "breastmnist":
        rows = busi_splits(busi, "breastmnist")
    else:
        rows = busi_splits(busi, "folds", fold=int(kind.removeprefix("fold")))
    groups = busi.groups.astype(str)
    splits = {
        split: Split(
            ImageFiles(
                busi.images.root, [busi.images.names[row] for row in part.tolist()], grey=True
            ),
            busi.labels[part],
            [busi.names[row] for row in part.tolist()],
            groups[part].tolist(),
        )
        for split, part in rows.items()
    }
    content = files_digest(busi.images.root, busi.images.names)
    digest = value_hash([content, {split: part.tolist() for split, part in rows.items()}])
    return ImageDataset(
        name,
        CLASSES,
        splits,
        digest,
        CAVEATS.get(kind, ""),
        unit="cluster",
        groups_from="near duplicates",
        fold_of="busi-folds" if kind.startswith("fold") else "",
    )


def busi_splits(
    busi: Busi, protocol: str, *, seed: int = 0, fold: int = 0
) -> dict[str, np.ndarray]:
    """Split BUSI by a named protocol.

    Args:
        busi: Release read by `read_busi`.
        protocol: `breastmnist`: the official split of BreastMNIST, which is made from BUSI
            (duplicates lie across its splits). `folds`: one of five folds is the test split, one
            fifth of the rest validation. `lesions`: only images with a lesion, 70 / 10 / 20
            percent. `list1` to `list3`: public lists (see `busi_lists`), whose second part is the
            test split; a tenth of the first is for validation. What is drawn here is stratified by
            class and keeps duplicates together.
        seed: Seed of what is drawn.
        fold: Which of the five `folds` is the test split.

    Returns:
        Rows of "train", "val" and "test", int64; sorted for `folds` and `lesions`, in the order of
        BreastMNIST or of the list for the others.

    Raises:
        InputError: If the protocol or fold is unknown, images of BreastMNIST or lists are missing,
            or a class is too small.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("split of BUSI", protocol, PROTOCOLS)
    if not 0 <= fold < FOLDS:
        raise InputError(f"fold {fold}: there are {FOLDS} folds, 0 to {FOLDS - 1}.")
    if protocol == "breastmnist":
        return _official(busi)
    if protocol in LISTS:
        listed = read_lists(protocol, busi.names)
        train, parts = listed["train"], _parts(busi, listed["train"], 10, seed)
        return {"train": train[parts != 0], "val": train[parts == 0], "test": listed["test"]}
    if protocol == "folds":
        rows = np.arange(len(busi))
        parts = _parts(busi, rows, FOLDS, seed)
        test, rest = rows[parts == fold], rows[parts != fold]
        parts = _parts(busi, rest, FOLDS, seed)
        return {"train": rest[parts != 0], "val": rest[parts == 0], "test": test}
    rows = np.flatnonzero(busi.labels != CLASSES.index("normal"))
    parts = _parts(busi, rows, 10, seed)
    return {"train": rows[parts > 2], "val": rows[parts == 2], "test": rows[parts < 2]}


def _parts(busi: Busi, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assign each row to one of `count` parts, int64 [rows]."""
    labels, groups = busi.labels[rows], busi.groups[rows]
    require_groups(labels, groups, CLASSES, count, name="BUSI", unit="cluster")
    return stratified_parts(labels, groups, count, seed=seed)


def _official(busi: Busi) -> dict[str, np.ndarray]:
    with resources.as_file(resources.files(__package__) / "breastmnist_busi.csv") as path:
        table = pd.read_csv(path)
    row_of = {name: row for row, name in enumerate(busi.names)}
    if absent := [name for name in table["name"] if name not in row_of]:
        raise InputError(
            f"BUSI: {len(absent)} of BreastMNIST's images are missing, first '{absent[0]}'; "
            "use the whole release."
        )
    return {
        split: np.array([row_of[name] for name in part["name"]], np.int64)
        for split, part in table.groupby("split", sort=False)
    }
