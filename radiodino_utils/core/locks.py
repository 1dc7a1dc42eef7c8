"""File locks between processes and users, on any file system."""

import errno
import getpass
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import InputError
from .files import explaining, make_folder

PATIENCE = 3.0  # seconds after which a process says what it waits for
LIMIT = "RADIODINO_LOCK_WAIT"  # environment variable that limits the wait, in seconds
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_folders_without_locks: set[Path] = set()


@contextmanager
def locked(path: Path, *, limit: float | None = None) -> Iterator[None]:
    """Hold a lock, so that processes and users compute the same thing in turn.

    A process that waits says for whom. `RADIODINO_LOCK_WAIT` limits the wait, in seconds.

    Args:
        path: The lock file, which stays. One that belongs to another user is used as it is.
        limit: Longest wait in seconds; replaces that of the environment.

    Raises:
        InputError: If the folder cannot be written to, or the wait is too long.
    """
    try:
        make_folder(path.parent)
    except InputError as error:
        raise InputError(
            f"{error} A needed file is missing or damaged: run once as a user who may write, "
            "or name another data folder with RADIODINO_DATA."
        ) from error
    with ExitStack() as on_release:
        with explaining(path):
            lock = _Lock(path, on_release)
        _wait_for(lock, _limit() if limit is None else limit)
        yield


def _wait_for(lock: "_Lock", limit: float) -> None:
    start, announced = time.monotonic(), False
    while not lock.acquired():
        waited = time.monotonic() - start
        if waited >= limit:
            duration = f" after {limit:g} s ({LIMIT})" if limit else ""
            raise InputError(
                f"{lock.path}: still held by {_holder(lock.path)}{duration}; "
                "end it, or wait longer."
            )
        if waited >= PATIENCE and not announced:
            print(
                f"{lock.path}: held by {_holder(lock.path)}; waiting for it "
                f"({LIMIT} limits the wait in seconds).",
                flush=True,
            )
            announced = True
        time.sleep(0.1)


class _Lock:
    """Lock on an open file; a file beside it replaces it where the file system has no locks.

    Args:
        path: The lock file.
        on_release: Stack that receives what has to be undone at the end.
    """

    def __init__(self, path: Path, on_release: ExitStack) -> None:
        from filelock import SoftFileLock

        self.path, self._on_release = path, on_release
        try:
            self._descriptor, self._writable = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), True
        except PermissionError:  # the file of another user
            self._descriptor, self._writable = os.open(path, os.O_RDONLY), False
        on_release.callback(os.close, self._descriptor)
        self._soft = SoftFileLock(path.with_name(f"{path.name}.soft"))

    def acquired(self) -> bool:
        """Try to take the lock, without waiting; return whether it is held now."""
        folder = self.path.parent
        if folder in _folders_without_locks:
            return self._acquired_by_file()
        try:
            return self._acquired_natively()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        print(
            f"{folder}: the file system has no locks; {self._soft.lock_file} replaces one "
            "while it is in use.",
            flush=True,
        )
        _folders_without_locks.add(folder)
        return self._acquired_by_file()

    def _acquired_natively(self) -> bool:
        from filelock import lock_descriptor, unlock_descriptor

        if not lock_descriptor(self._descriptor, blocking=False):
            return False
        self._on_release.callback(unlock_descriptor, self._descriptor)
        if self._writable:
            os.truncate(self._descriptor, 0)  # a killed process leaves its name
            os.write(self._descriptor, _own_name().encode())
            self._on_release.callback(os.truncate, self._descriptor, 0)
        return True

    def _acquired_by_file(self) -> bool:
        from filelock import Timeout

        try:
            self._soft.acquire(blocking=False)
        except Timeout:
            return False
        self._on_release.callback(self._soft.release)
        return True


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
