"""Labelled sets from npz files in MedMNIST's layout, memory-mapped."""

import re
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import atomic, data_folder, file_hash, make_folder, require_space
from .picturesets import SPLITS, PictureSet, Split


def read_npz(
    path: Path,
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    md5: str | None = None,
    caveat: str = "",
    positive: str = "",
) -> PictureSet:
    """Reads a file in MedMNIST's layout: `{train,val,test}_{images,labels}`, and `{split}_ids` where there are some.

    Args:
        path: The file.
        name: Name of the set; one that starts with `npz:` may lack the split `val`.
        classes: The name of each label; the numbers by default.
        md5: Of the file, where it is known.
        caveat: See `PictureSet`.
        positive: See `PictureSet`.

    Returns:
        The set; arrays are memory-mapped.

    Raises:
        InputError: If the file is missing, damaged, another than its MD5 says, or not laid out as it must be.
    """
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
    return PictureSet(name, classes, splits, digest, caveat, positive)


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
