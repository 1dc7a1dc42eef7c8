"""Folders, hashes and writes that leave either the whole file or nothing."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """The folder for downloads and caches: `$RADIODINO_DATA`, else the platform's cache folder."""
    import platformdirs

    return Path(
        os.environ.get("RADIODINO_DATA") or platformdirs.user_cache_path("radiodino")
    ).expanduser()


def features_folder() -> Path:
    """The folder for feature files: `$RADIODINO_FEATURES`, else `features` in the data folder."""
    return Path(os.environ.get("RADIODINO_FEATURES") or data_folder() / "features").expanduser()


def results_folder(profile: str) -> Path:
    """The folder for tables and figures: `$RADIODINO_RESULTS`, else `results/<profile>` of the
    repository.

    Raises:
        InputError: If the profile's name leads out of `results`.
    """
    if given := os.environ.get("RADIODINO_RESULTS"):
        return Path(given).expanduser()
    if not profile or profile.startswith(".") or ".." in profile or re.search(r"[/\\]", profile):
        raise InputError(
            f"profile '{profile}': names a folder of results, so without '/', '..' or a dot in front; rename it."
        )
    return REPOSITORY / "results" / profile


def make_folder(folder: Path) -> Path:
    """Makes a folder and its parents.

    Raises:
        InputError: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder}: the folder is read-only; make it writable or choose another one."
        )
    return folder


def require_space(folder: Path, needed: int) -> None:
    """Checks, before any work, that a folder's disk has room.

    Args:
        folder: An existing folder.
        needed: Bytes that are about to be written.

    Raises:
        InputError: If fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: no disk space: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; "
            "free some, or move the data folder with RADIODINO_DATA."
        )


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what a full, read-only or closed disk raises while `path` is written into a sentence.

    Raises:
        InputError: If the disk is full or the folder cannot be written to.
    """
    try:
        yield
    except Exception as error:
        if _FULL.search(str(error)):  # safetensors and numpy do not pass the number on
            raise InputError(f"{path}: {_REASONS[errno.ENOSPC]}.") from error
        if isinstance(error, OSError) and error.errno in _REASONS:
            raise _explained(path, error) from error
        raise


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` when the block ends well and vanishes when it
    does not.

    The mode of the file follows the umask, whatever wrote it.

    Raises:
        InputError: If the disk is full or the folder cannot be written to.
    """
    make_folder(path.parent)
    folder = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    with explaining(path):
        try:
            folder.mkdir()
            yield folder / path.name
            (folder / path.name).chmod(folder.stat().st_mode & 0o666)  # safetensors writes 0600
            os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_FULL = re.compile(r"No space left on device|^\d+ requested and \d+ written$")
_REASONS = {
    errno.ENOSPC: "no disk space is left; free some, or move the data folder with RADIODINO_DATA",
    errno.EDQUOT: "the disk quota is used up; free some, or move the data folder with RADIODINO_DATA",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "writing is not permitted; make the folder writable or choose another one",
    errno.EPERM: "writing is not permitted; make the folder writable or choose another one",
    errno.ENOTDIR: "a parent of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; move it or choose another folder",
}


def _explained(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {_REASONS.get(error.errno, error.strerror)}.")


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file's bytes, read in blocks; "git" is the SHA-1 by which git knows a file's content."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = (lambda: hashlib.sha1(b"blob %d\0" % size)) if algorithm == "git" else algorithm
        return hashlib.file_digest(file, start).hexdigest()


CONTENT_LIMIT = 1 << 30  # bytes that are read to identify files


def files_digest(root: Path, names: Sequence[str]) -> str:
    """Identify files by their names and content, followed through symbolic links.

    Beyond a GiB in all, sizes, times and inodes stand for the content, so that millions of files
    need not be read.

    Args:
        root: The folder that the names count from.
        names: Of the files, in an order that counts.

    Returns:
        12 hexadecimal digits; up to a GiB the same on every machine.

    Raises:
        OSError: If a file is missing or cannot be read.
    """
    found = [(root / name).stat() for name in names]
    if sum(one.st_size for one in found) <= CONTENT_LIMIT:
        return value_hash([(name, file_hash(root / name)) for name in names])
    facts = (
        (one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_dev, one.st_ino) for one in found
    )
    return value_hash(list(zip(names, facts, strict=True)))


def require_inside(names: Iterable[str], source: Path) -> None:
    """Check that a list names files below its own folder only, unless `RADIODINO_OUTSIDE_PATHS=1`
    allows others.

    Raises:
        InputError: If a path is absolute or leaves the folder through "..".
    """
    if os.environ.get("RADIODINO_OUTSIDE_PATHS") == "1":
        return
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"{source}: '{name}' lies outside the list's folder; allow such paths with RADIODINO_OUTSIDE_PATHS=1 if you "
                "trust the list, or move the files."
            )


def value_hash(value: object) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
