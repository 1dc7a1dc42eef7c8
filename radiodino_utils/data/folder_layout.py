"""Layout of folders of images: split folders, image files, and what is ignored."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..core.errors import InputError
from .dataset import SPLITS
from .dicom import is_dicom
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
MASK_ENDINGS = ("segmentation", "annotation", "labels", "label", "mask", "seg", "gt")
_ENDING = re.compile(rf"[_\-. ](?:{'|'.join(MASK_ENDINGS)})(?:_\d+)?$", re.IGNORECASE)


_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})([ _-]?(data|set|images|split))?")


def split_of(name: str) -> str | None:
    """Return the split that a name such as `Training`, `valid` or `test_set` stands for."""
    match = _SPLIT.fullmatch(name.strip().lower())
    return SPLIT_NAMES[match[1]] if match else None


def split_folders(root: Path) -> dict[str, Path]:
    """Return the split folders in a folder, in the order of `SPLITS`; empty if there are none.

    Args:
        root: Folder that may hold folders such as `Training`; see `split_of`.

    Raises:
        InputError: If two folders are the same split, or other folders with images stand beside
            them.
    """
    parts: dict[str, Path] = {}
    others = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or is_ignored(folder.name):
            continue
        split = split_of(folder.name)
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
        if image_files(folder)[0]:
            names = ", ".join(part.name for part in parts.values())
            raise InputError(
                f"{root}: '{folder.name}' holds images beside the split folders ({names}); "
                "move it into them or away."
            )


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and its subfolders, and the masks beside them, each sorted.

    Symbolic links are followed, each folder once. Hidden files and folders, such as
    `.ipynb_checkpoints`, and `__MACOSX` are ignored.

    Args:
        folder: The folder; a missing one has no files.
    """
    files = sorted(filter(is_image_file, visible_files(folder)))
    masks = masks_beside(files)
    return [path for path in files if path not in masks], list(masks)


def is_image_file(path: Path) -> bool:
    """Return whether a file is an image by its suffix, or DICOM by its first bytes."""
    try:
        return path.name.lower().endswith(SUFFIXES) or is_dicom(path)
    except OSError:  # it may not be read
        return False


def masks_beside(files: Iterable[Path]) -> dict[Path, Path]:
    """Return the image of each mask that stands beside it: `a_mask.png` beside `a.png`.

    Args:
        files: Image files; see `MASK_ENDINGS` for the names of masks, which a number may
            follow (`a_mask_1.png`).
    """
    files = list(files)
    images = {path.with_name(stem_of(path.name)): path for path in files}
    found = {}
    for path in files:
        stem = stem_of(path.name)
        without = image_stem(stem)
        if without not in ("", stem) and (image := images.get(path.with_name(without))):
            found[path] = image
    return found


def stem_of(name: str) -> str:
    """Return the name of an image file without its suffix, such as `.nii.gz`."""
    suffixes = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - max(map(len, suffixes), default=0)]


def image_stem(stem: str) -> str:
    """Return the stem of a mask without its ending, such as `_mask` or `-seg_1`."""
    return _ENDING.sub("", stem)


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders; see `image_files` for what is ignored.

    Links to files that do not exist are among them.

    Raises:
        InputError: If a folder may not be read.
    """
    visited = {folder.resolve()}
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        kept = []
        for name in sorted(folders):
            target = (Path(parent) / name).resolve()
            if not is_ignored(name) and target not in visited:
                visited.add(target)
                kept.append(name)
        folders[:] = kept
        paths = (Path(parent) / name for name in sorted(names) if not is_ignored(name))
        yield from (path for path in paths if path.is_file() or path.is_symlink())


def _refuse(error: OSError) -> None:
    """Stop where a folder cannot be read; a missing one has no files."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(
            f"{error.filename}: the folder cannot be read ({error.strerror})."
        ) from error


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is never part of a dataset."""
    return name.startswith(".") or name == "__MACOSX"
