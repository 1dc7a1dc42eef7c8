"""Masks: label values as they are stored, and the mask of each image."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .images import LazyImages
from .reading import SUFFIXES, read_values

Colour = tuple[int, int, int]
MASK_ENDINGS = tuple(
    f"{mark}{word}"
    for word in ("segmentation", "annotation", "labels", "label", "mask", "seg", "gt")
    for mark in "_-. "
)


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
        index: See `read_image`.

    Returns:
        Integers, [height, width].

    Raises:
        InputError: If the file cannot be read, holds fractions, or holds colours that are not in
            the table.
    """
    path = Path(path)
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
    """Pair each image with its mask: by the name without its suffix, then without `MASK_ENDINGS`.

    Args:
        images: Folder of images.
        masks: Folder of masks, such as `p3.png` or `p3_mask.png` for `p3.slice.jpg` or `p3.jpg`.

    Returns:
        Images and masks, sorted by the names of the images.

    Raises:
        InputError: If a folder is missing, two files have one name, or an image has no mask; the
            message lists the files. Masks without an image are listed by a warning.
    """
    image_of = _by_stem(images, endings=())
    exact, stripped = _by_stem(masks, endings=()), _by_stem(masks, endings=MASK_ENDINGS)
    pairs, missing, used = [], [], set()
    for stem, paths in sorted(image_of.items()):
        candidates = exact.get(stem) or stripped.get(stem) or []
        _require_single(paths, "images")
        _require_single(candidates, "masks")
        if candidates:
            pairs.append((paths[0], candidates[0]))
            used.add(candidates[0])
        else:
            missing.append((stem, paths[0].name))
    if missing:
        others = f" ({_listed([name for _, name in missing[1:]])} neither)" if missing[1:] else ""
        stem, name = missing[0]
        raise InputError(
            f"{name}: has no mask in {masks}{others}; add {stem}.png or leave out the image."
        )
    if unpaired := sorted({path for paths in exact.values() for path in paths} - used):
        names = _listed([path.name for path in unpaired])
        warnings.warn(f"{masks}: masks without an image in {images}: {names}.", stacklevel=3)
    return pairs


def stem_of(name: str) -> str:
    """Return the name of an image file without its suffix, such as `.nii.gz`."""
    suffixes = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - max(map(len, suffixes), default=0)]


def _by_stem(folder: Path, *, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return the image files of a folder by their stems, of which one ending is cut."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; "
            "images and masks are needed, each in a folder of its own."
        )
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."):
            stem = stem_of(path.name)
            ending = next((end for end in endings if stem.lower().endswith(end)), "")
            found[stem[: len(stem) - len(ending)]].append(path)
    return found


def _require_single(paths: list[Path], what: str) -> None:
    if len(paths) > 1:
        names = _listed([path.name for path in paths])
        raise InputError(
            f"{paths[0].parent}: the {what} {names} have one name; keep one of them, or rename."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
