"""All images at a path of any kind, whether they have labels or not."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .archives import archive_members, archive_readers, is_image
from .detection import Detected, detect
from .folder_layout import masks_beside, visible_files
from .headers import DAMAGED, read_headers
from .readers import FileReader, Reader, RowReader
from .registry import load_dataset


@dataclass(frozen=True)
class AllImages:
    """Images of a path.

    Attributes:
        readers: Reader of each image, in order; among them files that look damaged.
        left_out: Number of other files by reason.
    """

    readers: list[Reader]
    left_out: dict[str, int]


def all_images(path: str | Path, *, progress: bool = True) -> AllImages:
    """Find the images of a file or folder as `inspection.inspect` does.

    Args:
        path: An image, list, npz file or archive, or a folder: of images with masks beside them or
            in a folder of their own the images alone.
        progress: Whether progress bars are shown.

    Raises:
        InputError: If there is no such file or folder, or a list, npz file or archive cannot be
            read.
    """
    found = detect(path)
    path = found.path
    if found.kind == "archive":
        others = sum(not is_image(member) for member in archive_members(path))
        readers = [reader for _, reader in archive_readers(path)]
        return AllImages(readers, {"no image": others} if others else {})
    if not path.is_dir():
        if found.kind not in ("list", "npz"):
            return AllImages([FileReader(path)], {})
        return AllImages(_listed(found), {})
    root = found.images or path
    headers = read_headers(root, visible_files(root), progress=progress)
    damaged = headers.ignored["reason"].str.startswith(DAMAGED)
    names = sorted([*headers.files["path"], *headers.ignored["path"][damaged]])
    masks = {mask.as_posix() for mask in masks_beside(map(Path, names))}
    left_out = dict(Counter(headers.ignored["reason"][~damaged]))
    if masks:
        left_out["mask beside its image"] = len(masks)
    return AllImages([FileReader(root / name) for name in names if name not in masks], left_out)


def _listed(found: Detected) -> list[Reader]:
    """Return the readers of a list or an npz file."""
    readers: list[Reader] = []
    for split, part in load_dataset(found.name).splits.items():
        if found.kind == "list":
            readers += [FileReader(found.path.parent / name) for name in part.ids]
        else:
            name = f"{found.path}:{split}"
            readers += [RowReader(part.images, row, name) for row in range(len(part))]
    return readers
