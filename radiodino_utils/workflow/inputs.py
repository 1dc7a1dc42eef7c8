"""What a notebook reads besides its code: the files behind the names in its parameters."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..backbones.presence import weights_files
from ..core.files import REPOSITORY, file_hash
from ..data.folders import SYNONYMS
from ..data.open_names import parse_open_name
from ..data.registry import dataset_place
from ..data.tables import decoded_text, separator_of

_CONTENT_LIMIT = 256e6  # bytes whose content is hashed; beyond, sizes and times are
WEIGHTS = re.compile(r"file:(.+?)(\?heads=.*)?")  # weights of one's own, see `load_backbone`
_TABLES = (".csv", ".tsv")
_WEIGHTED = re.compile(r"(.+)=[\d.eE+-]+")  # a source of a corpus


def fingerprints(
    parameters: Mapping[str, object], *, folder: Path = REPOSITORY / "notebooks"
) -> dict[str, str]:
    """Fingerprint the files and folders that parameters name, however they are named.

    Args:
        parameters: Parameters of notebooks; every text counts, also inside lists and mappings:
            names of datasets and backbones, the open names of `open_paths`, `PATH=WEIGHT`, and
            plain paths.
        folder: Folder from which relative paths start: where notebooks run.

    Returns:
        A hash of names and contents by parameter text; "" for a name whose files are not on this
        machine yet. Beyond 256 MB sizes and times stand for the contents. Images that a CSV or text
        list names count as well.
    """
    places = {text: _places(text, folder) for text in texts(parameters)}
    named = {text: paths for text, paths in places.items() if paths is not None}
    hashes = {paths: _hash(paths) for paths in set(named.values())}
    return {text: hashes[paths] for text, paths in named.items()}


def texts(value: object) -> Iterator[str]:
    """Yield all texts in a value, also those inside lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for member in value.values() if isinstance(value, dict) else value:
            yield from texts(member)


def open_paths(text: str) -> list[str]:
    """Return the paths in an open name; none for any other text.

    Args:
        text: Such as `folder:PATH`, `npz:PATH`, `masks:PATH`, `volumes:PATH`,
            `dicom:PATH?window=lung&labels=PATH` or `file:PATH?heads=6`.
    """
    if weights := WEIGHTS.fullmatch(text):
        return [weights[1]]
    opened = parse_open_name(text)
    return opened.paths() if opened else []


def _places(text: str, folder: Path) -> tuple[Path, ...] | None:
    """Return the files and folders that a text names.

    Returns:
        Paths; empty if the files are not here yet, `None` for a text that names none.
    """
    if (place := dataset_place(text)) is not None:
        return place
    if (files := weights_files(text)) is not None:
        return files
    named = open_paths(text)
    found = [_existing(path, folder) for path in named or [text]]
    if None in found:
        return () if named else None
    return tuple(path for path in found if path)


def _existing(text: str, folder: Path) -> Path | None:
    """Return the file or folder of a path, or of `PATH=WEIGHT`, if there is one."""
    weighted = _WEIGHTED.fullmatch(text)
    for name in (text, weighted[1] if weighted else ""):
        candidate = folder / Path(name).expanduser() if name else folder
        if candidate != folder and _exists(candidate):
            return candidate
    return None


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
    cheap = sum(fact.st_size for *_, fact in facts) <= _CONTENT_LIMIT
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
    """Yield name and place of each file behind a path.

    These are all files of a folder, links followed; a list and all files that it names; or a file.
    """
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
        for name in filter(None, _listed(path)):
            if _exists(file := path.parent / name) and file.is_file():
                yield name, file


def _listed(path: Path) -> list[str]:
    """Return the names in a list of files, as the datasets and sources of a corpus read it."""
    is_table = path.suffix.lower() in _TABLES
    if not is_table and path.suffix.lower() != ".txt":
        return []
    try:
        text = decoded_text(path.read_bytes())
        if not is_table:
            return [line.strip() for line in text.splitlines()]
        rows = csv.reader(io.StringIO(text), delimiter=separator_of(text))
        names = [column.strip().lower() for column in next(rows, [])]
        columns = [number for number, name in enumerate(names) if name in SYNONYMS["path"]]
        return sorted({row[column] for row in rows for column in columns if column < len(row)})
    except (OSError, ValueError, csv.Error):  # the notebook says what is wrong with it
        return []
