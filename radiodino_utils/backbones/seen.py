"""Which images of a dataset the pre-training of a backbone saw, by the hashes of its corpus."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources

import numpy as np
import pandas as pd

from ..data.duplicates import image_digests
from ..data.images import Images
from .registry import REGISTRY, bundled_file

SEEN = ("none", "not known", "unlabelled train", "unlabelled test")  # from least to most


def corpus_prefixes(digests: Sequence[str]) -> np.ndarray:
    """Return the first 64 bits of each SHA-256, sorted, uint64: enough to look an image up."""
    return np.sort(np.array([int(digest[:16], 16) for digest in digests], np.uint64))


def seen_images(backbone: str, images: Images) -> list[bool] | None:
    """Return for each image whether the pre-training of a backbone saw it.

    It was seen without its label. An image counts as seen if the corpus holds the very pixels, at
    any size for BUSI and BreastMNIST: BreastMNIST is made from BUSI, and `breastmnist_busi.csv`
    holds the hashes of each image at its five sizes.

    Args:
        backbone: Name of the backbone.
        images: uint8, [height, width] or [height, width, 3]; read only where a corpus is known.

    Returns:
        One bool per image; all `False` for random weights and `pixels`; `None` if the corpus is
        not known, as for released weights and files.
    """
    kind = REGISTRY[backbone].kind if backbone in REGISTRY else "file"
    if kind in ("random", "pixels"):
        return [False] * len(images)
    corpus = bundled_file(f"{backbone}-corpus.npy")
    if kind != "bundled" or not corpus.is_file():
        return None
    prefixes = set(np.load(corpus, allow_pickle=False).tolist())
    for sizes in _same_images():
        if not prefixes.isdisjoint(sizes):
            prefixes.update(sizes)
    return [int(digest[:16], 16) in prefixes for digest in image_digests(images)]


def seen_in_pretraining(seen: Mapping[str, Sequence[bool] | None]) -> str:
    """Return what result rows say about a dataset: the most that pre-training saw of it.

    Args:
        seen: Returned by `seen_images`, by split. Splits other than train and val count as test.

    Returns:
        "none", "not known", "unlabelled train" or "unlabelled test".
    """
    values = ["none"]
    for split, part in seen.items():
        if part is None:
            return "not known"
        if any(part):
            values.append("unlabelled train" if split in ("train", "val") else "unlabelled test")
    return most_seen(values)


def most_seen(values: Iterable[str]) -> str:
    """Return the value that says the most, such as of the folds of a cross-validation."""
    return max(values, key=SEEN.index)


@lru_cache
def _same_images() -> list[list[int]]:
    with resources.as_file(
        resources.files("radiodino_utils.data") / "breastmnist_busi.csv"
    ) as path:
        table = pd.read_csv(path, dtype=str)
    prefixes = table.drop(columns=["split", "row", "name"])
    return [[int(prefix, 16) for prefix in row] for row in prefixes.to_numpy()]
