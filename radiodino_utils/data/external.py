"""External test sets: images from elsewhere that no fit and no choice has seen."""

from dataclasses import replace

import numpy as np

from ..core.errors import InputError
from ..core.files import value_hash
from .cross_validation import require_groups, stratified_parts
from .dataset import ImageDataset, Split
from .duplicates import pixel_hashes
from .groups import near_duplicates
from .segmentation_dataset import SegmentationDataset
from .subsets import JoinedImages, split_rows

PARTS = 5  # of which one is for validation, where a dataset has none


def external_test(dataset: ImageDataset, test: ImageDataset, *, seed: int = 0) -> ImageDataset:
    """Return a dataset that is fitted on one and tested on another; see `registry.with_test`."""
    if dataset.digest == test.digest:
        raise InputError(f"{test.name}: holds the images of {dataset.name}; test it on others.")
    source = _test_split(test)
    positions = _positions(dataset, test)
    splits = _fitted(dataset, seed)
    _require_apart(dataset, splits, test, source)
    part = test.splits[source]
    labels = positions[test.checked_labels(source)]
    splits["test"] = replace(part, labels=labels)
    print(
        f"{dataset.name}: fitted on {len(splits['train'])} images, {len(splits['val'])} for "
        f"validation; tested on {len(part)} images of {test.name} ({source})."
    )
    if "test" in dataset.splits:
        print(f"{dataset.name}: its own {len(dataset.splits['test'])} test images are left out.")
    caveats = (dataset.caveat, test.caveat, f"external test set {test.name}")
    grouped = dataset if part.groups is None else test
    return replace(
        dataset,
        name=f"{dataset.name} tested on {test.name}",
        splits=splits,
        digest=value_hash([dataset.digest, test.digest, source, seed]),
        caveat="; ".join(dict.fromkeys(caveat for caveat in caveats if caveat)),
        unreadable={**dataset.unreadable, **test.unreadable},
        unit=grouped.unit,
        groups_from=grouped.groups_from,
        fold_of="",
    )


def _test_split(test: ImageDataset) -> str:
    for split in ("test", "all"):
        if split in test.splits:
            return split
    raise InputError(
        f"{test.name}: is no external test set: it has neither a split 'test' nor images without "
        "splits."
    )


def _positions(dataset: ImageDataset, test: ImageDataset) -> np.ndarray:
    """Return the label in the dataset of each class of the test set."""
    if set(dataset.classes) != set(test.classes):
        raise InputError(
            f"{test.name}: an external test set needs the classes of {dataset.name} "
            f"({', '.join(dataset.classes)}), and has {', '.join(test.classes)}; "
            "label both alike."
        )
    return np.array([dataset.classes.index(name) for name in test.classes], np.int64)


def _fitted(dataset: ImageDataset, seed: int) -> dict[str, Split]:
    """Return train and val; without val a fifth of the other images is validation."""
    source = "all" if "all" in dataset.splits else "train"
    train, labels = dataset.splits[source], dataset.checked_labels(source)
    if "val" in dataset.splits:
        return {"train": train, "val": dataset.splits["val"]}
    options = {"name": dataset.name, "unit": dataset.unit}
    require_groups(labels, train.groups, dataset.classes, PARTS, **options)
    parts = stratified_parts(labels, train.groups, PARTS, seed=seed)
    return {
        "train": split_rows(train, np.flatnonzero(parts != 0)),
        "val": split_rows(train, np.flatnonzero(parts == 0)),
    }


def _require_apart(
    dataset: ImageDataset, splits: dict[str, Split], test: ImageDataset, source: str
) -> None:
    """Check that no patient is on both sides; numbers of clusters mean nothing elsewhere."""
    if dataset.unit != test.unit or dataset.unit == "cluster":
        return
    known = {group for split in splits.values() for group in split.groups or ()}
    if shared := sorted(known & set(test.splits[source].groups or ())):
        raise InputError(
            f"{test.name}: the {test.unit} '{shared[0]}' is in {dataset.name} too ({len(shared)} "
            "such); leave it out on one side, or rename it if it is another one."
        )


def external_segmentation_test(
    dataset: SegmentationDataset, test: SegmentationDataset, *, seed: int = 0
) -> SegmentationDataset:
    """Return a dataset that is fitted on its own images and tested on those of another.

    Args:
        dataset: The dataset; its own test split, unless it was drawn at random, is left out. Of a
            random split a fifth of the images, with groups kept together, is for validation.
        test: The external test set, with the same classes: its test split, or all of its images if
            that was drawn at random.
        seed: Seed of the validation split.

    Returns:
        The images of both, in this order. Images that equal one of the test are not fitted. Groups
        of the test are its own, or near duplicates.

    Raises:
        InputError: If the classes differ, or fewer than two images are left to fit.
    """
    if dataset.classes != test.classes:
        raise InputError(
            f"{test.name}: an external test set needs the classes of {dataset.name} "
            f"({', '.join(dataset.classes)}), and has {', '.join(test.classes)}."
        )
    tested = np.arange(len(test)) if test.drawn else test.splits["test"]
    splits = _fitted_rows(dataset, {*pixel_hashes([test.images[int(row)] for row in tested])}, seed)
    groups, unit, source = test.groups, test.unit, test.groups_from
    if groups is None:
        unit = "cluster"
        groups, source = near_duplicates(test.images, np.zeros(len(test), np.int64), test.name)
    sizes = f"fitted on {len(splits['train'])} images, {len(splits['val'])} for validation"
    protocol = f"{sizes}; tested on {len(tested)} of {test.name}"
    print(f"{dataset.name}: {protocol}")
    caveats = (dataset.caveat, test.caveat, f"external test set {test.name}")
    return replace(
        dataset,
        name=f"{dataset.name} tested on {test.name}",
        images=JoinedImages(dataset.images, test.images),
        masks=JoinedImages(dataset.masks, test.masks),
        ids=[*dataset.ids, *test.ids],
        kinds=[*dataset.kinds, *test.kinds],
        splits=splits | {"test": tested + len(dataset)},
        protocol=protocol,
        spacing_mm=dataset.spacing_mm if dataset.spacing_mm == test.spacing_mm else None,
        digest=value_hash([dataset.digest, test.digest]),
        caveat="; ".join(dict.fromkeys(caveat for caveat in caveats if caveat)),
        groups=None if groups is None else [*(dataset.groups or dataset.ids), *groups],
        unit=unit,
        groups_from=source,
        drawn=False,
        unreadable={**dataset.unreadable, **test.unreadable},
        small={},
    )


def _fitted_rows(
    dataset: SegmentationDataset, tested: set[str], seed: int
) -> dict[str, np.ndarray]:
    """Return the rows of train and val, without images whose pixels are among the tested ones."""
    kept = np.array([name not in tested for name in pixel_hashes(dataset.images)])
    if count := int((~kept).sum()):
        print(f"{dataset.name}: {count} images are in the test set too; they are not fitted.")
    if not dataset.drawn:
        return {
            split: rows[kept[rows]] for split, rows in dataset.splits.items() if split != "test"
        }
    rows, labels = np.flatnonzero(kept), np.zeros(len(dataset), np.int64)
    groups = dataset.groups or near_duplicates(dataset.images, labels, dataset.name)[0]
    units = np.array(groups or dataset.ids)[rows]
    parts = min(PARTS, len(set(units)))
    if parts < 2:
        raise InputError(
            f"{dataset.name}: {len(rows)} images of {parts} groups are left to fit; at least two "
            "groups are needed, one for validation."
        )
    part_of = stratified_parts(labels[rows], units, parts, seed=seed)
    # a group may be larger than a part
    held = np.abs(np.bincount(part_of) - len(rows) / parts).argmin()
    return {"train": rows[part_of != held], "val": rows[part_of == held]}
