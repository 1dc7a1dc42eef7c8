"""Layout of folders of images: split folders, image files, and what is ignored."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import InputError
from .dataset import SPLITS
from .reading import SUFFIXES

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?", re.IGNORECASE)


def split_folders(root: Path) -> dict[str, Path]:
    """Return the split folders in a folder, in the order of `SPLITS`; empty if there are none.

    Args:
        root: Folder that may hold folders such as `Training`; see `SPLIT_NAMES`.

    Raises:
        InputError: If two folders are the same split, or other folders with images stand beside
            them.
    """
    parts: dict[str, Path] = {}
    others = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or is_ignored(folder.name):
            continue
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            others.append(folder)
        elif split in parts:
            raise InputError(
                f"{root}: '{parts[split].name}' and '{folder.name}' are both the split '{split}'; "
                "keep one, or merge them."
            )
        else:
            parts[split] = folder
    if parts:
        _require_no_images(others, root, parts)
    return {split: parts[split] for split in SPLITS if split in parts}


def _require_no_images(folders: list[Path], root: Path, parts: dict[str, Path]) -> None:
    """Check that folders beside split folders hold no images, which would be left out."""
    for folder in folders:
        if image_files(folder):
            names = ", ".join(part.name for part in parts.values())
            raise InputError(
                f"{root}: '{folder.name}' holds images beside the split folders ({names}); "
                "move it into them or away."
            )


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted.

    Symbolic links are followed, each folder once. Hidden files and folders, such as
    `.ipynb_checkpoints`, and `__MACOSX` are ignored; so are, with a warning, masks that stand
    beside their image (`a_mask.png` beside `a.png`).

    Args:
        folder: The folder; a missing one has no files.
    """
    files = sorted(path for path in visible_files(folder) if path.name.lower().endswith(SUFFIXES))
    stems = {path.with_suffix("") for path in files}
    masks = [path for path in files if _is_mask_of(path, stems)]
    if masks:
        warnings.warn(
            f"{folder}: {len(masks)} masks beside their images are left out, first "
            f"'{masks[0].name}'.",
            stacklevel=3,
        )
    return [path for path in files if path not in set(masks)]


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders; see `image_files` for what is ignored."""
    visited = {folder.resolve()}
    for parent, folders, names in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            target = (Path(parent) / name).resolve()
            if not is_ignored(name) and target not in visited:
                visited.add(target)
                kept.append(name)
        folders[:] = kept
        paths = (Path(parent) / name for name in sorted(names) if not is_ignored(name))
        yield from (path for path in paths if path.is_file())


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is never part of a dataset."""
    return name.startswith(".") or name == "__MACOSX"


def _is_mask_of(path: Path, stems: set[Path]) -> bool:
    match = _MASK.fullmatch(path.stem)
    return match is not None and path.with_name(match["image"]) in stems
