"""The one cache: files named by all that they depend on, locked, verified, written whole.

A cache entry consists of files and a JSON sidecar beside them. The sidecar declares what the
content depends on and holds the SHA-256 of each file and of itself. An entry that is damaged,
unfinished or of an earlier version is recomputed.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import file_hash, shortened, value_hash, write_json
from .locks import locked

Facts = dict[str, Any]


def entry_path(folder: Path, title: str, *, declared: Facts, suffix: str) -> Path:
    """Return the path of a cached file, named by a title and a hash of what it depends on.

    Args:
        folder: Folder of the cache.
        title: Readable part of the name; characters other than letters, digits, "-" and "_" are
            replaced, and a long one is shortened.
        declared: Everything that the content depends on; JSON values.
        suffix: Suffix of the file, such as ".npy".
    """
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in title)
    return folder / f"{shortened(readable)}_{value_hash(declared)}{suffix}"


def cached(
    sidecar: Path,
    *files: Path,
    declared: Facts,
    make: Callable[[], Facts | None],
    rank: int = 0,
    broadcast: Callable[[Facts | None], Facts | None] | None = None,
) -> Facts:
    """Return the facts of cached files; compute the files first if any is missing or damaged.

    One process computes at a time, or one group of processes together. A whole entry is read
    without writing anything.

    Args:
        sidecar: JSON file that vouches for itself and for the files.
        files: Cached files.
        declared: Everything that the content depends on; JSON values.
        make: Function that writes the files and returns further facts about them. Every process
            of a group calls it; only the facts of the first one count.
        rank: Number of this process in its group.
        broadcast: Function that gives the value of the first process to every process of the
            group; `None` for a single process.

    Returns:
        `declared`, the facts from `make`, and "sha256" with the hash of each file by its name.

    Raises:
        InputError: If a file may not be read, or must be computed where nothing can be written.
    """

    def from_first(facts: Facts | None) -> Facts | None:
        return broadcast(facts) if broadcast else facts

    def read(*, quiet: bool) -> Facts | None:
        first = rank == 0
        return from_first(
            read_sidecar(sidecar, *files, declared=declared, quiet=quiet) if first else None
        )

    if (facts := read(quiet=True)) is not None:
        return facts
    with locked(sidecar.with_suffix(".lock")) if rank == 0 else nullcontext():
        facts = read(quiet=False)  # another process may have written the entry meanwhile
        if facts is None:
            facts = (make() or {}) | declared
            facts = from_first(write_sidecar(sidecar, *files, facts=facts) if rank == 0 else None)
    assert facts is not None  # every process has what the first one wrote
    return facts


def write_sidecar(sidecar: Path, *files: Path, facts: Facts) -> Facts:
    """Write the sidecar of a cache entry.

    Args:
        sidecar: JSON file that is written.
        files: Files of the entry, which exist.
        facts: What the sidecar holds besides the SHA-256 of the files and of itself; JSON values.

    Returns:
        The facts as they are read back, with "sha256" of each file by its name.
    """
    hashes = {file.name: file_hash(file) for file in files}
    facts = json.loads(json.dumps(facts | {"sha256": hashes}))
    write_json(sidecar, facts | {"seal": _digest(facts)})
    return facts


def read_sidecar(sidecar: Path, *files: Path, declared: Facts, quiet: bool = False) -> Facts | None:
    """Return what `write_sidecar` returned, or `None` unless everything is as it was written.

    Args:
        sidecar: See `write_sidecar`.
        files: See `write_sidecar`.
        declared: Facts that the sidecar must hold.
        quiet: Whether to print nothing about damage.

    Raises:
        InputError: If a file may not be read.
    """
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        expected = json.loads(json.dumps(declared)).items()
        as_written = facts.pop("seal") == _digest(facts) and facts.items() >= expected
        if as_written and all(facts["sha256"][file.name] == file_hash(file) for file in files):
            return facts
    except PermissionError as error:
        raise InputError(
            f"{error.filename}: reading is not permitted; ask its owner, "
            "or name another data folder with RADIODINO_DATA."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    if not quiet and any(file.exists() for file in (sidecar, *files)):
        print(
            f"{files[0] if files else sidecar}: damaged, unfinished or of an earlier version; "
            "recomputed.",
            flush=True,
        )
    return None


def _digest(facts: Facts) -> str:
    return sha256(json.dumps(facts).encode()).hexdigest()
