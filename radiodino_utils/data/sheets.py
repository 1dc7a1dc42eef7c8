"""Contact sheets: small images of a dataset with their labels and masks, for a person to look."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from operator import truediv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..core.errors import InputError
from ..core.files import atomic
from .archives import archive_readers
from .dataset import ImageDataset
from .folder_layout import masks_beside
from .inspection import Inspection
from .masks import read_mask
from .nifti import read_nifti, volume_grid
from .reading import pixel_aspect, read_image
from .segmentation_dataset import SegmentationDataset
from .volumes import VolumeSlices

TILE, CAPTION = 160, 14  # edge of an image and height of its caption, in pixels
COLOURS = (  # of labels from 1 (Okabe and Ito, 2008)
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
_OPACITY = 0.4


class _Entry(NamedTuple):
    caption: str
    image: Callable[[], np.ndarray]
    mask: Callable[[], np.ndarray] | None = None
    aspect: Callable[[], float] = lambda: 1.0  # height of a pixel divided by its width


def contact_sheet(inspection: Inspection, *, count: int = 48, columns: int = 8) -> Image.Image:
    """Return small images, each above its label or name, with masks in colour.

    Args:
        inspection: Result of `inspection.inspect`.
        count: Greatest number of images: as many of each class, else evenly from the first to the
            last. Of volumes with labels the slice that shows most of them.
        columns: Images in a row.

    Returns:
        RGB image; what cannot be read is a black tile with the word "unreadable".

    Raises:
        InputError: If there is no image.
    """
    entries = list(_entries(inspection, count))
    if not entries:
        raise InputError(f"{inspection.found.path}: holds no images to show.")
    height = TILE + CAPTION
    sheet = Image.new("RGB", (columns * TILE, -(-len(entries) // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, entry in enumerate(entries):
        left, top = place % columns * TILE, place // columns * height
        tile = _tile(entry)
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        pen.text((left + 2, top + TILE + 1), entry.caption[-24:], fill="black")
    return sheet


def write_sheet(inspection: Inspection, path: Path) -> Path:
    """Write the contact sheet of an inspection as PNG and return the path.

    Raises:
        InputError: If there is no image, the suffix is not .png, or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"--sheet {path}: unknown suffix '{path.suffix}'; use .png.")
    sheet = contact_sheet(inspection)
    with atomic(path.absolute()) as temporary:
        sheet.save(temporary, "PNG")
    return path


def _entries(inspection: Inspection, count: int) -> Iterator[_Entry]:
    dataset, found = inspection.dataset, inspection.found
    root = found.path if found.path.is_dir() else found.path.parent
    if isinstance(dataset, ImageDataset):
        yield from _of_classes(dataset, root, inspection, count)
    elif isinstance(dataset, SegmentationDataset):
        yield from _of_masks(dataset, count)
    elif found.kind == "archive":
        readers = archive_readers(found.path)
        for row in _evenly(len(readers), count):
            name, reader = readers[row]
            yield _Entry(Path(name).name, reader)
    else:
        paths = inspection.files["path"].tolist()
        beside = _masks_of(inspection, root)
        for row in _evenly(len(paths), count):
            path = root / paths[row]
            aspect = partial(pixel_aspect, path)
            yield _Entry(path.name, partial(read_image, path), beside(paths[row]), aspect)


def _of_classes(
    dataset: ImageDataset, root: Path, inspection: Inspection, count: int
) -> Iterator[_Entry]:
    """Yield as many images of each class, over all splits."""
    beside = _masks_of(inspection, root)
    each = max(1, count // len(dataset.classes))
    places = [(split, row) for split, part in dataset.splits.items() for row in range(len(part))]
    labels = np.concatenate([np.asarray(part.labels) for part in dataset.splits.values()])
    for label in np.unique(labels)[:count]:
        rows = np.flatnonzero(labels == label)
        for row in rows[_evenly(len(rows), each)]:
            split, number = places[row]
            part = dataset.splits[split]
            name = "" if split == "all" else f" ({split})"
            yield _Entry(
                f"{dataset.classes[label]}{name}",
                partial(part.images.__getitem__, number),
                beside(part.ids[number]),
                partial(_aspect_of, root / part.ids[number].partition("#")[0]),
            )


def _of_masks(dataset: SegmentationDataset, count: int) -> Iterator[_Entry]:
    """Yield images with their masks; of each volume one slice."""
    images, masks = dataset.images, dataset.masks
    if isinstance(images, VolumeSlices):
        paths = list(dict.fromkeys(images.paths))
        for place in _evenly(len(paths), count):
            row = _fullest_row(
                dataset, [r for r, p in enumerate(images.paths) if p == paths[place]]
            )
            image = partial(
                read_nifti,
                images.paths[row],
                index=images.slices[row],
                plane=images.plane,
                volume=images.volume,
            )
            grid = volume_grid(images.paths[row])
            height, width = grid.pixel_mm(images.plane)
            yield _Entry(
                dataset.ids[row],
                image,
                partial(masks.__getitem__, row),
                partial(truediv, height, width),
            )
        return
    for row in _evenly(len(dataset), count):
        yield _Entry(
            dataset.ids[row], partial(images.__getitem__, row), partial(masks.__getitem__, row)
        )


def _masks_of(
    inspection: Inspection, root: Path
) -> Callable[[str], Callable[[], np.ndarray] | None]:
    """Return a function that returns how to read the mask beside an image, if it has one."""
    mask_of = {
        image: mask
        for mask, image in masks_beside(
            Path(path) for table in (inspection.files, inspection.masks) for path in table["path"]
        ).items()
    }

    def reader(path: str) -> Callable[[], np.ndarray] | None:
        mask = mask_of.get(Path(path))
        return partial(read_mask, root / mask) if mask else None

    return reader


def _aspect_of(path: Path) -> float:
    return pixel_aspect(path) if path.is_file() else 1.0


def _fullest_row(dataset: SegmentationDataset, rows: list[int]) -> int:
    """Return the row whose mask labels most pixels, the middle one of empty masks."""
    sizes = [np.count_nonzero(dataset.masks[row]) for row in rows]
    return rows[int(np.argmax(sizes)) if any(sizes) else len(rows) // 2]


def _evenly(number: int, count: int) -> np.ndarray:
    """Return at most `count` rows of `number`, evenly from the first to the last."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(count, number)).round().astype(int))


def _tile(entry: _Entry) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that values are scaled
            image = Image.fromarray(entry.image()).convert("RGB")
            mask = None if entry.mask is None else np.asarray(entry.mask())
            aspect = float(np.clip(entry.aspect(), 1 / 64, 64))
    except InputError:
        tile = Image.new("RGB", (TILE, TILE), "black")
        ImageDraw.Draw(tile).text((4, TILE // 2), "unreadable", fill="white")
        return tile
    if mask is not None and mask.shape == (image.height, image.width):
        image = _overlaid(np.asarray(image), mask)
    image = image.resize((image.width, max(1, round(image.height * aspect))))
    image.thumbnail((TILE, TILE))
    return image


def _overlaid(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Lay the labels of a mask over an image, uint8 [height, width, 3], in colour."""
    colours = np.array(COLOURS)[(mask.astype(np.int64) - 1) % len(COLOURS)]
    mixed = image * (1 - _OPACITY) + colours * _OPACITY
    return Image.fromarray(np.where((mask > 0)[..., None], mixed, image).astype(np.uint8))
