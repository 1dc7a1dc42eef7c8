"""Segmentation metrics of each image: pixel counts, distances between outlines, and lesions."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...core.errors import InputError, unknown_name
from ...core.extras import extra
from .prediction import Segmentation

with extra("evaluation"):
    from scipy import ndimage

EMPTY_RULES = {
    "skip": "a class that an image lacks is not counted in it",
    "one": "a class that truth and prediction lack counts 1, "
    "one that only the prediction has counts 0",
    "alarm": "a class that truth and prediction lack is not counted, "
    "one that only the prediction has counts 0",
}
LESION_IOU = 0.1  # from which a predicted part counts as the lesion


def score_images(segmentation: Segmentation, *, outlines: bool = True) -> pd.DataFrame:
    """Compare every predicted mask of the test split with the truth, at the image's own size.

    Counts come from MONAI's confusion matrix, HD95 (the 95th percentile of the distances between
    both outlines) from its Hausdorff distance. A lesion is a connected part of a class; it is found
    where a predicted part has an IoU of at least 0.1 with it, as in the PI-CAI challenge (Saha et
    al., Lancet Oncol. 2024; DIAGNijmegen/picai_eval); a predicted part without such a partner is a
    false one.

    Args:
        segmentation: Segmentation returned by `segment` or `segment_unet`.
        outlines: Whether to measure distances and lesions too, which takes as long again.

    Returns:
        One row per image and class, the background included: `id`, `group` (empty if not known),
        `kind`, `class`, `pixels` of
        the image, pixel counts `tp`, `fp`, `fn`, distances `hd95_px` and `hd95_mm` (NaN where truth
        or prediction lacks the class, mm also where the spacing is unknown), `lesions`, `found`,
        `false_lesions`; and the facts of the segmentation, such as `dataset` and `backbone`.

    Raises:
        InputError: If a mask does not fit its image.
    """
    dataset, table = segmentation.dataset, []
    facts = _facts(segmentation)
    for position, row in enumerate(segmentation.rows):
        truth = dataset.mask(row)
        predicted = segmentation.predicted(position, truth.shape)
        measures = _measures(
            truth,
            predicted,
            classes=len(dataset.classes),
            spacing=dataset.spacing_mm,
            outlines=outlines,
        )
        for name, values in zip(dataset.classes, measures, strict=True):
            image = {"id": dataset.ids[row], "kind": dataset.kinds[row], "class": name}
            image["group"] = dataset.groups[row] if dataset.groups else ""
            table.append(facts | image | {"pixels": truth.size} | values)
    return pd.DataFrame(table)


def _facts(segmentation: Segmentation) -> dict[str, Any]:
    dataset = segmentation.dataset
    choice = ", ".join(f"{name} = {value}" for name, value in segmentation.choice.items())
    return {
        "dataset": dataset.name,
        "backbone": segmentation.backbone,
        "probe": segmentation.probe,
        "seed": segmentation.seed,
        "fold": dataset.fold,
        "labelled": segmentation.labelled,
        "weights": segmentation.weights,
        "caveat": dataset.caveat,
        "engine": segmentation.engine,
        "precision": segmentation.precision,
        "seen_in_pretraining": segmentation.seen_in_pretraining,
        "positive": dataset.classes[1] if len(dataset.classes) == 2 else "",
        "unit": dataset.unit if dataset.groups else "image",
        "groups_from": dataset.groups_from,
        "choice": choice,
    }


def _measures(
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    classes: int,
    spacing: tuple[float, float] | None,
    outlines: bool,
) -> Iterator[dict[str, float]]:
    """Yield the measures of each class of an image."""
    with extra("evaluation"):
        from monai.metrics import get_confusion_matrix

    labels = torch.arange(classes)[:, None, None]
    predicted_masks, true_masks = (
        (torch.from_numpy(mask) == labels)[None].to(torch.uint8) for mask in (predicted, truth)
    )
    confusion = get_confusion_matrix(predicted_masks, true_masks)[0].T.numpy().astype(np.int64)
    for label, (tp, fp, _, fn) in enumerate(confusion.T):
        measures = {"tp": tp, "fp": fp, "fn": fn, "hd95_px": np.nan, "hd95_mm": np.nan}
        measures |= {"lesions": 0, "found": 0, "false_lesions": 0 if outlines else np.nan}
        if label and outlines:
            measures |= _lesions(truth == label, predicted == label)
            if tp + fn and tp + fp:
                one_class = predicted_masks[:, [label]], true_masks[:, [label]]
                measures |= _hd95(*one_class, spacing=spacing)
        yield measures


def _hd95(
    predicted: torch.Tensor, truth: torch.Tensor, *, spacing: tuple[float, float] | None
) -> dict[str, float]:
    """Return the 95th percentile of the distances between the outlines of two masks."""
    with extra("evaluation"):
        from monai.metrics import compute_hausdorff_distance

    def distance(spacing: tuple[float, float] | None) -> float:
        with warnings.catch_warnings():
            # MONAI calls a deprecated function of its own
            warnings.simplefilter("ignore", FutureWarning)
            distances = compute_hausdorff_distance(
                predicted,
                truth,
                include_background=True,
                percentile=95,
                spacing=list(spacing) if spacing else None,
            )
        return float(distances)

    pixels = distance(None)
    if spacing is None:
        return {"hd95_px": pixels}
    is_square = spacing[0] == spacing[1]
    return {"hd95_px": pixels, "hd95_mm": pixels * spacing[0] if is_square else distance(spacing)}


def _lesions(truth: np.ndarray, predicted: np.ndarray) -> dict[str, int]:
    """Count the true lesions, those that are found, and the false ones."""
    (true_parts, true_count), (parts, count) = ndimage.label(truth), ndimage.label(predicted)
    shape = (true_count + 1, count + 1)
    pairs = np.ravel(true_parts * shape[1] + parts)
    shared = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    hit = (shared / np.maximum(union, 1) >= LESION_IOU)[1:, 1:]
    return {
        "lesions": true_count,
        "found": int(hit.any(1).sum()),
        "false_lesions": int((~hit.any(0)).sum()),
    }


def image_overlap(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, *, metric: str = "dice", empty: str = "skip"
) -> np.ndarray:
    """Return Dice or IoU from pixel counts, with a stated rule for classes that an image lacks.

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
    tp, fp, fn = (np.asarray(counts, np.float64) for counts in (tp, fp, fn))
    if not all((np.isfinite(counts) & (counts >= 0)).all() for counts in (tp, fp, fn)):
        raise InputError("tp, fp and fn count pixels: they must be finite and not negative.")
    double = 2 if metric == "dice" else 1
    with np.errstate(invalid="ignore"):
        values = double * tp / (double * tp + fp + fn)
    if empty == "one":
        return np.where(tp + fp + fn == 0, 1.0, values)
    return np.where(tp + fn == 0, np.nan, values) if empty == "skip" else values
