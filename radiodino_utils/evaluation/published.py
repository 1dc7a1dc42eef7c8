"""Published numbers beside measured ones, by rules that are stated beforehand."""

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from .labels import label_of, percent
from .results import over_seeds

RULE = (
    "A verdict is given only where a released RadioDINO backbone of the published size ran in fp32 "
    "on the very test split and with the very protocol that the published number states; else the "
    "two are not comparable, and the reason is said. Then the number counts as reproduced when it "
    "lies inside the measured 95 % interval or, for more than 5000 test images, within one point "
    "of the measured value; inside an interval wider than +-5 points it is only compatible; else "
    "it differs."
)
LARGE, POINT, WIDE = 5000, 0.01, 0.05  # the numbers in `RULE`
NOT_MEASURED = "not measured"
SOURCES = {
    "radiodino": "README of RadioDINO (Zedda et al., 10.1016/j.compbiomed.2025.110583), CC BY 4.0",
    "medmnist_v2": "MedMNIST v2 (Yang et al., Sci. Data 10:41, 10.1038/s41597-022-01721-8), "
    "table 3; 224: enlarged from 28",
    "medmnist_plus": "MedMNIST+ benchmark (Doerrich et al., Sci. Rep. 15:7669, "
    "10.1038/s41598-025-92156-9)",
}
# Test split (registered name of a dataset) and protocol of each published dataset and task, empty
# where the README does not state them: it names k = 1 and no split for RadImageNet, neither for
# BUSI, and the official split but no protocol for MedMNIST (see `compare_published`).
STATED = {
    ("RadImageNet", "knn_k1"): ("", "knn1"),
    ("BUSI", "classification"): ("", ""),
    ("BUSI", "segmentation"): ("", ""),
}
_MEDMNIST = r"^(\w+mnist)-(\d+)$"  # registered name and size
_PLACES = {
    "BUSI": ("busi-folds", "busi-lesions", "busi-breastmnist"),
    "RadImageNet": ("radimagenet",),
}


def published(name: str) -> pd.DataFrame:
    """Return a table of published numbers.

    Args:
        name: A key of `SOURCES`: "radiodino", "medmnist_v2" or "medmnist_plus".
    """
    with resources.as_file(resources.files(__package__) / "tables" / f"{name}.csv") as path:
        return pd.read_csv(path)


def field_numbers() -> pd.DataFrame:
    """Return numbers that others published, each by a protocol of its own that is not run here.

    Returns:
        Texts, columns dataset, task, model, protocol, n (empty where the source does not say),
        metric, value and source. Compare rows of one dataset and source only, and no row with a
        measured one.
    """
    with resources.as_file(resources.files(__package__) / "tables" / "field.csv") as path:
        return pd.read_csv(path, keep_default_na=False, dtype=str)


def places(dataset: str) -> tuple[str, ...]:
    """Return the registered datasets on which a published dataset can be measured.

    Args:
        dataset: Published name, such as "BreastMNIST".

    Returns:
        Registered names; several for BUSI, whose published split is not known.
    """
    return _PLACES.get(dataset, (f"{dataset.lower()}-224",))


def compare_published(
    rows: pd.DataFrame, *, stated: Mapping[tuple[str, str], tuple[str, str]] = STATED
) -> pd.DataFrame:
    """Put every number of RadioDINO's README beside the measured ones; see `RULE`.

    Args:
        rows: Result rows with `results.COLUMNS`; of several seeds the mean counts.
        stated: Test split and protocol by published dataset and task; see `STATED`. For a missing
            entry they are the official test split of the 224-pixel dataset and a protocol that is
            not public.

    Returns:
        A row for each published number and protocol that measured it, one where none did: dataset,
        task, metric, model, published, value, sd, ci_low, ci_high, n, difference (fractions; NaN
        where not measured), verdict, backbone, protocol, measured_on. The published task "knn_k1"
        of RadImageNet is measured by the protocol knn1 alone.
    """
    is_released = rows["backbone"].str.fullmatch(r"radiodino-[tsb]\d+") & (rows["split"] == "test")
    released = over_seeds(rows[is_released])
    released = released[~released["protocol"].str.startswith("fewshot")]
    lines: list[dict[str, Any]] = []
    for number in published("radiodino").itertuples():
        of_size = released[released["backbone"].str[len("radiodino-")] == number.model[0]]
        unknown = (places(number.dataset)[0], "")
        split, protocol = stated.get((number.dataset, number.task), unknown)
        measured = _measured_rows(of_size, number)
        if measured.empty:
            reason = _reason(number.model, number.dataset, of_size)
            lines.append(_line(number) | {"verdict": f"{NOT_MEASURED}: {reason}"})
        for row in measured.itertuples():
            lines.append(_line(number) | _measured_line(number, row, split, protocol))
    names = ["dataset", "task", "metric", "model"]
    numbers = ["published", "value", "sd", "ci_low", "ci_high", "n", "difference"]
    words = ["verdict", "backbone", "protocol", "measured_on"]
    return pd.DataFrame(lines, columns=[*names, *numbers, *words])


def _measured_rows(rows: pd.DataFrame, number: Any) -> pd.DataFrame:
    """Return the rows that measure a published number."""
    is_knn1 = number.task == "knn_k1"
    matches = (
        rows["dataset"].isin(places(number.dataset))
        & (rows["metric"] == number.metric)
        & (rows["task"] == ("classification" if is_knn1 else number.task))
    )
    if is_knn1:
        matches &= rows["protocol"] == "knn1"
    return rows[matches]


def _line(number: Any) -> dict[str, Any]:
    return {
        "dataset": number.dataset,
        "task": number.task,
        "metric": number.metric,
        "model": number.model,
        "published": number.value_percent / 100,
    }


def _measured_line(number: Any, row: Any, split: str, protocol: str) -> dict[str, Any]:
    value = number.value_percent / 100
    columns = ("value", "sd", "ci_low", "ci_high", "n", "backbone", "protocol")
    return {name: getattr(row, name) for name in columns} | {
        "measured_on": row.dataset,
        "difference": row.value - value,
        "verdict": _verdict(value, row, split, protocol),
    }


def _verdict(value: float, measured: Any, split: str, protocol: str) -> str:
    """Return the verdict by `RULE` on a published value and the row that measured it."""
    if not split or not protocol:
        stated = {"split": split, "protocol": protocol}
        unknown = " and ".join(what for what, name in stated.items() if not name)
        return f"not comparable: the published {unknown} is not public"
    for preposition, own, theirs in (
        ("on", measured.dataset, split),
        ("by", measured.protocol, protocol),
        ("in", measured.precision, "fp32"),
    ):
        if own != theirs:
            return f"not comparable: measured {preposition} {own}, not {preposition} {theirs}"
    if measured.n > LARGE and abs(measured.value - value) <= POINT:
        return "reproduced"
    if not measured.ci_low <= value <= measured.ci_high:
        return "differs"
    half = (measured.ci_high - measured.ci_low) / 2
    return "reproduced" if half <= WIDE else f"compatible, interval of +-{100 * half:.1f} points"


def _reason(model: str, dataset: str, of_size: pd.DataFrame) -> str:
    if model == "tiny":
        return "no tiny weights are released"
    name = {"small": "radiodino-s16", "base": "radiodino-b16"}[model]
    return f"{name} was not run" if of_size.empty else f"{name} was not run on {dataset}"


def published_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Format the result of `compare_published` for readers.

    Args:
        compared: Table returned by `compare_published`.

    Returns:
        Texts: percent with intervals, the difference in points.
    """
    numbers = compared[["value", "ci_low", "ci_high", "sd"]].to_numpy(float)
    return pd.DataFrame(
        {
            **compared[["dataset", "task", "metric", "model"]],
            "published %": compared["published"].map(lambda value: f"{100 * value:.2f}"),
            "measured %": [
                NOT_MEASURED if np.isnan(values[0]) else percent(*values, digits=2)
                for values in numbers
            ],
            "difference": _formatted(100 * compared["difference"], "{:+.2f}"),
            "verdict": compared["verdict"],
            "n": _formatted(compared["n"], "{:.0f}"),
            "backbone": compared["backbone"].fillna(""),
            "protocol": compared["protocol"].fillna(""),
            "measured on": compared["measured_on"].fillna(""),
        }
    )


def _formatted(values: pd.Series, pattern: str) -> list[str]:
    """Return texts, empty for NaN."""
    return ["" if np.isnan(value) else pattern.format(value) for value in values.to_numpy(float)]


def beside_baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the measured MedMNIST rows beside the published numbers of the same datasets.

    These are from MedMNIST v2, the MedMNIST+ benchmark and RadioDINO's README.

    Args:
        rows: Result rows with `results.COLUMNS`.

    Returns:
        A line for each dataset, source, protocol and model, with accuracy % and AUC % by image
        size; measured ones have intervals, those of MedMNIST+ standard deviations over runs. A
        dataset on which nothing was measured says so. Compare lines of one protocol only.
    """
    plus = _medmnist_plus()
    measured = _measured(rows, plus["dataset"].unique())
    tables = pd.concat([measured, _radiodino(), plus, _medmnist_v2()])
    tables = tables[tables["metric"].isin(["accuracy", "auc"])]
    labels = tables["metric"].map({"accuracy": "accuracy %", "auc": "AUC %"})
    tables["column"] = labels + ", " + tables["image_size"].astype(str)
    keys = ["dataset", "source", "protocol", "model"]
    wide = tables.pivot_table(
        index=keys, columns="column", values="cell", aggfunc="first", sort=False
    )
    columns = [
        f"{metric} %, {size}" for metric in ("accuracy", "AUC") for size in (28, 64, 128, 224)
    ]
    wide = wide.reindex(columns=columns).fillna("").reset_index().rename_axis(columns=None)
    return wide.sort_values("dataset", kind="stable", ignore_index=True)


def _medmnist_plus() -> pd.DataFrame:
    table = published("medmnist_plus").assign(source="MedMNIST+")
    table["metric"] = table["metric"].replace("acc", "accuracy")
    table["cell"] = table["mean"].map("{:.2f}".format) + _formatted(table["sd"], " ± {:.2f}")
    return table


def _medmnist_v2() -> pd.DataFrame:
    table = published("medmnist_v2").rename(columns={"acc": "accuracy", "method": "model"})
    table = table.melt(["model", "dataset"], ["accuracy", "auc"], "metric")
    sizes = table["model"].str.extract(r"\((\d+)\)", expand=False).fillna("28")
    return table.assign(
        source="MedMNIST v2",
        protocol="trained from scratch",
        image_size=sizes.astype(int),
        model=table["model"].str.replace(r" \(\d+\)", "", regex=True),
        cell=(100 * table["value"]).map("{:.1f}".format),
    )


def _radiodino() -> pd.DataFrame:
    table = published("radiodino").query("dataset.str.endswith('MNIST')")
    return table.assign(
        source="RadioDINO README",
        protocol="not public",
        image_size=224,
        model="RadioDINO " + table["model"],
        cell=table["value_percent"].map("{:.2f}".format),
    )


def _measured(rows: pd.DataFrame, datasets: Iterable[str]) -> pd.DataFrame:
    """Return the measured rows of published datasets, and a line for each without any."""
    published_names = {name.lower(): name for name in datasets}
    names = rows["dataset"].str.extract(_MEDMNIST)[0]
    is_shown = (
        names.isin(list(published_names))
        & (rows["split"] == "test")
        & ~rows["protocol"].str.startswith("fewshot")
    )
    shown = over_seeds(rows[is_shown])
    names_and_sizes = shown["dataset"].str.extract(_MEDMNIST)
    numbers = shown[["value", "ci_low", "ci_high", "sd"]].to_numpy(float)
    lines = shown.assign(
        dataset=names_and_sizes[0].map(published_names),
        image_size=pd.to_numeric(names_and_sizes[1]),
        source="measured here",
        model=shown["backbone"].map(label_of),
        cell=[percent(*values, digits=1) for values in numbers],
    )
    missing = [
        {"dataset": name, "metric": "accuracy", "image_size": 224, "cell": NOT_MEASURED}
        for name in published_names.values()
        if name not in set(lines["dataset"])
    ]
    if not missing:
        return lines
    rest = pd.DataFrame(missing).assign(source="measured here", protocol="", model="")
    return pd.concat([lines, rest])
