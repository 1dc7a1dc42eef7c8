"""One function that scores whatever a protocol returns."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ..core.errors import InputError, wrong_type
from .predictions import Prediction
from .results import classification_rows
from .segmentation.metrics import score_images
from .segmentation.prediction import Segmentation
from .segmentation.results import segmentation_rows


def score(result: Any, *, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """Score predictions or segmentations against the truth.

    Args:
        result: Returned by `classify`, `classify_few_shot`, `finetune` or `segment`; or several of
            them, all classifications or all segmentations.
        seed: Of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        One row per metric, with the columns of `results.COLUMNS`: values are fractions, `ci_low`
        and `ci_high` a 95 % percentile bootstrap interval over images. Segmentations of several
        folds share their rows, and have the column `labelled` too; see `segmentation_rows`.

    Raises:
        InputError: If there is nothing to score, or it is of another type or of both.
    """
    needed = "the result of classify, classify_few_shot, finetune or segment"
    if isinstance(result, str | pd.DataFrame):
        raise wrong_type("score", result, needed)
    results = list(result) if isinstance(result, Iterable) else [result]
    results = [getattr(entry, "prediction", entry) for entry in results]  # of a fine-tuning
    if not results:
        raise InputError(f"score: nothing to score; give {needed}.")
    segmented = [isinstance(entry, Segmentation) for entry in results]
    if all(segmented):
        scores = pd.concat([score_images(entry) for entry in results], ignore_index=True)
        return segmentation_rows(scores, seed=seed, resamples=resamples)
    if any(segmented):
        raise InputError("score: score classifications and segmentations in two calls.")
    if other := [entry for entry in results if not isinstance(entry, Prediction)]:
        raise wrong_type("score", other[0], needed)
    tables = [classification_rows(entry, seed=seed, resamples=resamples) for entry in results]
    return pd.concat(tables, ignore_index=True)


def print_accuracy(
    rows: pd.DataFrame, *, protocol: str, classes: Mapping[str, int] | None = None
) -> None:
    """Print the accuracy of each backbone with its interval, the best first, a line per dataset.

    Args:
        rows: Result rows of classifications.
        protocol: Protocol whose rows are printed.
        classes: Number of classes by dataset, to print the accuracy of guessing.
    """
    shown = rows[(rows["metric"] == "accuracy") & (rows["protocol"] == protocol)]
    for dataset, group in shown.groupby("dataset", sort=False):
        chance = f", chance {100 / classes[str(dataset)]:.1f} %" if classes else ""
        accuracies = [
            f"{row.backbone} {100 * row.value:.1f} % "
            f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
            for row in group.sort_values("value", ascending=False, kind="stable").itertuples()
        ]
        print(f"{dataset} (n = {group['n'].iloc[0]}{chance}): {', '.join(accuracies)}")
