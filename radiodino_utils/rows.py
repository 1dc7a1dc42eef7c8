"""Result rows: one tidy table for every number that is shown."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pandas as pd

from .errors import InputError
from .files import atomic
from .metrics import classification_metrics
from .predictions import Prediction
from .provenance import git_revision

COLUMNS = (
    "dataset", "task", "protocol", "backbone", "split", "metric", "value", "ci_low", "ci_high", "n", "seed", "weights", "git",
    "choice", "caveat",
)  # fmt: skip
_NUMBERS = ("value", "ci_low", "ci_high")


def classification_rows(prediction: Prediction, *, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """The metrics of a prediction as result rows, values as fractions.

    Args:
        prediction: What a task gives.
        seed: Of the bootstrap.
        resamples: See `metrics.classification_metrics`.

    Returns:
        One row a metric, with `COLUMNS`.
    """
    common = {
        "dataset": prediction.dataset,
        "task": "classification",
        "protocol": prediction.protocol,
        "backbone": prediction.backbone,
        "split": prediction.split,
        "n": len(prediction.labels),
        "seed": seed,
        "weights": prediction.weights,
        "git": git_revision(),
        "choice": prediction.chosen,
        "caveat": prediction.caveat,
    }
    metrics = classification_metrics(
        prediction.labels, prediction.probabilities, positive=prediction.positive, resamples=resamples, seed=seed
    )
    table = [
        common | {"metric": name, "value": one.value, "ci_low": one.low, "ci_high": one.high} for name, one in metrics.items()
    ]
    return pd.DataFrame(table, columns=COLUMNS)


def curve_rows(predictions: Iterable[Prediction], *, seed: int = 0) -> pd.DataFrame:
    """The result rows of predictions that differ in what was chosen, such as k, with a column for each choice."""
    return pd.concat([classification_rows(one, seed=seed).assign(**one.choice) for one in predictions], ignore_index=True)


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes a table as CSV with six significant digits, whole or not at all."""
    with atomic(Path(path)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return Path(path)


def collect_rows(folder: Path) -> pd.DataFrame:
    """Reads every `*_rows.csv` of a folder into one table of result rows.

    Raises:
        InputError: If there is none, or one lacks a column.
    """
    tables = []
    for path in sorted(folder.glob("*_rows.csv")):
        undefined = {column: [""] for column in _NUMBERS}  # such as the AUC of one picture
        table = pd.read_csv(path, keep_default_na=False, na_values=undefined, dtype={"weights": str, "git": str})
        if missing := [column for column in COLUMNS if column not in table]:
            raise InputError(f"{path}: the columns {', '.join(missing)} are missing; run its notebook again.")
        tables.append(table)
    if not tables:
        raise InputError(f"{folder}: holds no result rows (*_rows.csv); run the task notebooks first.")
    return pd.concat(tables, ignore_index=True).astype(dict.fromkeys(_NUMBERS, float))


def wide_table(rows: pd.DataFrame, *, metrics: Iterable[str] = ("accuracy", "f1_macro", "auc")) -> pd.DataFrame:
    """Lays result rows out for people: one line a data set, protocol and backbone, metrics in percent with intervals.

    Args:
        rows: With `COLUMNS`.
        metrics: Which ones, in this order.

    Returns:
        Columns dataset, protocol, backbone, choice, n, and one text column a metric such as "48.1 [43.8, 52.5]"; a metric
        that is not there or not defined is a dash.

    Raises:
        InputError: If two rows would have to share a cell.
    """
    metrics = list(metrics)
    shown = rows[rows["metric"].isin(metrics)].copy()
    shown["cell"] = [_percent(*numbers, digits=1) for numbers in shown[list(_NUMBERS)].to_numpy(float)]
    shown["backbone"] = shown["backbone"].map(label_of)
    keys = ["dataset", "protocol", "backbone", "choice", "n"]
    if twice := list(shown.loc[shown.duplicated([*keys, "metric"]), ["dataset", "protocol", "backbone"]].itertuples(index=False)):
        raise InputError(f"{', '.join(twice[0])}: two result rows for the same cell; choose one split, seed and weights first.")
    wide = shown.pivot_table(index=keys, columns="metric", values="cell", aggfunc="first", sort=False)
    wide = wide.reindex(columns=metrics).astype(object).fillna(_DASH)
    return wide.rename(columns=METRIC_LABELS).reset_index().rename_axis(columns=None)


_DASH = "–"


def _percent(value: float, low: float, high: float, *, digits: int) -> str:
    if value != value:  # NaN: not defined
        return _DASH
    return f"{100 * value:.{digits}f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


METRIC_LABELS = {"accuracy": "accuracy %", "balanced_accuracy": "balanced acc. %", "f1_macro": "macro-F1 %", "auc": "AUC %"}


def label_of(backbone: str) -> str:
    """The name of a backbone for tables and figures, with a word where it is only a floor."""
    if backbone.startswith("random-"):
        return f"{backbone} (random weights)"
    return f"{backbone} (no backbone)" if backbone == "pixels" else backbone


def published_rows() -> pd.DataFrame:
    """The numbers that RadioDINO's README publishes: columns dataset, task, metric, value_percent, model."""
    with resources.as_file(resources.files(__package__) / "published" / "radiodino.csv") as path:
        return pd.read_csv(path)


def beside_published(rows: pd.DataFrame) -> pd.DataFrame:
    """Sets every published number beside the measured one.

    Only rows of a released RadioDINO backbone on the test split of the very data set count as measured; anything else is
    "not measured".

    Args:
        rows: With `COLUMNS`.

    Returns:
        Columns dataset, task, metric, model, published %, measured % (with interval), backbone and protocol.
    """
    released = rows[rows["backbone"].str.fullmatch(r"radiodino-[tsb]\d+") & (rows["split"] == "test")]
    table = []
    for one in published_rows().itertuples():
        flag = f"{one.dataset.lower()}-224"
        same = released[(released["dataset"] == flag) & (released["metric"] == one.metric) & (released["task"] == one.task)]
        same = same[same["backbone"].str[len("radiodino-")] == one.model[0]]
        published = (one.dataset, one.task, one.metric, one.model, f"{one.value_percent:.2f}")
        found = [
            (*published, _percent(r.value, r.ci_low, r.ci_high, digits=2), r.backbone, r.protocol) for r in same.itertuples()
        ]
        table += found or [(*published, "not measured", "", "")]
    names = ["dataset", "task", "metric", "model", "published %", "measured %", "backbone", "protocol"]
    return pd.DataFrame(table, columns=names)
