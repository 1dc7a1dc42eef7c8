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
from functools import partial
from pathlib import Path

from .errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """Return the folder of downloads and caches: `$RADIODINO_DATA`, else a user cache folder."""
    import platformdirs

    return Path(
        os.environ.get("RADIODINO_DATA") or platformdirs.user_cache_path("radiodino")
    ).expanduser()


def features_folder() -> Path:
    """Return the folder of features: `$RADIODINO_FEATURES`, else `features` in the data folder."""
    return Path(os.environ.get("RADIODINO_FEATURES") or data_folder() / "features").expanduser()


def results_folder(profile: str) -> Path:
    """Return the folder of a profile's tables and figures.

    Args:
        profile: Name of the profile.

    Returns:
        `$RADIODINO_RESULTS`, else `results/<profile>` of the repository, or of the current folder
        for an installed package, which has no repository around it.

    Raises:
        InputError: If the name of the profile leads out of `results`.
    """
    if folder := os.environ.get("RADIODINO_RESULTS"):
        return Path(folder).expanduser()
    if not profile or profile.startswith(".") or ".." in profile or re.search(r"[/\\]", profile):
        raise InputError(
            f"profile '{profile}': names a folder of results, so without '/', '..' "
            "or a dot in front; rename it."
        )
    root = REPOSITORY if (REPOSITORY / "notebooks").is_dir() else Path.cwd()
    return root / "results" / profile


def require_checkout(folder: Path) -> None:
    """Require a folder of the checkout, which an installed package lacks.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; notebooks and results come with the checkout of "
            "the project: run the command there."
        )


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents unless they exist, and return it.

    Raises:
        InputError: If the folder cannot be created or written to.
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
    """Check, before any work, that the disk of a folder has room.

    Args:
        folder: Existing folder.
        needed: Number of bytes that are about to be written.

    Raises:
        InputError: If fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: no disk space: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB "
            "are free; free some, or move the data folder with RADIODINO_DATA."
        )


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn errors of a full, read-only or protected disk into one sentence.

    Args:
        path: File or folder that the block writes.

    Raises:
        InputError: If the disk is full or the folder cannot be written to.
    """
    try:
        yield
    except Exception as error:
        if _FULL.search(str(error)):  # safetensors and numpy drop the error number
            raise InputError(f"{path}: {_REASONS[errno.ENOSPC]}.") from error
        if isinstance(error, OSError) and error.errno in _REASONS:
            raise _explained(path, error) from error
        raise


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    The mode of the file follows the umask, whatever wrote it.

    Args:
        path: File that is written; its folder is created.

    Yields:
        A temporary path, which becomes `path` at the end of the block, or is removed if the block
        fails.

    Raises:
        InputError: If the disk is full or the folder cannot be written to.
    """
    make_folder(path.parent)
    folder = path.parent / f".{shortened(path.name)}.{secrets.token_hex(4)}"
    with explaining(path):
        try:
            folder.mkdir()
            yield folder / path.name
            (folder / path.name).chmod(folder.stat().st_mode & 0o666)  # safetensors writes 0600
            os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_FULL = re.compile(r"No space left on device|^\d+ requested and \d+ written$")
_MAKE_ROOM = "free some, or move the data folder with RADIODINO_DATA"
_NOT_PERMITTED = "writing is not permitted; make the folder writable or choose another one"
_REASONS = {
    errno.ENOSPC: f"no disk space is left; {_MAKE_ROOM}",
    errno.EDQUOT: f"the disk quota is used up; {_MAKE_ROOM}",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: _NOT_PERMITTED,
    errno.EPERM: _NOT_PERMITTED,
    errno.ENOTDIR: "a parent of the path is a file, not a folder; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EEXIST: "a file has the name of a needed folder; move it or choose another folder",
}


def _explained(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {_REASONS.get(error.errno or 0, error.strerror or str(error))}.")


def shortened(name: str, *, most: int = 120) -> str:
    """Return a part of a file name that is not too long for file systems, which take 255 bytes.

    Args:
        name: Text without slashes.
        most: Greatest number of bytes in UTF-8.

    Returns:
        The text; of a longer one the beginning and a hash of all.
    """
    if len(name.encode()) <= most:
        return name
    return f"{name.encode()[: most - 13].decode(errors='ignore')}-{value_hash(name)}"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's content.

    Args:
        path: File, which is read in blocks.
        algorithm: A name that `hashlib` knows, or "git": the SHA-1 by which git knows the content.

    Returns:
        Hexadecimal digits.
    """
    with open(path, "rb") as file:
        if algorithm != "git":
            return hashlib.file_digest(file, algorithm).hexdigest()
        header = b"blob %d\0" % os.fstat(file.fileno()).st_size
        return hashlib.file_digest(file, partial(hashlib.sha1, header)).hexdigest()


CONTENT_LIMIT = 1 << 30  # bytes that are read to identify files


def files_digest(root: Path, names: Sequence[str]) -> str:
    """Return a hash of the names and content of files.

    Symbolic links are followed. Beyond a GiB in total, sizes, times and inodes stand for the
    content, so that millions of files need not be read.

    Args:
        root: Folder that contains the files.
        names: Paths in `root`; their order counts.

    Returns:
        12 hexadecimal digits; up to a GiB they are the same on every machine.

    Raises:
        OSError: If a file is missing or cannot be read.
    """
    stats = [(root / name).stat() for name in names]
    if sum(stat.st_size for stat in stats) <= CONTENT_LIMIT:
        return value_hash([(name, file_hash(root / name)) for name in names])
    facts = (
        (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)
        for stat in stats
    )
    return value_hash(list(zip(names, facts, strict=True)))


def require_inside(names: Iterable[str], source: Path) -> None:
    """Check that a list only names files inside its own folder.

    The environment variable `RADIODINO_OUTSIDE_PATHS=1` allows others.

    Args:
        names: Paths in the list.
        source: The list, for the message.

    Raises:
        InputError: If a path is absolute or leaves the folder through "..".
    """
    if os.environ.get("RADIODINO_OUTSIDE_PATHS") == "1":
        return
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"{source}: '{name}' lies outside the list's folder; allow such paths with "
                "RADIODINO_OUTSIDE_PATHS=1 if you trust the list, or move the files."
            )


def value_hash(value: object) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
