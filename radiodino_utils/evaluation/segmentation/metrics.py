"""Segmentation metrics by image and pooled, their result rows, and the table beside the published numbers."""

import warnings
from collections.abc import Iterable, Sequence
from importlib import resources

import numpy as np
import pandas as pd
import torch

from ...backbones.seen import most_seen
from ...core.environment import git_revision
from ...core.errors import InputError, unknown_name
from ...core.extras import extra
from ..results import COLUMNS, label_of
from .probes import Segmentation

with extra("evaluation"):
    from scipy import ndimage

EMPTY_RULES = {
    "skip": "a class that a image lacks is not counted in it",
    "one": "a class that truth and prediction lack counts 1, one that only the prediction has counts 0",
    "alarm": "a class that truth and prediction lack is not counted, one that only the prediction has counts 0",
}
LESION_IOU = 0.1
_KEYS = ["dataset", "backbone", "probe", "seed", "weights"]
_FACTS = ["positive", "engine", "precision", "caveat"]


def score_images(segmentation: Segmentation, *, outlines: bool = True) -> pd.DataFrame:
    """Compares every predicted mask of the test split with the truth, at the image's own size.

    Counts come from MONAI's confusion matrix, HD95 (the 95th percentile of the distances between
    both outlines) from its Hausdorff distance. A lesion is a connected part of a class; it is found
    where a predicted part has an IoU of at least 0.1 with it, as in the PI-CAI challenge (Saha et
    al., Lancet Oncol. 2024; DIAGNijmegen/picai_eval); a predicted part without such a partner is a
    false one.

    Args:
        segmentation: What a probe gives.
        outlines: Whether to measure distances and lesions too, which takes as long again.

    Returns:
        One row a image and class, the background included: `id`, `kind`, `class`, pixel counts
            `tp`, `fp`, `fn`,
        `hd95_px` and `hd95_mm` (NaN where truth or prediction lacks the class, mm also where the
        spacing is unknown), `lesions`, `found`, `false_lesions`, `pixels` of the image; and what
        the segmentation says of itself.

    Raises:
        InputError: If a mask does not fit its image.
    """
    with extra("evaluation"):
        from monai.metrics import get_confusion_matrix

    dataset, table = segmentation.dataset, []
    about = {
        **{
            "dataset": dataset.name,
            "backbone": segmentation.backbone,
            "probe": segmentation.probe,
            "seed": segmentation.seed,
        },
        **{
            "fold": dataset.fold,
            "labelled": segmentation.labelled,
            "weights": segmentation.weights,
            "caveat": dataset.caveat,
        },
        **{
            name: getattr(segmentation, name)
            for name in ("engine", "precision", "seen_in_pretraining")
        },
        "positive": dataset.classes[1] if len(dataset.classes) == 2 else "",
        "choice": ", ".join(f"{name} = {value}" for name, value in segmentation.choice.items()),
    }
    labels = torch.arange(len(dataset.classes))[:, None, None]
    for position, row in enumerate(segmentation.rows):
        truth = dataset.mask(row)
        predicted = segmentation.predicted(position, truth.shape)
        masks = [
            (torch.from_numpy(one) == labels)[None].to(torch.uint8) for one in (predicted, truth)
        ]
        tp, fp, _, fn = get_confusion_matrix(*masks)[0].T.numpy().astype(np.int64)
        for label, name in enumerate(dataset.classes):
            line = about | {
                "id": dataset.ids[row],
                "kind": dataset.kinds[row],
                "class": name,
                "pixels": truth.size,
            }
            line |= {
                "tp": tp[label],
                "fp": fp[label],
                "fn": fn[label],
                "hd95_px": np.nan,
                "hd95_mm": np.nan,
            }
            line |= {"lesions": 0, "found": 0, "false_lesions": 0 if outlines else np.nan}
            if label and outlines:
                line |= _lesions(truth == label, predicted == label)
            if label and outlines and tp[label] + fn[label] and tp[label] + fp[label]:
                line |= _hd95(*(mask[:, [label]] for mask in masks), dataset.spacing_mm)
            table.append(line)
    return pd.DataFrame(table)


def _hd95(
    predicted: torch.Tensor, truth: torch.Tensor, spacing: tuple[float, float] | None
) -> dict[str, float]:
    with extra("evaluation"):
        from monai.metrics import compute_hausdorff_distance

    def distance(step: tuple[float, float] | None) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # MONAI calls a deprecated function of its own
            options = {
                "include_background": True,
                "percentile": 95,
                "spacing": list(step) if step else None,
            }
            return float(compute_hausdorff_distance(predicted, truth, **options))

    pixels = distance(None)
    if spacing is None:
        return {"hd95_px": pixels}
    return {
        "hd95_px": pixels,
        "hd95_mm": pixels * spacing[0] if spacing[0] == spacing[1] else distance(spacing),
    }


def _lesions(truth: np.ndarray, predicted: np.ndarray) -> dict[str, int]:
    (true_parts, lesions), (predicted_parts, count) = ndimage.label(truth), ndimage.label(predicted)
    shape = (lesions + 1, count + 1)
    shared = np.bincount(
        np.ravel(true_parts * shape[1] + predicted_parts), minlength=shape[0] * shape[1]
    ).reshape(shape)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    hit = (shared / np.maximum(union, 1) >= LESION_IOU)[1:, 1:]
    return {
        "lesions": lesions,
        "found": int(hit.any(1).sum()),
        "false_lesions": int((~hit.any(0)).sum()),
    }


def image_overlap(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, *, metric: str = "dice", empty: str = "skip"
) -> np.ndarray:
    """Dice or IoU from pixel counts, with a stated rule for classes that a image lacks.

    Where truth and prediction are both empty the ratio is 0 / 0, and libraries differ: MONAI with
    `ignore_empty=True` is "skip", with `ignore_empty=False` "one"; torchmetrics is "alarm".

    Args:
        tp: Pixels that both have, any shape.
        fp: Pixels that only the prediction has.
        fn: Pixels that only the truth has.
        metric: "dice" or "iou".
        empty: A key of `EMPTY_RULES`.

    Returns:
        float64 of the same shape; NaN where the class is not counted.

    Raises:
        InputError: If the metric or the rule is unknown, or a count is negative or not finite.
    """
    if metric not in ("dice", "iou"):
        raise unknown_name("overlap", metric, ["dice", "iou"])
    if empty not in EMPTY_RULES:
        raise unknown_name("rule for empty masks", empty, EMPTY_RULES)
    tp, fp, fn = (np.asarray(one, np.float64) for one in (tp, fp, fn))
    if not all((np.isfinite(one) & (one >= 0)).all() for one in (tp, fp, fn)):
        raise InputError("tp, fp and fn count pixels: they must be finite and not negative.")
    double = 2 if metric == "dice" else 1
    with np.errstate(invalid="ignore"):
        values = double * tp / (double * tp + fp + fn)
    if empty == "one":
        return np.where(tp + fp + fn == 0, 1.0, values)
    return np.where(tp + fn == 0, np.nan, values) if empty == "skip" else values


def segmentation_rows(
    scores: pd.DataFrame, *, empty: str = "skip", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The metrics of scored images as result rows with percentile bootstrap 95 % intervals over
    images.

    `dice` and `iou` are the mean over images of the mean over the foreground classes of a image;
    `_with_background` counts the background as one more class; `_pooled` adds up the pixels of all
    images first and takes the mean over classes. `hd95_px` and `hd95_mm` are means over the images
    and classes that both have. `detection` is the share of images with a lesion in which any of its
    pixels is found; `lesion_detection` the share of lesions found;
    `false_lesions` their number a image. Images without any foreground are counted apart:
        `specificity` is their
    share without a predicted pixel, `false_positive_area` the share of their area that is
    predicted.

    Args:
        scores: What `score_images` gives, of several folds, seeds, probes and backbones.
        empty: A key of `EMPTY_RULES`; named in `choice`.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples.

    Returns:
        One row a metric with `rows.COLUMNS` and `labelled`; `protocol` is `seg-` and the probe, `n`
        the images that count. A metric that does not exist for the set (mm without spacing) has no
        row.
    """
    tables = []
    # folds belong together although their numbers of labelled images differ a little
    step = scores.groupby([*_KEYS, "fold"], dropna=False)["labelled"].rank("dense")
    for keys, part in scores.groupby([*_KEYS, step], sort=False, dropna=False):
        about = dict(zip(_KEYS, keys, strict=False))
        choices = [choice for choice in part["choice"].unique() if choice]
        common = {
            **{key: about[key] for key in ("dataset", "backbone", "seed", "weights")},
            **{
                "task": "segmentation",
                "protocol": f"seg-{about['probe']}",
                "split": "test",
                "git": git_revision(),
            },
            **part[_FACTS].iloc[0].to_dict(),
            "seen_in_pretraining": most_seen(part["seen_in_pretraining"].unique()),
            "choice": f"{' / '.join(choices)}, empty = {empty}".lstrip(", "),
        }
        for metric, (over, under) in _ratios(part, empty).items():
            counted = int((under.sum(1) > 0).sum())
            if counted:
                draws = np.random.default_rng(seed).multinomial(
                    len(over), np.full(len(over), 1 / len(over)), resamples
                )
                value, resampled = (
                    _mean_ratio(over, under, one) for one in (np.ones((1, len(over))), draws)
                )
                low, high = np.nanpercentile(resampled, [2.5, 97.5])
                numbers = {"value": value[0], "ci_low": low, "ci_high": high}
                tables.append(
                    common
                    | {"metric": metric, "n": counted, "labelled": round(part["labelled"].mean())}
                    | numbers
                )
    return pd.DataFrame(tables, columns=[*COLUMNS, "labelled"])


def _ratios(scores: pd.DataFrame, empty: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each metric what is summed over images above and below the line of a fraction, both [images, classes or 1]."""
    classes = list(scores["class"].unique())
    wide = scores.assign(image=scores["fold"].astype(str) + "/" + scores["id"].astype(str))
    wide = wide.pivot_table(
        index="image", columns="class", sort=False, values=_NUMBERS, aggfunc="first", dropna=False
    )
    table = {name: wide[name][classes].to_numpy(np.float64) for name in _NUMBERS}
    tp, fp, fn = (table[name] for name in ("tp", "fp", "fn"))
    some, ratios = slice(1, None), {}
    for metric in ("dice", "iou"):
        for suffix, part in (("", some), ("_with_background", slice(None))):
            counts = [one[:, part] for one in (tp, fp, fn)]
            ratios[f"{metric}{suffix}"] = _image_mean(
                image_overlap(*counts, metric=metric, empty=empty)
            )
            double = (1 + (metric == "dice")) * counts[0]
            ratios[f"{metric}_pooled{suffix}"] = (double, double + counts[1] + counts[2])
    for metric in ("hd95_px", "hd95_mm"):
        ratios[metric] = _image_mean(table[metric][:, some])
    true, hit, predicted = ((one[:, some].sum(1, keepdims=True)) for one in (tp + fn, tp, tp + fp))
    normal, area = (true == 0).astype(np.float64), table["pixels"][:, :1]
    ratios["detection"] = ((hit > 0) * (1 - normal), 1 - normal)
    ratios["lesion_detection"] = tuple(
        table[name][:, some].sum(1, keepdims=True) for name in ("found", "lesions")
    )
    false = table["false_lesions"][:, some].sum(1, keepdims=True)
    ratios["false_lesions"] = (np.nan_to_num(false), np.isfinite(false).astype(np.float64))
    ratios["specificity"] = ((predicted == 0) * normal, normal)
    ratios["false_positive_area"] = (predicted / area * normal, normal)
    return ratios


_NUMBERS = ["tp", "fp", "fn", "hd95_px", "hd95_mm", "lesions", "found", "false_lesions", "pixels"]


def _image_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counted = np.isfinite(values)
    total = np.where(counted, values, 0).sum(1, keepdims=True) / np.maximum(
        counted.sum(1, keepdims=True), 1
    )
    return total, counted.any(1, keepdims=True).astype(np.float64)


def _mean_ratio(over: np.ndarray, under: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The fraction of weighted sums, its mean over the columns that exist: [resamples]."""
    above, below = weights @ over, weights @ under
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample may hold no image that counts
        return np.nanmean(above / np.where(below > 0, below, np.nan), axis=1)


def is_fraction(rows: pd.DataFrame) -> pd.Series:
    """Which result rows hold fractions; the others are distances and counts."""
    return ~rows["metric"].isin(["hd95_px", "hd95_mm", "false_lesions"])


def seeds_spread(rows: pd.DataFrame, *, metrics: Sequence[str] = ("dice", "iou")) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of the training, by dataset, backbone, probe and metric."""
    keys = ["dataset", "backbone", "protocol", "metric"]
    return (
        rows[rows["metric"].isin(metrics)]
        .groupby(keys, sort=False)["value"]
        .agg(["mean", "std", "count"])
        .reset_index()
    )


def published_segmentation() -> pd.DataFrame:
    """Published Dice: columns dataset, model, probe, split, n, dice_percent, source; an empty Dice says that there is none."""
    with resources.as_file(
        resources.files("radiodino_utils.evaluation") / "tables" / "segmentation.csv"
    ) as path:
        return pd.read_csv(path, keep_default_na=False, dtype=str)


def segmentation_table(rows: pd.DataFrame, splits: dict[str, str]) -> pd.DataFrame:
    """Lays result rows out for people, published numbers of the same images below, each with its
    own protocol.

    Args:
        rows: What `segmentation_rows` gives.
        splits: The split protocol of each dataset, in words.

    Returns:
        Columns dataset, split, backbone, probe, seed, n, Dice % (with interval), Dice with
        background %, IoU %, HD95 (mm where known, else px), lesions found %, false-positive area %
        and source.

    Raises:
        InputError: If two rows would have to share a cell.
    """
    keys = ["dataset", "backbone", "protocol", "seed", "labelled"]
    if rows.duplicated([*keys, "metric"]).any():
        raise InputError("two result rows for the same cell; choose one split and weights first.")
    lines = []
    for values, part in rows.groupby(keys, sort=False):
        about, metric = dict(zip(keys, values, strict=True)), part.set_index("metric")
        unit = "mm" if "hd95_mm" in metric.index else "px"
        lines.append(
            {
                "dataset": about["dataset"],
                "split": splits[about["dataset"]],
                "backbone": label_of(about["backbone"]),
                "probe": about["protocol"].removeprefix("seg-"),
                "seed": str(about["seed"]),
                "n": str(metric["n"].get("dice", 0)),
                "Dice %": _cell(metric, "dice", 100),
                "Dice with background %": _cell(metric, "dice_with_background", 100),
                "IoU %": _cell(metric, "iou", 100),
                "HD95": _cell(metric, f"hd95_{unit}", 1, f" {unit}"),
                "lesions found %": _cell(metric, "lesion_detection", 100),
                "false-positive area %": _cell(metric, "false_positive_area", 100),
                "source": "this run",
            }
        )
    published = published_segmentation()
    prefixes = {name.split("-")[0].upper() for name in rows["dataset"].unique()}
    for one in published[published["dataset"].isin(prefixes)].itertuples():
        about = {
            "dataset": one.dataset,
            "split": one.split,
            "backbone": one.model,
            "probe": one.probe,
            "n": one.n,
        }
        lines.append(about | {"Dice %": one.dice_percent or "none published", "source": one.source})
    return pd.DataFrame(lines).fillna("–")


def _cell(rows: pd.DataFrame, metric: str, scale: float, unit: str = "") -> str:
    if metric not in rows.index:
        return "–"
    value, low, high = (scale * rows.loc[metric, name] for name in ("value", "ci_low", "ci_high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]{unit}"


def caption(caveats: Iterable[str], *, empty: str) -> str:
    """What stands under every table and figure of segmentations: the rule for empty masks and the caveats."""
    return "; ".join([f"empty masks: {EMPTY_RULES[empty]}", *sorted(set(caveats) - {""})])
