"""Masks: label values as they are stored, and the mask of each image."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .folder_layout import image_stem, stem_of, visible_files
from .images import LazyImages
from .readability import require_few, unreadable_images
from .reading import SUFFIXES, count_planes, read_values

SHOWN = 20  # files in a message
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskFiles(LazyImages):
    """Mask files as a sequence of label arrays, each read when it is needed.

    Attributes:
        paths: The files.
        classes: Number of label values; with fewer than 256, a mask of 0 and 255 becomes one of 0
            and 1.
        colours: See `read_mask`.
    """

    paths: tuple[Path, ...]
    classes: int = 2
    colours: tuple[Colour, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> np.ndarray:
        """Return the labels of a mask, an integer array [height, width]."""
        mask = read_mask(self.paths[row], colours=self.colours)
        if self.classes < 256 and set(np.unique(mask)) <= {0, 255}:
            return (mask // 255).astype(np.uint8)
        return mask


def read_mask(
    path: str | Path, *, colours: Sequence[Colour] = (), index: int | None = None
) -> np.ndarray:
    """Read the labels of a mask as they are stored, without any scaling.

    Args:
        path: File in any format of `read_image`; of a palette image the indices count.
        colours: Red, green and blue of each label, in their order, for masks in colour.
        index: Slice, frame or page; needed of a file with several.

    Returns:
        Integers, [height, width].

    Raises:
        InputError: If the file cannot be read, holds several planes and none is named, holds
            fractions, or holds colours that are not in the table.
    """
    path = Path(path)
    if index is None:
        require_single_plane(path, "the mask")
    values = read_values(path, index=index)
    if values.ndim == 3:
        values = _without_opaque_layer(values, path)
        if colours:
            return _labels_of_colours(values, colours, path)
        if (values != values[..., :1]).any():
            raise InputError(
                f"{path}: a mask in colour; say which colour is which class (`colours`), or save "
                "the numbers of the classes."
            )
        values = values[..., 0]
    return whole_numbers(values, path)


def require_single_plane(path: Path, what: str) -> None:
    """Check that a file is one image, so that a mask and its image cannot be of two slices.

    Args:
        path: The file.
        what: What it is, for the message.

    Raises:
        InputError: If it holds several slices, frames or pages.
    """
    if (planes := count_planes(path)) > 1:
        raise InputError(
            f"{path}: {what} holds {planes} planes, and which one is meant is not known; name one "
            "by `index`, save each as a file, or use volumes:PATH for NIfTI volumes."
        )


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Return the values of a mask as integers, of the same shape.

    Raises:
        InputError: If some are fractions or NaN.
    """
    if values.dtype.kind in "iub":
        return values
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise InputError(f"{path}: the mask holds fractions or NaN; its values number classes.")
    return values.astype(np.int64)


def _without_opaque_layer(values: np.ndarray, path: Path) -> np.ndarray:
    """Drop the alpha channel of a mask, [height, width, channels]."""
    if values.shape[-1] not in (2, 4):
        return values
    if (values[..., -1] != 255).any():
        raise InputError(f"{path}: the mask is partly transparent; save it without transparency.")
    return values[..., :-1]


def _labels_of_colours(values: np.ndarray, colours: Sequence[Colour], path: Path) -> np.ndarray:
    """Return the label of each pixel, int64 [height, width]; see `read_mask`."""
    labels = np.full(values.shape[:2], -1)
    for label, colour in enumerate(colours):
        labels[(values == np.array(colour)).all(-1)] = label
    if (labels < 0).any():
        unknown = tuple(values[labels < 0][0].tolist())
        raise InputError(f"{path}: the mask holds the colour {unknown}, which no class has.")
    return labels


def pair_masks(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pair each image with its mask by the name without its suffix, or also without an ending.

    Args:
        images: Folder of images, and of subfolders.
        masks: Folder of masks in the same subfolders, such as `p3.png` or `p3_mask.png` for
            `p3.jpg`; see `folder_layout.MASK_ENDINGS`.

    Returns:
        Images and masks, sorted by the names of the images.

    Raises:
        InputError: If a folder is missing, an image has no mask or several, or two images have one
            name; the message lists the first such files. Masks without an image are listed by a
            warning.
    """
    image_of, mask_of = _by_stem(images), _by_stem(masks)
    stripped: dict[str, list[Path]] = defaultdict(list)
    for stem, paths in mask_of.items():
        if stem not in image_of:
            stripped[image_stem(stem)] += paths
    pairs, faults = [], []
    for stem, paths in sorted(image_of.items()):
        candidates = mask_of.get(stem, []) + stripped.pop(stem, [])
        if len(paths) > 1:
            faults.append(f"{_listed(paths, images)} have one name")
        elif not candidates:
            faults.append(f"{_listed(paths, images)} has no mask")
        elif len(candidates) > 1:
            faults.append(f"{_listed(paths, images)} has the masks {_listed(candidates, masks)}")
        else:
            pairs.append((paths[0], candidates[0]))
    unpaired = sorted(path for paths in stripped.values() for path in paths)
    if faults:
        others = f"; masks without an image: {_listed(unpaired, masks)}" if unpaired else ""
        shown = [*faults[:SHOWN], *[f"and {len(faults) - SHOWN} more"] * (len(faults) > SHOWN)]
        raise InputError(
            f"{images}: {len(faults)} image names cannot be paired with a mask in {masks}: "
            f"{'; '.join(shown)}{others}. Add, rename or remove these files."
        )
    if unpaired:
        warnings.warn(
            f"{masks}: masks without an image in {images}: {_listed(unpaired, masks)}.",
            stacklevel=3,
        )
    return pairs


def readable_pairs(
    pairs: Sequence[tuple[Path, Path]],
    read: Callable[[Path, Path], object],
    *,
    facts: object,
    source: Path,
    tolerated: float | None,
) -> tuple[list[tuple[Path, Path]], dict[str, str]]:
    """Leave out images that cannot be read, or whose masks cannot.

    Args:
        pairs: Result of `pair_masks`.
        read: Function that reads an image and its mask.
        facts: See `readability.unreadable_images`.
        source: Folder of the images, for messages.
        tolerated: Share of images that may be left out; `None` reads nothing.

    Returns:
        The pairs that can be read, and by name the reason of each other image.

    Raises:
        InputError: If more cannot be read.
    """
    if tolerated is None:
        return list(pairs), {}
    names = [image.relative_to(source).as_posix() for image, _ in pairs]
    files = [*zip(*pairs, strict=True)]
    unreadable = unreadable_images(
        lambda row: read(*pairs[row]), names, files=[*files[0], *files[1]], facts=facts
    )
    require_few(unreadable, len(pairs), source=source, share=tolerated)
    kept = [pair for name, pair in zip(names, pairs, strict=True) if name not in unreadable]
    return kept, unreadable


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of a folder by their paths in it without the suffix."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; "
            "images and masks are needed, each in a folder of its own."
        )
    found: dict[str, list[Path]] = defaultdict(list)
    for path in visible_files(folder):
        if path.name.lower().endswith(SUFFIXES):
            found[stem_of(path.relative_to(folder).as_posix())].append(path)
    return found


def _listed(paths: list[Path], folder: Path) -> str:
    names = [path.relative_to(folder).as_posix() for path in paths[:SHOWN]]
    more = len(paths) - len(names)
    return ", ".join([*names, *[f"and {more} more"] * (more > 0)])
