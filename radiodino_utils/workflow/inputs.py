"""What a notebook reads besides its code: the files behind the names in its parameters."""

import csv
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..backbones.registry import weights_files
from ..core.files import REPOSITORY, file_hash
from ..data.registry import dataset_place

_CHEAP = 256e6  # bytes whose content is hashed; of more, sizes and times
_OPEN_NAMES = re.compile(r"(npz|folder|masks|file):(?=.)")
_WEIGHTED = re.compile(r"(.+)=[\d.eE+-]+")  # a source of a corpus


def fingerprints(
    parameters: dict[str, object], *, folder: Path = REPOSITORY / "notebooks"
) -> dict[str, str]:
    """Fingerprint the files and folders that parameters name, however they are named.

    Args:
        parameters: Of one notebook; every text counts, also inside lists and mappings: names of
            datasets and backbones, `npz:`, `folder:`, `masks:` and `file:`, `PATH=WEIGHT`, and
            plain paths.
        folder: What relative paths count from: where notebooks run.

    Returns:
        A hash of names and contents by parameter text; "" where a name has no file on this machine
        yet. Of more than 256 MB the sizes and times take the place of the contents. Images that a
        CSV or text list names count as well.
    """
    found = {
        text: paths
        for text in dict.fromkeys(texts(parameters))
        if (paths := _named(text, folder)) is not None
    }
    hashes = {paths: _hash(paths) for paths in set(found.values())}
    return {text: hashes[paths] for text, paths in found.items()}


def texts(value: object) -> Iterator[str]:
    """All texts in a value, also those inside lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def _named(text: str, folder: Path) -> tuple[Path, ...] | None:
    """Files and folders behind a text; empty where they are yet to come, `None` for a text that names none."""
    if (place := dataset_place(text)) is not None:
        return place
    if (files := weights_files(text)) is not None:
        return files
    prefix = _OPEN_NAMES.match(text)
    path = text[prefix.end() :] if prefix else text
    for one in (path, match[1] if (match := _WEIGHTED.fullmatch(path)) else ""):
        if one and (place := folder / Path(one).expanduser()) != folder and _exists(place):
            return (place,)
    return () if prefix else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text that can be no path
        return False


def _hash(paths: tuple[Path, ...]) -> str:
    members = sorted((name, file) for path in paths for name, file in _members(path))
    if not members:
        return ""
    facts = [(name, file, file.stat()) for name, file in members]
    cheap = sum(fact.st_size for *_, fact in facts) <= _CHEAP
    digest = hashlib.sha256()
    for name, file, fact in facts:
        mark = _content(file) if cheap else f"{fact.st_size} {fact.st_mtime_ns} {fact.st_ctime_ns}"
        digest.update(f"{name}\t{mark}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _content(file: Path) -> str:
    try:
        return file_hash(file)
    except OSError as error:  # the notebook says what it cannot read
        return str(error.errno)


def _members(path: Path) -> Iterator[tuple[str, Path]]:
    """Name and place of each file of a folder, links followed; of a list, of it and all that it names; or of one file."""
    if path.is_dir():
        seen = set()
        for parent, folders, files in os.walk(path, followlinks=True):
            if (real := os.path.realpath(parent)) in seen:  # a link back
                folders.clear()
                continue
            seen.add(real)
            for name in files:
                if (file := Path(parent, name)).is_file():
                    yield str(file.relative_to(path)), file
    elif path.is_file():
        yield path.name, path
        for name in _listed(path):
            if _exists(file := path.parent / name) and file.is_file():
                yield name, file


def _listed(path: Path) -> list[str]:
    if path.suffix.lower() not in (".csv", ".txt"):
        return []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".txt":
                return file.read().splitlines()
            return sorted(
                {
                    name
                    for row in csv.DictReader(file)
                    for key in ("path", "filename")
                    if (name := row.get(key))
                }
            )
    except (OSError, ValueError, csv.Error):  # the notebook says what is wrong with it
        return []
