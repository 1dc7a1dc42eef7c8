"""The one cache: declared, locked, verified whenever it is read, written whole, made again where it is damaged."""

import errno
import getpass
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from .errors import InputError
from .files import explaining, file_hash, make_folder, write_json

PATIENCE = 3.0  # seconds after which a process says what it waits for
LIMIT = "RADIODINO_LOCK_WAIT"  # the variable that limits waiting, in seconds
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def kept(
    sidecar: Path, *files: Path, declared: dict[str, object], make: Callable[[], dict[str, object]]
) -> dict[str, object]:
    """Return the facts of cached files; files that are missing or damaged are made, by one process
    at a time.

    Args:
        sidecar: A JSON file that vouches for itself and for the files. A whole cache is read
            without writing anything.
        files: What is cached.
        declared: All that the content depends on; JSON values.
        make: Writes the files and gives further facts about them.

    Returns:
        What is declared, what `make` gave, and "sha256" of each file by its name.

    Raises:
        InputError: If a file may not be read, or has to be made where nothing can be written.
    """
    if (facts := sealed(sidecar, *files, declared=declared, quiet=True)) is not None:
        return facts
    with locked(sidecar.with_suffix(".lock")):
        if (
            facts := sealed(sidecar, *files, declared=declared)
        ) is None:  # another process may have made them meanwhile
            facts = seal(sidecar, *files, facts=declared | make())
    return facts


def seal(sidecar: Path, *files: Path, facts: dict[str, object]) -> dict[str, object]:
    """Write a sidecar that holds facts, the SHA-256 of files, and one of all this; return it without the last."""
    facts = json.loads(
        json.dumps(facts | {"sha256": {file.name: file_hash(file) for file in files}})
    )
    write_json(sidecar, facts | {"seal": _digest(facts)})
    return facts


def sealed(
    sidecar: Path, *files: Path, declared: dict[str, object], quiet: bool = False
) -> dict[str, object] | None:
    """Return what `seal` did if sidecar and files are still as they were written, else `None`.

    Args:
        sidecar: See `seal`.
        files: See `seal`.
        declared: What the facts must hold.
        quiet: Whether nothing is printed about damage.

    Raises:
        InputError: If a file may not be read.
    """
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        as_written = (
            facts.pop("seal") == _digest(facts)
            and facts.items() >= json.loads(json.dumps(declared)).items()
        )
        if as_written and all(facts["sha256"][file.name] == file_hash(file) for file in files):
            return facts
    except PermissionError as error:
        raise InputError(
            f"{error.filename}: reading is not permitted; ask its owner, or name another data folder with RADIODINO_DATA."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    if not quiet and any(file.exists() for file in (sidecar, *files)):
        print(
            f"{files[0] if files else sidecar}: damaged, unfinished or of an earlier version; made again.",
            flush=True,
        )
    return None


def _digest(facts: dict[str, object]) -> str:
    return sha256(json.dumps(facts).encode()).hexdigest()


@contextmanager
def locked(path: Path, *, limit: float | None = None) -> Iterator[None]:
    """Hold a lock, so that processes and users make the same thing in turn; say so where one has to
    wait.

    `RADIODINO_LOCK_WAIT` limits the waiting, in seconds.

    Args:
        path: Of the lock file, which stays. Another user's is used as it is.
        limit: In place of that of the environment.

    Raises:
        InputError: If its folder cannot be written to, or the wait is too long.
    """
    try:
        make_folder(path.parent)
    except InputError as error:
        raise InputError(
            f"{error} What is needed there is missing or damaged: run once as one who may write, or name another data folder "
            "with RADIODINO_DATA."
        ) from error
    with ExitStack() as held:
        with explaining(path):
            acquired = _lock(path, held)
        start, said = time.monotonic(), False
        limit = _limit() if limit is None else limit
        while not acquired():
            waited = time.monotonic() - start
            if waited >= limit:
                long = f" after {limit:g} s ({LIMIT})" if limit else ""
                raise InputError(
                    f"{path}: still held by {_holder(path)}{long}; end it, or wait longer."
                )
            if waited >= PATIENCE and not said:
                print(
                    f"{path}: held by {_holder(path)}; waiting for it ({LIMIT} limits the wait in seconds).",
                    flush=True,
                )
                said = True
            time.sleep(0.1)
        yield


def _lock(path: Path, held: ExitStack) -> Callable[[], bool]:
    """Open a lock; return what tries to take it, which `held` gives back."""
    from filelock import SoftFileLock, Timeout, lock_descriptor, unlock_descriptor

    try:
        descriptor, writable = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), True
    except PermissionError:  # another user's
        descriptor, writable = os.open(path, os.O_RDONLY), False
    held.callback(os.close, descriptor)
    soft = SoftFileLock(path.with_name(f"{path.name}.soft"))

    def native() -> bool:
        if not lock_descriptor(descriptor, blocking=False):
            return False
        held.callback(unlock_descriptor, descriptor)
        if writable:
            os.truncate(descriptor, 0)  # a killed process leaves its name
            os.write(descriptor, _own_name().encode())
            held.callback(os.truncate, descriptor, 0)
        return True

    def by_file() -> bool:
        try:
            soft.acquire(blocking=False)
        except Timeout:
            return False
        held.callback(soft.release)
        return True

    def either() -> bool:
        if path.parent in _without_locks:
            return by_file()
        try:
            return native()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        print(
            f"{path.parent}: the file system knows no locks; {soft.lock_file} stands for one while it is in use.",
            flush=True,
        )
        _without_locks.add(path.parent)
        return by_file()

    return either


_without_locks: set[Path] = set()


def _limit() -> float:
    try:
        return float(os.environ.get(LIMIT) or "inf")
    except ValueError as error:
        raise InputError(
            f"{LIMIT}='{os.environ[LIMIT]}': not a number of seconds; correct or unset it."
        ) from error


def _own_name() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        user = f"user {os.getuid()}"
    return f"process {os.getpid()} of {user} on {platform.node()}"


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, ValueError):
        return "another process"
