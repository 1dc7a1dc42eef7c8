"""Datasets from npz files in MedMNIST's layout, memory-mapped."""

import lzma
import re
import shutil
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import atomic, data_folder, file_hash, require_space
from ..core.locks import locked
from .dataset import SPLITS, UNPACKED, ImageDataset, Split
from .open_names import UNLABELLED

_LARGE = 1 << 30  # bytes; a larger member must not be packed to less than 1 / _RATIO of its size
_RATIO = 200
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(EOFError, OSError, SyntaxError, ValueError, OverflowError),
    RuntimeError,  # encrypted; its subclass NotImplementedError: packed in an unknown way
)


def read_npz(
    path: Path,
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    md5: str | None = None,
    caveat: str = "",
    positive: str = "",
    any_splits: bool = False,
) -> ImageDataset:
    """Read a file in MedMNIST's layout.

    The arrays are `{train,val,test}_images` and `_labels`, and optionally `_ids`.

    Args:
        path: The file.
        name: Name of the dataset.
        classes: Name of each label; the numbers by default.
        md5: Expected MD5 of the file, if it is known.
        caveat: See `ImageDataset`.
        positive: See `ImageDataset`.
        any_splits: Whether `val` or `test` may be missing, and `images`, `labels` and `ids` without
            a split in their names are read as the split "all"; without `labels` the one class is
            `UNLABELLED`.

    Returns:
        The dataset; arrays are memory-mapped.

    Raises:
        InputError: If the file is missing, damaged, has another MD5, or another layout.
    """
    arrays, digest = mapped_arrays(path, md5=md5)
    required = {"train"} if any_splits else {*SPLITS}
    if any_splits and "images" in arrays:
        if "labels" not in arrays:
            arrays["labels"] = np.zeros(arrays["images"].shape[:1], np.uint8)
            classes = (UNLABELLED,)
        splits = {"all": _read_split(arrays, "all", path)}
    else:
        names = [name for name in SPLITS if f"{name}_images" in arrays or name in required]
        splits = {name: _read_split(arrays, name, path) for name in names}
    highest = max(int(split.labels.max()) for split in splits.values())
    classes = classes or tuple(str(label) for label in range(highest + 1))
    if highest >= len(classes):
        raise InputError(
            f"{path}: label {highest} is outside the {len(classes)} classes of {name}."
        )
    return ImageDataset(name, classes, dict(splits), digest, caveat, positive)


def mapped_arrays(path: Path, *, md5: str | None = None) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays of an npz file, memory-mapped, and its MD5.

    Args:
        path: The file.
        md5: Expected MD5 of the file, if it is known.

    Raises:
        InputError: If the file is missing, damaged, or has another MD5.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such npz file.")
    digest = file_hash(path, "md5")
    if md5 and digest != md5:
        raise InputError(
            f"{path}: wrong MD5: {digest} instead of {md5}; "
            "the file is damaged or another: download it again."
        )
    return _mapped(path, digest), digest


def _read_split(arrays: dict[str, np.ndarray], split: str, path: Path) -> Split:
    """Return a split after checking its arrays."""
    prefix = "" if split == "all" else f"{split}_"
    missing = [key for key in (f"{prefix}images", f"{prefix}labels") if key not in arrays]
    if missing:
        raise InputError(
            f"{path}: the keys {', '.join(missing)} are missing (it holds "
            f"{', '.join(arrays) or 'none'}); save `images` and `labels`, or both with train_, "
            "val_ and test_ before their names."
        )
    images, labels = arrays[f"{prefix}images"], np.asarray(arrays[f"{prefix}labels"])
    is_image = images.ndim in (3, 4) and images.shape[3:] in ((), (3,))
    if images.dtype != np.uint8 or not is_image:
        raise InputError(
            f"{path}: {prefix}images is {images.dtype} {images.shape}; "
            "uint8 [n, height, width(, 3)] is needed: scale the values to 0..255 by one rule."
        )
    if not len(images):
        raise InputError(f"{path}: the split '{split}' is empty.")
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: {prefix}labels is {labels.dtype} {labels.shape}; "
            f"one whole number per image is needed, ({len(images)}, 1): number the classes from 0."
        )
    if labels.min() < 0:
        raise InputError(f"{path}: {prefix}labels holds {labels.min()}; labels count from 0.")
    default_ids = [f"{split}/{row:06d}" for row in range(len(images))]
    ids = [str(name) for name in arrays.get(f"{prefix}ids", default_ids)]
    if len(ids) != len(images):
        raise InputError(
            f"{path}: {prefix}ids holds {len(ids)} names for {len(images)} images; "
            "one each is needed."
        )
    return Split(images, labels.reshape(-1).astype(np.int64), ids)


def _mapped(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Unpack an archive once, since a compressed member cannot be mapped, and map its arrays."""
    folder = data_folder() / UNPACKED / digest
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                member.filename: member
                for member in archive.infolist()
                if re.fullmatch(r"\w+\.npy", member.filename)
            }
            for name, member in members.items():
                _refuse_bomb(path, name, member)
            if not all(_is_whole(folder / name, member) for name, member in members.items()):
                with locked(folder / "unpacking.lock"):
                    _unpack(archive, members, folder)
        return {
            Path(name).stem: np.load(folder / name, mmap_mode="r", allow_pickle=False)
            for name in members
        }
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the npz file is damaged or truncated ({error}); download it again."
        ) from error


def _refuse_bomb(path: Path, name: str, member: zipfile.ZipInfo) -> None:
    if member.file_size > max(_LARGE, _RATIO * member.compress_size):
        packed, unpacked = member.compress_size / 1e6, member.file_size / 1e6
        raise InputError(
            f"{path}: {name} would unpack from {packed:.0f} to {unpacked:.0f} MB, "
            "which no images do; look at where the file comes from."
        )


def _unpack(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    missing = {
        name: member for name, member in members.items() if not _is_whole(folder / name, member)
    }
    require_space(folder, sum(member.file_size for member in missing.values()))
    for name, member in missing.items():
        if (folder / name).exists():
            print(f"{folder / name}: damaged; unpacked again.", flush=True)
        with (
            atomic(folder / name) as temporary,
            archive.open(member) as source,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(source, file)


def _is_whole(path: Path, member: zipfile.ZipInfo) -> bool:
    """Return whether a file has the size and the CRC-32 that the archive states."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc == member.CRC
