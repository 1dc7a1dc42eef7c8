"""Tables of segmentation results for readers, beside the published numbers."""

from collections.abc import Iterable, Mapping
from importlib import resources

import pandas as pd

from ...core.errors import InputError
from ...data.segmentation import SEGMENTATION_NAMES
from ..labels import DASH, label_of
from .metrics import EMPTY_RULES


def segmentation_table(rows: pd.DataFrame, splits: Mapping[str, str]) -> pd.DataFrame:
    """Format result rows for readers, above the published numbers of the same dataset.

    Args:
        rows: Rows returned by `segmentation_rows`.
        splits: The split protocol of each dataset, in words.

    Returns:
        Columns dataset, split, backbone, probe, seed, n, Dice % (with interval), Dice with
        background %, IoU %, HD95 (mm where known, else px), lesions found %, false-positive area %
        and source.

    Raises:
        InputError: If two rows would share a cell.
    """
    keys = ["dataset", "backbone", "protocol", "seed", "labelled"]
    if rows.duplicated([*keys, "metric"]).any():
        raise InputError("two result rows for the same cell; choose one split and weights first.")
    lines = []
    for values, part in rows.groupby(keys, sort=False):
        run = dict(zip(keys, values, strict=True))
        leading = {
            "dataset": run["dataset"],
            "split": splits[run["dataset"]],
            "backbone": label_of(run["backbone"]),
            "probe": run["protocol"].removeprefix("seg-"),
            "seed": str(run["seed"]),
        }
        lines.append(leading | _cells(part.set_index("metric")))
    # a dataset of one's own may have a like name
    registered = set(rows["dataset"]) & set(SEGMENTATION_NAMES)
    prefixes = {name.split("-")[0].upper() for name in registered}
    return pd.DataFrame(lines + _published_lines(prefixes)).fillna(DASH)


def _cells(metrics: pd.DataFrame) -> dict[str, str]:
    """Return the cells of a run, from its rows by metric."""
    unit = "mm" if "hd95_mm" in metrics.index else "px"
    return {
        "n": str(metrics["n"].get("dice", 0)),
        "Dice %": _cell(metrics, "dice", 100),
        "Dice with background %": _cell(metrics, "dice_with_background", 100),
        "IoU %": _cell(metrics, "iou", 100),
        "HD95": _cell(metrics, f"hd95_{unit}", 1, f" {unit}"),
        "lesions found %": _cell(metrics, "lesion_detection", 100),
        "false-positive area %": _cell(metrics, "false_positive_area", 100),
        "source": "this run",
    }


def _cell(metrics: pd.DataFrame, name: str, scale: float, unit: str = "") -> str:
    if name not in metrics.index:
        return DASH
    value, low, high = (scale * metrics.loc[name, key] for key in ("value", "ci_low", "ci_high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]{unit}"


def _published_lines(datasets: set[str]) -> list[dict[str, str]]:
    published = published_segmentation()
    return [
        {
            "dataset": line.dataset,
            "split": line.split,
            "backbone": line.model,
            "probe": line.probe,
            "n": line.n,
            "Dice %": f"{line.dice_percent} {line.spread}".strip() or "none published",
            "source": line.source,
        }
        for line in published[published["dataset"].isin(datasets)].itertuples()
    ]


def published_segmentation() -> pd.DataFrame:
    """Return the published Dice.

    Returns:
        Texts, columns dataset, model, probe, split, n, dice_percent, spread (over what the source
        says) and source; an empty Dice says that none is published.
    """
    tables = resources.files("radiodino_utils.evaluation") / "tables"
    with resources.as_file(tables / "segmentation.csv") as path:
        return pd.read_csv(path, keep_default_na=False, dtype=str)


def caption(caveats: Iterable[str], *, empty: str) -> str:
    """Return the caption of every table and figure of segmentations.

    Args:
        caveats: Caveats of the datasets.
        empty: A key of `EMPTY_RULES`.

    Returns:
        The rule for empty masks and the caveats.
    """
    return "; ".join([f"empty masks: {EMPTY_RULES[empty]}", *sorted(set(caveats) - {""})])
