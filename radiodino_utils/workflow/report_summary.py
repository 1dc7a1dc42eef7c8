"""The first screen of the report: one sentence, one table and one figure."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..evaluation.labels import DASH, label_of, percent
from ..evaluation.results import VALIDATED

# where none was scored on validation the first one counts, so that no test result chooses it
_PROTOCOLS = ("logistic", "knn", "knn-k20", "linear", "knn1", "seg-linear")
_BASELINES = ("random-", "pixels", "none")
_TABLES = ("09_results", "03_knn_rows", "05_segmentation_rows")
_FIGURES = ("09_summary", "03_metrics", "05_probes", "04_umap", "04_pca", "02_samples")
_CHOSEN, _SCORED = "chosen by", "validation"
_NUMBERS = ["value", "ci_low", "ci_high"]
_RULE = (
    "The backbone is the first one of the profile. Its protocol is the one with the best accuracy "
    "on validation, or, where none was scored there, the first of a fixed list: no test result "
    "chooses it. The baseline is the best one on test by the same protocol, in its favour."
)


def summary(tables: Mapping[str, pd.DataFrame], figures: list[str]) -> dict[str, Any]:
    """Return what the first screen shows.

    Args:
        tables: Tables of a profile by name, text cells.
        figures: Names of its figures.

    Returns:
        `sentence`, `table` (a data frame, perhaps empty), `rule` and `figure` (a name, or "").
    """
    rows = next((tables[name] for name in _TABLES if name in tables), pd.DataFrame())
    table = _table(rows) if {"protocol", "metric", "value", "n"} <= set(rows) else pd.DataFrame()
    first = [name for start in _FIGURES for name in figures if name.startswith(start)]
    return {
        "sentence": _sentence(table, tables),
        "table": table,
        "rule": _RULE if len(table) else "",
        "figure": first[0] if first else "",
    }


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per dataset: its first backbone, and the best baseline beside it."""
    numbers = [name for name in (*_NUMBERS, VALIDATED) if name in rows]
    rows = rows.assign(**{name: pd.to_numeric(rows[name]) for name in numbers})
    lines = []
    for dataset, of_dataset in rows[rows["split"] == "test"].groupby("dataset", sort=False):
        first = of_dataset["backbone"].iloc[0]
        protocol, chosen = _protocol(of_dataset[of_dataset["backbone"] == first])
        if not protocol:
            continue
        part = of_dataset[of_dataset["protocol"] == protocol]
        own = part[part["backbone"] == first]
        values = own.groupby("metric")[_NUMBERS].mean()  # over the seeds of a training
        unit = own.get("unit", pd.Series(["image"])).iloc[0]
        groups = "" if unit == "image" else f" ({own.get('units', own['n']).iloc[0]} {unit}s)"
        main = "dice" if protocol.startswith("seg-") else "accuracy"
        line = {
            "dataset": dataset,
            "tested on": f"{own['n'].iloc[0]} images{groups}",
            "backbone": label_of(first),
            "protocol": protocol,
            "metric": "Dice" if main == "dice" else main,
            "value %": _cell(values, main),
            "AUC %": _cell(values, "auc"),
            "best baseline %": _best_baseline(part[part["backbone"] != first], main),
            _CHOSEN: chosen,
        }
        lines.append(line)
    return pd.DataFrame(lines)


def _protocol(rows: pd.DataFrame) -> tuple[str, str]:
    """Return the protocol of a backbone that is shown, and what chose it; empty if there is none.

    Protocols of variants, such as `knn (deduplicated)`, and those of few labels are no candidates.
    """
    candidates = rows[~rows["protocol"].str.contains(r"\(|^fewshot-")]
    if VALIDATED in rows and candidates[VALIDATED].notna().any():
        scores = candidates.groupby("protocol", sort=False)[VALIDATED].mean().dropna()
        return scores.idxmax(), f"{_SCORED} ({100 * scores.max():.1f} %)"
    fixed = [name for name in _PROTOCOLS if name in set(rows["protocol"])]
    return (fixed[0], "fixed in advance") if fixed else ("", "")


def _cell(values: pd.DataFrame, metric: str) -> str:
    if metric not in values.index:
        return DASH
    return percent(*values.loc[metric], digits=1)


def _best_baseline(rows: pd.DataFrame, metric: str) -> str:
    """Return the greatest value of a metric among random weights and raw pixels."""
    baselines = rows[rows["backbone"].str.startswith(_BASELINES) & (rows["metric"] == metric)]
    if baselines.empty:
        return ""
    best = baselines.groupby("backbone", sort=False)["value"].mean()
    return f"{100 * best.max():.1f} ({best.idxmax()})"


def _sentence(table: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> str:
    if len(table):
        line = table.iloc[0]
        baseline = line["best baseline %"]
        chosen = ", chosen on validation" if line[_CHOSEN].startswith(_SCORED) else ""
        ending = f"; the best baseline reaches {baseline.replace(' (', ' % (')}" if baseline else ""
        return (
            f"Tested on {line['tested on']} of {line['dataset']}, {line['backbone']} reaches "
            f"{line['value %']} % {line['metric']} by the protocol {line['protocol']}"
            f"{chosen}{ending}."
        )
    features = tables.get("02_features", pd.DataFrame())
    if "dataset" in features:
        counted = tables.get("00_classes", pd.DataFrame())
        images = pd.to_numeric(counted["images"]).sum() if "images" in counted else 0
        number = f"{images} images of " if images else ""
        names = ", ".join(features["dataset"].unique())
        return (
            f"Features of {number}{names} were computed; no result rows of a test split are here."
        )
    return "No notebook with results has run yet."
