"""Result rows of segmentations: means over images, with bootstrap intervals."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...backbones.seen import most_seen
from ...core.environment import git_revision
from ..resampling import draw_counts, interval_bounds, unit_numbers
from ..results import COLUMNS
from .metrics import image_overlap

_KEYS = ["dataset", "backbone", "probe", "seed", "weights"]
_FACTS = ["positive", "engine", "precision", "caveat", "unit", "groups_from"]
_MEASURES = ["tp", "fp", "fn", "hd95_px", "hd95_mm", "lesions", "found", "false_lesions", "pixels"]

# numerator and denominator of a mean over images, both [images, classes or 1]
Ratio = tuple[np.ndarray, np.ndarray]


def segmentation_rows(
    scores: pd.DataFrame, *, empty: str = "skip", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the metrics of scored images as result rows.

    Intervals are percentile bootstrap 95 % intervals over images, or over their groups where those
    are known (see `resampling`). `dice` and `iou` are the mean
    over images of the mean over the foreground classes of an image; `_with_background` counts the
    background as one more class; `_pooled` adds up the pixels of all images first and takes the
    mean over classes. `hd95_px` and `hd95_mm` are means over the images and classes that both have.
    `detection` is the share of images with a lesion in which any of its pixels is found;
    `lesion_detection` the share of lesions found; `false_lesions` their number per image. Images
    without any foreground are counted separately: `specificity` is their share without a predicted
    pixel, `false_positive_area` the share of their area that is predicted.

    Args:
        scores: Scores returned by `score_images`, of several folds, seeds, probes and backbones.
        empty: A key of `EMPTY_RULES`; named in `choice`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        One row per metric with `results.COLUMNS` and `labelled`; `protocol` is `seg-` and the
        probe, `n` the images that count. A metric that does not exist for the dataset (mm without
        spacing) has no row.
    """
    rows = []
    # folds belong together although their numbers of labelled images differ a little
    rank = scores.groupby([*_KEYS, "fold"], dropna=False)["labelled"].rank("dense")
    for keys, part in scores.groupby([*_KEYS, rank], sort=False, dropna=False):
        common = _common(dict(zip(_KEYS, keys[:-1], strict=True)), part, empty)
        labelled = round(part["labelled"].mean())
        ratios, units = _ratios(part, empty)
        for metric, ratio in ratios.items():
            counted = ratio[1].sum(1) > 0
            if n := int(counted.sum()):
                sizes = {"n": n, "units": n if units is None else len(set(units[counted]))}
                interval = _interval(ratio, units, resamples=resamples, seed=seed)
                rows.append(common | {"metric": metric, "labelled": labelled} | sizes | interval)
    return pd.DataFrame(rows, columns=[*COLUMNS, "labelled"])


def _common(keys: dict[str, Any], part: pd.DataFrame, empty: str) -> dict[str, Any]:
    """Return the columns that all metrics of a group share."""
    choices = [choice for choice in part["choice"].unique() if choice]
    return {
        **{key: keys[key] for key in ("dataset", "backbone", "seed", "weights")},
        **part[_FACTS].iloc[0].to_dict(),
        "task": "segmentation",
        "protocol": f"seg-{keys['probe']}",
        "split": "test",
        "git": git_revision(),
        "seen_in_pretraining": most_seen(part["seen_in_pretraining"].unique()),
        "choice": f"{' / '.join(choices)}, empty = {empty}".lstrip(", "),
    }


def _interval(
    ratio: Ratio, units: np.ndarray | None, *, resamples: int, seed: int
) -> dict[str, float]:
    images = len(ratio[0])
    draws = draw_counts(units, images, resamples, np.random.default_rng(seed))
    value = _mean_ratio(ratio, np.ones((1, images)))[0]
    low, high = interval_bounds(_mean_ratio(ratio, draws), units)
    return {"value": value, "ci_low": low, "ci_high": high}


def _mean_ratio(ratio: Ratio, weights: np.ndarray) -> np.ndarray:
    """Return the ratio of weighted sums, its mean over the columns that exist, [resamples]."""
    numerator, denominator = weights @ ratio[0], weights @ ratio[1]
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample may hold no image that counts
        return np.nanmean(numerator / np.where(denominator > 0, denominator, np.nan), axis=1)


def _ratios(scores: pd.DataFrame, empty: str) -> tuple[dict[str, Ratio], np.ndarray | None]:
    """Return each metric as a ratio of sums over images, and the number of each image's group."""
    classes = list(scores["class"].unique())
    wide = scores.assign(image=scores["fold"].astype(str) + "/" + scores["id"].astype(str))
    group_of = wide.drop_duplicates("image").set_index("image")["group"]
    wide = wide.pivot_table(
        index="image", columns="class", sort=False, values=_MEASURES, aggfunc="first", dropna=False
    )
    measures = {name: wide[name][classes].to_numpy(np.float64) for name in _MEASURES}
    ratios = _overlap_ratios(measures, "dice", empty) | _overlap_ratios(measures, "iou", empty)
    for metric in ("hd95_px", "hd95_mm"):
        ratios[metric] = _mean_over_classes(measures[metric][:, 1:])
    groups = group_of[wide.index]
    units = None if (groups == "").all() else unit_numbers(groups.tolist(), len(groups))
    return ratios | _detection_ratios(measures), units


def _overlap_ratios(measures: dict[str, np.ndarray], metric: str, empty: str) -> dict[str, Ratio]:
    ratios = {}
    for suffix, classes in (("", slice(1, None)), ("_with_background", slice(None))):
        tp, fp, fn = (measures[name][:, classes] for name in ("tp", "fp", "fn"))
        overlap = image_overlap(tp, fp, fn, metric=metric, empty=empty)
        ratios[f"{metric}{suffix}"] = _mean_over_classes(overlap)
        shared = 2 * tp if metric == "dice" else tp
        ratios[f"{metric}_pooled{suffix}"] = (shared, shared + fp + fn)
    return ratios


def _detection_ratios(measures: dict[str, np.ndarray]) -> dict[str, Ratio]:
    def foreground(values: np.ndarray) -> np.ndarray:
        return values[:, 1:].sum(1, keepdims=True)

    true = foreground(measures["tp"] + measures["fn"])
    hit = foreground(measures["tp"])
    predicted = foreground(measures["tp"] + measures["fp"])
    false_lesions = foreground(measures["false_lesions"])
    is_normal = (true == 0).astype(np.float64)
    area = measures["pixels"][:, :1]
    return {
        "detection": ((hit > 0) * (1 - is_normal), 1 - is_normal),
        "lesion_detection": (foreground(measures["found"]), foreground(measures["lesions"])),
        "false_lesions": (
            np.nan_to_num(false_lesions),
            np.isfinite(false_lesions).astype(np.float64),
        ),
        "specificity": ((predicted == 0) * is_normal, is_normal),
        "false_positive_area": (predicted / area * is_normal, is_normal),
    }


def _mean_over_classes(values: np.ndarray) -> Ratio:
    """Return the mean over the classes that count, and whether any does, [images, 1]."""
    counted = np.isfinite(values)
    number = counted.sum(1, keepdims=True)
    mean = np.where(counted, values, 0).sum(1, keepdims=True) / np.maximum(number, 1)
    return mean, (number > 0).astype(np.float64)


def is_fraction(rows: pd.DataFrame) -> pd.Series:
    """Return which result rows hold fractions; the others are distances and counts."""
    return ~rows["metric"].isin(["hd95_px", "hd95_mm", "false_lesions"])


def seeds_spread(rows: pd.DataFrame, *, metrics: Sequence[str] = ("dice", "iou")) -> pd.DataFrame:
    """Return mean and standard deviation over the seeds of the training.

    Args:
        rows: Rows returned by `segmentation_rows`.
        metrics: Metrics that are shown.

    Returns:
        Columns dataset, backbone, protocol, metric, mean, std and count.
    """
    keys = ["dataset", "backbone", "protocol", "metric"]
    groups = rows[rows["metric"].isin(metrics)].groupby(keys, sort=False)
    return groups["value"].agg(["mean", "std", "count"]).reset_index()
