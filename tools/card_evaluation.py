"""Evaluation of the bundled checkpoint on test rows, and the bars that were set for it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from radiodino_utils.backbones.bundled import NAME
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.files import results_folder
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.logistic import classify_logistic
from radiodino_utils.evaluation.predictions import Prediction
from radiodino_utils.evaluation.results import classification_rows, paired_table, read_table
from radiodino_utils.features.extraction import extract_features

from .card_facts import BACKBONES

DATASETS = ("organct-axial", "organct-coronal", "organct-sagittal", "breastmnist-224")
KNN = ("knn", "knn-k20", "knn1", "knn11")
_AUC_BARS = (("knn", 0.86), ("logistic", 0.88))  # of BreastMNIST
_ORGAN_BAR = 0.65  # kNN accuracy on each view of OrganCT
_BUSI_LEAD = 0.05  # logistic AUC over the pixels
_BUSI_DICE = 0.52
_FIRST_EDITION_DICE = 0.492  # linear probe on OrganCT slices, fp32


def evaluate(
    backbones: tuple[str, ...] = BACKBONES, datasets: tuple[str, ...] = DATASETS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return result rows on the test splits, and the paired differences to the other backbones."""
    predictions: list[Prediction] = []
    for dataset in map(load_dataset, datasets):
        for backbone in map(load_backbone, backbones):
            features = extract_features(backbone, dataset, precision="fp32")
            predictions += [classify_knn(features, protocol=protocol) for protocol in KNN]
            predictions.append(classify_logistic(features))
    rows = pd.concat([classification_rows(prediction) for prediction in predictions])
    return rows.reset_index(drop=True), paired_table(predictions)


def bars(rows: pd.DataFrame, paired: pd.DataFrame, results: Path | None = None) -> list[dict]:
    """Return each bar beside what was measured.

    Args:
        rows: Result rows of `evaluate`.
        paired: Paired differences of `evaluate`.
        results: Results folder with the profiles demo and breast; the repository's by default.

    Returns:
        Columns what, bar, value (a number or "not measured") and met.
    """
    measured = [*_organct(rows), *_breastmnist(rows, paired)]
    folder = results or results_folder("demo").parent
    return [*measured, *_busi(folder / "breast" / "tables"), *_organ_slices(folder / "demo")]


def measured_facts(rows: pd.DataFrame, paired: pd.DataFrame) -> dict[str, Any]:
    """Return what the card says about test rows, as JSON values."""
    as_json = {"orient": "records", "double_precision": 4}
    return {
        "bars": bars(rows, paired),
        "evaluation": json.loads(rows.to_json(**as_json)),
        "paired": json.loads(paired.to_json(**as_json)),
    }


def _bar(what: str, bar: float, value: float | None) -> dict[str, Any]:
    if value is None:
        return {"what": what, "bar": bar, "value": "not measured", "met": False}
    return {"what": what, "bar": bar, "value": round(value, 4), "met": bool(value >= bar)}


def _value(rows: pd.DataFrame, **where: str) -> float | None:
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    return float(rows["value"].iloc[0]) if len(rows) else None


def _organct(rows: pd.DataFrame) -> list[dict[str, Any]]:
    views = sorted(name for name in rows["dataset"].unique() if name.startswith("organct-"))
    own = {"backbone": NAME, "protocol": "knn", "metric": "accuracy"}
    return [
        _bar(f"{view}, kNN accuracy", _ORGAN_BAR, _value(rows, dataset=view, **own))
        for view in views
    ]


def _breastmnist(rows: pd.DataFrame, paired: pd.DataFrame) -> list[dict[str, Any]]:
    found, where = [], {"dataset": "breastmnist-224", "metric": "auc"}
    lower_ends = paired.assign(value=paired["ci_low"])
    for protocol, bar in _AUC_BARS:
        what = f"breastmnist-224, {protocol} AUC"
        value = _value(rows, backbone=NAME, protocol=protocol, **where)
        lower = _value(lower_ends, other="pixels", protocol=protocol, **where)
        found.append(_bar(what, bar, value))
        found.append(_bar(f"{what} above pixels: lower end of the paired interval", 0.0, lower))
    return found


def _busi(tables: Path) -> list[dict[str, Any]]:
    probes = _current(tables / "07_probe_rows.csv")
    where = {"dataset": "busi-folds", "protocol": "logistic", "metric": "auc"}
    own = _value(probes, backbone=NAME, **where)
    pixels = _value(probes, backbone="pixels", **where)
    lead = None if own is None or pixels is None else own - pixels
    masks = _current(tables / "05_segmentation_rows.csv")
    dice = _value(
        masks, dataset="busi-breastmnist", protocol="seg-linear", metric="dice", backbone=NAME
    )
    return [
        _bar("busi, 5 folds, logistic AUC above pixels", _BUSI_LEAD, lead),
        _bar("busi, linear probe, Dice", _BUSI_DICE, dice),
    ]


def _organ_slices(profile: Path) -> list[dict[str, Any]]:
    masks = _current(profile / "tables" / "05_segmentation_rows.csv")
    where = {"dataset": "organct-seg", "protocol": "seg-linear", "metric": "dice"}
    what = "organct-seg, linear probe, Dice of the first edition"
    found = [_bar(what, _FIRST_EDITION_DICE, _value(masks, backbone=NAME, **where))]
    path = profile / "tables" / "06_against_controls.csv"
    controls = read_table(path) if path.is_file() and len(masks) else pd.DataFrame()
    for measure in ("ROAD", "mass on the mask"):
        what = f"maps, {measure}: the least lower end of the intervals against random and centre"
        found.append(_bar(f"{what}, of the best map", 0.0, _best_map(controls, measure)))
    return found


def _best_map(controls: pd.DataFrame, measure: str) -> float | None:
    if controls.empty:
        return None
    others = [f"{NAME} against {control}" for control in ("random-t16", "centre")]
    rows = controls[(controls["metric"] == measure) & controls["comparison"].isin(others)]
    return float(rows.groupby("map")["ci_low"].min().max()) if len(rows) else None


def _current(path: Path) -> pd.DataFrame:
    """Return a result table if it is of the bundled weights, else an empty one."""
    columns = ["dataset", "protocol", "metric", "backbone", "value", "weights"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    rows = read_table(path, dtype={"weights": str})
    own = rows.loc[rows["backbone"] == NAME, "weights"].astype(str)
    is_current = len(own) and (own == load_backbone(NAME).fingerprint).all()
    return rows if is_current else rows.iloc[:0]
