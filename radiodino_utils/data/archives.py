"""Images in zip and tar archives, read without extracting anything.

No path inside an archive can therefore lead anywhere.
"""

import gzip
import io
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .readers import Reader
from .reading import SUFFIXES, decode_image

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_BYTES = 1 << 30  # of a member, as it lies in the archive and unpacked
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    NotImplementedError,
)


def archive_readers(path: Path) -> list[tuple[str, Reader]]:
    """Return name and reader of each image of an archive.

    Args:
        path: A file whose name ends in one of `ARCHIVES`.

    Raises:
        InputError: If the archive is damaged or truncated.
    """
    with _damage(path):
        return _zip_readers(path) if path.name.lower().endswith(".zip") else _tar_readers(path)


def archive_members(path: Path) -> list[str]:
    """Return the names of the files in an archive, without their content.

    Raises:
        InputError: If the archive is damaged or truncated.
    """
    with _damage(path):
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                return [info.filename for info in archive.infolist() if not info.is_dir()]
        with tarfile.open(path) as tar:
            members = [member.name for member in tar if member.isfile()]
            _require_end(tar)
        return members


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the archive is damaged or truncated ({error}); copy or download it again."
        ) from error


def is_image(member: str) -> bool:
    """Return whether a path has the suffix of an image, and is no hidden file."""
    is_hidden = Path(member).name.startswith(".") or "__MACOSX" in member
    return member.lower().endswith(SUFFIXES) and not is_hidden


@dataclass(frozen=True)
class _ZipReader(Reader):
    path: Path
    member: str

    def __str__(self) -> str:
        return f"{self.path}:{self.member}"

    def _read(self) -> np.ndarray:
        archive = _opened(self.path)
        _check_size(archive.getinfo(self.member).file_size, str(self))
        with archive.open(self.member) as file:
            return _decode(file.read(MAX_BYTES + 1), str(self))


@dataclass(frozen=True)
class _TarReader(Reader):
    """Reads a member of an uncompressed tar at its position."""

    path: Path
    member: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}:{self.member}"

    def _read(self) -> np.ndarray:
        _check_size(self.size, str(self))
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return _decode(file.read(self.size), str(self))


@dataclass(frozen=True)
class _BytesReader(Reader):
    """Decodes a member of a compressed tar, whose members are reached only one after another.

    Attributes:
        data: The member's bytes; empty where they are too many.
        size: Number of bytes in the archive.
        name: Name for messages.
    """

    data: bytes
    size: int
    name: str

    def __str__(self) -> str:
        return self.name

    def _read(self) -> np.ndarray:
        _check_size(self.size, self.name)
        return _decode(self.data, self.name)


def _zip_readers(path: Path) -> list[tuple[str, Reader]]:
    with zipfile.ZipFile(path) as archive:
        members = [info.filename for info in archive.infolist() if is_image(info.filename)]
    return [(member, _ZipReader(path, member)) for member in sorted(members)]


def _tar_readers(path: Path) -> list[tuple[str, Reader]]:
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile() and is_image(member.name)]
        _require_end(archive)
        if path.name.lower().endswith(".tar"):
            return [
                (member.name, _TarReader(path, member.name, member.offset_data, member.size))
                for member in members
            ]
        return [(member.name, _bytes_reader(archive, member, path)) for member in members]


def _require_end(archive: tarfile.TarFile) -> None:
    """Check that the archive has its end mark: tarfile takes a cut between members for the end."""
    assert archive.fileobj is not None  # of an open archive
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")


def _bytes_reader(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> _BytesReader:
    file = archive.extractfile(member) if member.size <= MAX_BYTES else None
    return _BytesReader(file.read() if file else b"", member.size, f"{path}:{member.name}")


_open_archives: dict[tuple[Path, int], zipfile.ZipFile] = {}


def _opened(path: Path) -> zipfile.ZipFile:
    """Return the zip file, opened once by each process: processes must not share a position."""
    key = (path, os.getpid())
    if key not in _open_archives:
        _open_archives[key] = zipfile.ZipFile(path)
    return _open_archives[key]


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise InputError(
            f"{name}: {size / 1e9:.1f} GB unpacked, more than the limit of "
            f"{MAX_BYTES / 1e9:.1f} GB for an image."
        )


def _decode(data: bytes, name: str) -> np.ndarray:
    """Return the image of a member's bytes."""
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes).")
    if name.lower().endswith(".nii.gz"):  # unpacked here, where its size has a limit
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            data = packed.read(MAX_BYTES + 1)
    _check_size(len(data), name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*: scaled from")  # one per member is too many
        return decode_image(data, name)
