"""External test sets: images from elsewhere that no fit and no choice has seen."""

from dataclasses import replace

import numpy as np

from ..core.errors import InputError
from ..core.files import value_hash
from .cross_validation import require_groups, stratified_parts
from .dataset import ImageDataset, Split
from .subsets import split_rows

PARTS = 5  # of which one is for validation, where a dataset has none


def external_test(dataset: ImageDataset, test: ImageDataset, *, seed: int = 0) -> ImageDataset:
    """Return a dataset that is fitted on one and tested on another; see `registry.with_test`."""
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
            f"({', '.join(dataset.classes)}), and has {', '.join(test.classes)}."
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
