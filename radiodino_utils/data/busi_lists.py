"""Public lists of BUSI: its images with a lesion, divided at random three times, 452 / 195.

Source: github.com/FengheTan9/Medical-Image-Segmentation-Benchmarks. The lists are not part of this
package; whoever has them names their folder.
"""

import os
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import data_folder
from .tables import decoded_text

LISTS = {
    f"list{number}": (f"busi_train{number}.txt", f"busi_val{number}.txt") for number in (1, 2, 3)
}
HINT = (
    "download the lists from the folder data of "
    "https://github.com/FengheTan9/Medical-Image-Segmentation-Benchmarks "
    "and name their folder with the environment variable BUSI_LISTS"
)


def read_lists(protocol: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read a public pair of lists: one name of an image a line, without its suffix.

    Args:
        protocol: A key of `LISTS`.
        names: Names of BUSI's images.

    Returns:
        Rows of "train" and "test" in the order of the lists, int64; the lists call the second
        "val".

    Raises:
        InputError: If a list is missing or empty, or an image is not in BUSI or listed twice.
    """
    row_of = {name: row for row, name in enumerate(names)}
    seen: dict[str, str] = {}
    splits = {}
    for split, file in zip(("train", "test"), LISTS[protocol], strict=True):
        path = _folder() / file
        if not path.is_file():
            raise InputError(f"{path}: the list is not there; {HINT}.")
        listed = [line.strip() for line in decoded_text(path.read_bytes()).splitlines()]
        listed = [name for name in listed if name]
        if not listed:
            raise InputError(f"{path}: the list is empty; {HINT}.")
        for name in listed:
            if name not in row_of:
                raise InputError(
                    f"{path}: '{name}' is no image of BUSI; use the list as it is published, "
                    "and the whole release."
                )
            if name in seen:
                raise InputError(
                    f"{path}: '{name}' is listed already in {seen[name]}; an image belongs to one "
                    "split, once: download both lists again."
                )
            seen[name] = file
        splits[split] = np.array([row_of[name] for name in listed], np.int64)
    return splits


def find_lists(protocol: str) -> tuple[Path, ...]:
    """Return both lists of a protocol; empty if one is not on this machine."""
    paths = tuple(_folder() / file for file in LISTS[protocol])
    return paths if all(path.is_file() for path in paths) else ()


def _folder() -> Path:
    return Path(os.environ.get("BUSI_LISTS") or data_folder() / "busi-lists").expanduser()
