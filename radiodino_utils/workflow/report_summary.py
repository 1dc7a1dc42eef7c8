"""The first screen of the report: one sentence, one table and one figure."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..evaluation.labels import DASH, label_of, percent

# the first one that a profile has: fixed in advance, so that no test result chooses it
_PROTOCOLS = ("logistic", "knn", "knn-k20", "linear", "knn1", "seg-linear")
_BASELINES = ("random-", "pixels", "none")
_FIGURES = ("09_summary", "03_metrics", "04_umap", "04_pca", "02_samples")
_RULE = (
    "The protocol is the first of a fixed list that this profile has, whatever its results; what "
    "it chooses itself, such as k, is chosen on validation."
)


def summary(tables: Mapping[str, pd.DataFrame], figures: list[str]) -> dict[str, Any]:
    """Return what the first screen shows.

    Args:
        tables: Tables of a profile by name, text cells.
        figures: Names of its figures.

    Returns:
        `sentence`, `table` (a data frame, perhaps empty), `rule` and `figure` (a name, or "").
    """
    rows = tables.get("09_results", tables.get("03_knn_rows", pd.DataFrame()))
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
    lines = []
    for dataset, of_dataset in rows[rows["split"] == "test"].groupby("dataset", sort=False):
        protocols = [name for name in _PROTOCOLS if name in set(of_dataset["protocol"])]
        if not protocols:
            continue
        part = of_dataset[of_dataset["protocol"] == protocols[0]]
        first = part["backbone"].iloc[0]
        own = part[part["backbone"] == first]
        values = own.drop_duplicates("metric").set_index("metric")
        unit = own.get("unit", pd.Series(["image"])).iloc[0]
        units = own.get("units", own["n"]).iloc[0]
        line = {
            "dataset": dataset,
            "test images": own["n"].iloc[0],
            "units of intervals": f"{units} {unit}s",
            "backbone": label_of(first),
            "protocol": protocols[0],
        }
        main = "dice" if protocols[0].startswith("seg-") else "accuracy"
        line |= {"metric": "Dice" if main == "dice" else main, "value %": _cell(values, main)}
        line |= {"AUC %": _cell(values, "auc"), "best baseline %": _best_baseline(part, main)}
        lines.append(line)
    return pd.DataFrame(lines)


def _cell(values: pd.DataFrame, metric: str) -> str:
    if metric not in values.index:
        return DASH
    row = values.loc[metric, ["value", "ci_low", "ci_high"]]
    return percent(*pd.to_numeric(row).astype(float), digits=1)


def _best_baseline(rows: pd.DataFrame, metric: str) -> str:
    """Return the greatest value of a metric among random weights and raw pixels."""
    is_baseline = rows["backbone"].str.startswith(_BASELINES) & (rows["metric"] == metric)
    baselines = rows[is_baseline].assign(number=pd.to_numeric(rows["value"]))
    if baselines.empty:
        return ""
    best = baselines.sort_values("number", kind="stable").iloc[-1]
    return f"{100 * best['number']:.1f} ({best['backbone']})"


def _sentence(table: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> str:
    if len(table):
        line = table.iloc[0]
        baseline = line["best baseline %"]
        ending = f"; the best baseline reaches {baseline.replace(' (', ' % (')}" if baseline else ""
        return (
            f"On {line['test images']} test images of {line['dataset']}, {line['backbone']} "
            f"reaches {line['value %']} % {line['metric']} by the protocol {line['protocol']}"
            f"{ending}."
        )
    features = tables.get("02_features", pd.DataFrame())
    if "dataset" in features:
        names = ", ".join(features["dataset"].unique())
        return f"Features of {names} were computed; no result rows of a test split are here."
    return "No notebook with results has run yet."
