"""Near duplicates across the splits of a segmentation dataset, and the Dice that they buy."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from ...data.segmentation import SegmentationDataset
from ..resampling import draw_counts, interval_bounds, unit_numbers
from .metrics import image_overlap, score_images
from .prediction import Segmentation

OFFICIAL, DEDUPLICATED, TRAIN_DEDUPLICATED = "official", "deduplicated", "train-deduplicated"
_KEYS = ["dataset", "backbone", "probe", "seed"]
_COUNTS = ["tp", "fp", "fn"]
SCORED = [*_KEYS, "fitted", "fold", "id", "group", "class", *_COUNTS, "twin"]
COLUMNS = [
    *("dataset", "protocol", "backbone", "seed", "comparison", "images", "with_twin", "n", "units"),
    *("dice", "without", "difference", "ci_low", "ci_high"),
]


def segmentation_twins(dataset: SegmentationDataset) -> dict[str, np.ndarray]:
    """Find the near duplicates between the test split and those that are learnt or chosen from.

    Args:
        dataset: Dataset returned by `load_segmentation_dataset`.

    Returns:
        By split the rows whose cluster of near duplicates lies on both sides, int64: those of
        test, and those of train and val. Empty if there are none, or no clusters are known.
    """
    if dataset.groups is None or dataset.unit != "cluster":
        return {}
    clusters = np.asarray(dataset.groups)
    known = np.concatenate([dataset.splits["train"], dataset.splits["val"]])
    shared = np.intersect1d(clusters[dataset.splits["test"]], clusters[known])
    twins = {split: rows[np.isin(clusters[rows], shared)] for split, rows in dataset.splits.items()}
    return {split: rows for split, rows in twins.items() if len(rows)}


def without_segmentation_twins(dataset: SegmentationDataset) -> SegmentationDataset:
    """Leave out the train and validation images that have a near duplicate in the test split.

    Args:
        dataset: Dataset returned by `load_segmentation_dataset`.

    Returns:
        The same images with smaller splits train and val.
    """
    twins = segmentation_twins(dataset)
    splits = {
        split: rows if split == "test" else rows[~np.isin(rows, twins.get(split, ()))]
        for split, rows in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def twin_scores(
    scores: pd.DataFrame,
    datasets: Iterable[SegmentationDataset],
    refitted: Iterable[Segmentation] = (),
) -> pd.DataFrame:
    """Collect what `twin_points` is computed from.

    Args:
        scores: Scores of `score_images`, fitted on the splits as they are.
        datasets: The datasets of the scores, each fold; those whose near duplicates are not known
            are left out.
        refitted: Segmentations of datasets `without_segmentation_twins`.

    Returns:
        One row per image and class, with the columns `fitted`, "official" or "train-deduplicated",
        and `twin`, whether the image has a near duplicate in train or val.
    """
    clustered = [dataset for dataset in datasets if dataset.unit == "cluster" and dataset.groups]
    twins = {
        (dataset.name, dataset.fold, dataset.ids[row])
        for dataset in clustered
        for row in segmentation_twins(dataset).get("test", ())
    }
    official = scores[scores["dataset"].isin([dataset.name for dataset in clustered])]
    parts = [official.assign(fitted=OFFICIAL)] + [
        score_images(run, outlines=False).assign(fitted=TRAIN_DEDUPLICATED) for run in refitted
    ]
    every = pd.concat(parts, ignore_index=True)
    images = zip(every["dataset"], every["fold"], every["id"], strict=True)
    return every.assign(twin=[image in twins for image in images])[SCORED]


def twin_points(
    scores: pd.DataFrame, *, empty: str = "skip", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return how much Dice falls without the near duplicates of test images, paired by image.

    "deduplicated" leaves the test images that have a near duplicate in train or val out of the
    test; the network is the same, but the images that are left may be harder or easier.
    "train-deduplicated" tests the same images with a network that was fitted without their near
    duplicates. Intervals are percentile bootstrap 95 % intervals of the difference, over clusters.

    Args:
        scores: Scores returned by `twin_scores`.
        empty: A key of `EMPTY_RULES`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        Columns dataset, protocol, backbone, seed, comparison ("deduplicated" or
        "train-deduplicated"), images of the test split, with_twin of them, n images that count,
        units, dice, without, difference, ci_low and ci_high (fractions).
    """
    rows: list[dict[str, object]] = []
    for names, part in _image_dice(scores, empty).groupby(_KEYS, sort=False):
        keys = dict(zip(_KEYS, names, strict=True))
        fits = {name: fit.set_index(["fold", "id"]) for name, fit in part.groupby("fitted")}
        official = fits[OFFICIAL]
        without = {DEDUPLICATED: official["dice"].mask(official["twin"])}
        if TRAIN_DEDUPLICATED in fits:
            without[TRAIN_DEDUPLICATED] = fits[TRAIN_DEDUPLICATED]["dice"].loc[official.index]
        units = unit_numbers(official["group"].tolist(), len(official))
        draws = draw_counts(units, len(official), resamples, np.random.default_rng(seed))
        for comparison, other in without.items():
            row = keys | {"protocol": f"seg-{keys['probe']}", "comparison": comparison}
            row |= {"images": len(official), "with_twin": int(official["twin"].sum())}
            row |= {"n": int(official["dice"].notna().sum()), "units": len(set(official["group"]))}
            rows.append(row | _difference(official["dice"], other, draws, units))
    return pd.DataFrame(rows, columns=COLUMNS)


def _difference(
    dice: pd.Series, other: pd.Series, draws: np.ndarray, units: np.ndarray | None
) -> dict[str, float]:
    """Return both means over the images, and their difference with its interval."""
    weights = np.vstack([np.ones_like(draws[:1]), draws])
    with_twins, without = _means(dice, weights), _means(other, weights)
    difference = with_twins - without
    low, high = interval_bounds(difference[1:], units)
    values = {"dice": with_twins[0], "without": without[0], "difference": difference[0]}
    return values | {"ci_low": low, "ci_high": high}


def _image_dice(scores: pd.DataFrame, empty: str) -> pd.DataFrame:
    """Return the mean foreground Dice of each image and fit."""
    foreground = scores[scores["class"] != scores.groupby("dataset")["class"].transform("first")]
    dice = image_overlap(*(foreground[name].to_numpy() for name in _COUNTS), empty=empty)
    images = foreground.assign(dice=dice).groupby([*_KEYS, "fitted", "fold", "id"], sort=False)
    facts = {"group": ("group", "first"), "twin": ("twin", "first")}
    return images.agg(dice=("dice", "mean"), **facts).reset_index()


def _means(values: pd.Series, weights: np.ndarray) -> np.ndarray:
    """Return the weighted means of the values that are not NaN, [resamples]."""
    counted = values.notna().to_numpy(float)
    with np.errstate(invalid="ignore"):
        return (weights @ values.fillna(0).to_numpy()) / (weights @ counted)
