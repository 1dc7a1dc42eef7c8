"""Labelled sets from npz files in MedMNIST's layout, memory-mapped."""

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
from .dataset import SPLITS, ImageDataset, Split


def read_npz(
    path: Path,
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    md5: str | None = None,
    caveat: str = "",
    positive: str = "",
) -> ImageDataset:
    """Reads a file in MedMNIST's layout: `{train,val,test}_{images,labels}`, and `{split}_ids`
    where there are some.

    Args:
        path: The file.
        name: Name of the set; one that starts with `npz:` may lack the split `val`.
        classes: The name of each label; the numbers by default.
        md5: Of the file, where it is known.
        caveat: See `ImageDataset`.
        positive: See `ImageDataset`.

    Returns:
        The set; arrays are memory-mapped.

    Raises:
        InputError: If the file is missing, damaged, another than its MD5 says, or not laid out as
            it must be.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such npz file.")
    digest = file_hash(path, "md5")
    if md5 and digest != md5:
        raise InputError(
            f"{path}: wrong MD5: {digest} instead of {md5}; the file is damaged or another: download it again."
        )
    arrays = _mapped(path, digest)
    splits = {}
    for split in SPLITS:
        if f"{split}_images" not in arrays and name.startswith("npz:") and split == "val":
            continue
        missing = [key for key in (f"{split}_images", f"{split}_labels") if key not in arrays]
        if missing:
            raise InputError(
                f"{path}: the keys {', '.join(missing)} are missing; MedMNIST's layout is needed."
            )
        images, labels = arrays[f"{split}_images"], np.asarray(arrays[f"{split}_labels"])
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or images.shape[3:] not in ((), (3,))
        ):
            raise InputError(
                f"{path}: {split}_images is {images.dtype} {images.shape}; uint8 [n, height, width(, 3)] is needed."
            )
        if not len(images):
            raise InputError(f"{path}: the split '{split}' is empty.")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
            raise InputError(
                f"{path}: {split}_labels is {labels.dtype} {labels.shape}; one whole number a image is needed, "
                f"({len(images)}, 1)."
            )
        if labels.min() < 0:
            raise InputError(f"{path}: {split}_labels holds {labels.min()}; labels count from 0.")
        default_ids = [f"{split}/{row:06d}" for row in range(len(images))]
        ids = [str(one) for one in arrays.get(f"{split}_ids", default_ids)]
        if len(ids) != len(images):
            raise InputError(
                f"{path}: {split}_ids holds {len(ids)} names for {len(images)} images; one each is needed."
            )
        splits[split] = Split(images, labels.reshape(-1).astype(np.int64), ids)
    highest = max(int(split.labels.max()) for split in splits.values())
    classes = classes or tuple(str(label) for label in range(highest + 1))
    if highest >= len(classes):
        raise InputError(
            f"{path}: label {highest} is outside the {len(classes)} classes of {name}."
        )
    return ImageDataset(name, classes, splits, digest, caveat, positive)


def _mapped(path: Path, digest: str) -> dict[str, np.ndarray]:
    """Unpacks an npz once, since a compressed member cannot be memory-mapped, and maps its arrays."""
    folder = data_folder() / "unpacked" / digest
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                one.filename: one
                for one in archive.infolist()
                if re.fullmatch(r"\w+\.npy", one.filename)
            }
            for name, member in members.items():
                if member.file_size > max(_LARGE, _RATIO * member.compress_size):
                    raise InputError(
                        f"{path}: {name} would unpack from {member.compress_size / 1e6:.0f} to {member.file_size / 1e6:.0f} MB, "
                        "which no images do; look at where the file comes from."
                    )
            if not all(_is_whole(folder / name, member) for name, member in members.items()):
                with locked(folder / "unpacking.lock"):
                    _unpack(archive, members, folder)
        return {
            Path(name).stem: np.load(folder / name, mmap_mode="r", allow_pickle=False)
            for name in members
        }
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"{path}: the npz file is damaged or truncated ({error}); download it again."
        ) from error


_LARGE, _RATIO = (
    1 << 30,
    200,
)  # bytes, and how much smaller than itself a larger member may be packed
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    EOFError,
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,  # encrypted; NotImplementedError: packed in an unknown way
    OverflowError,
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
    """Whether a file has the size and the CRC-32 that the archive says."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc == member.CRC
