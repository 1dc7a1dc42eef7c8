"""Published numbers beside measured ones, by rules that are stated beforehand."""

from collections.abc import Mapping
from importlib import resources

import pandas as pd

from .results import label_of, over_seeds, percent

RULE = (
    "A verdict is given only where a released RadioDINO backbone of the published size ran in fp32 on the very test split and "
    "with the very protocol that the published number states; else the two are not comparable, and the reason is said. Then the "
    "number counts as reproduced when it lies inside the measured 95 % interval or, for more than 5000 test images, within one "
    "point of the measured value; inside an interval wider than +-5 points it is only compatible; else it differs."
)
LARGE, POINT, WIDE = 5000, 0.01, 0.05
NOT_MEASURED = "not measured"
SOURCES = {
    "radiodino": "README of RadioDINO (Zedda et al., 10.1016/j.compbiomed.2025.110583), CC BY 4.0",
    "medmnist_v2": "MedMNIST v2 (Yang et al., Sci. Data 10:41, 10.1038/s41597-022-01721-8), table 3; 224: enlarged from 28",
    "medmnist_plus": "MedMNIST+ benchmark (Doerrich et al., Sci. Rep. 15:7669, 10.1038/s41598-025-92156-9)",
}
# Test split (registered name of a dataset) and protocol of each published dataset and task as the
# README states them; "" where it does not: of MedMNIST the official split and no protocol, of
# RadImageNet k = 1 and no split, of BUSI neither.
STATED = {
    ("RadImageNet", "knn_k1"): ("", "knn1"),
    ("BUSI", "classification"): ("", ""),
    ("BUSI", "segmentation"): ("", ""),
}
_PLACES = {
    "BUSI": ("busi-folds", "busi-lesions", "busi-breastmnist"),
    "RadImageNet": ("radimagenet",),
}


def published(name: str) -> pd.DataFrame:
    """A table of published numbers: "radiodino", "medmnist_v2" or "medmnist_plus"; `SOURCES` says where from."""
    with resources.as_file(resources.files(__package__) / "tables" / f"{name}.csv") as path:
        return pd.read_csv(path)


def places(dataset: str) -> tuple[str, ...]:
    """The registered names of the sets that a published name stands for; BUSI's published split is not known."""
    return _PLACES.get(dataset, (f"{dataset.lower()}-224",))


def compare_published(
    rows: pd.DataFrame, *, stated: Mapping[tuple[str, str], tuple[str, str]] = STATED
) -> pd.DataFrame:
    """Sets every number of RadioDINO's README beside the measured ones; see `RULE`.

    Args:
        rows: With `rows.COLUMNS`; of several seeds the mean counts.
        stated: Test split and protocol by published dataset and task; see `STATED`. MedMNIST's are
            on the official test split of the 224-pixel set, protocol not public, unless they are
            named.

    Returns:
        A row for each published number and protocol that measured it, one where none did: dataset,
            task, metric, model,
        published, value, sd, ci_low, ci_high, n, difference (fractions; NaN where not measured),
        verdict, backbone, protocol, measured_on. RadImageNet's published task "knn_k1" is met by
        the protocol knn1 alone.
    """
    released = over_seeds(
        rows[rows["backbone"].str.fullmatch(r"radiodino-[tsb]\d+") & (rows["split"] == "test")]
    )
    released = released[~released["protocol"].str.startswith("fewshot")]
    table = []
    for one in published("radiodino").itertuples():
        task, protocol = ("classification", "knn1") if one.task == "knn_k1" else (one.task, None)
        of_size = released[released["backbone"].str[len("radiodino-")] == one.model[0]]
        same = of_size[
            of_size["dataset"].isin(places(one.dataset))
            & (of_size["metric"] == one.metric)
            & (of_size["task"] == task)
        ]
        same = same[same["protocol"] == protocol] if protocol else same
        line = {"dataset": one.dataset, "task": one.task, "metric": one.metric, "model": one.model}
        line |= {"published": one.value_percent / 100}
        measured = [
            line
            | {
                name: getattr(r, name)
                for name in ("value", "sd", "ci_low", "ci_high", "n", "backbone", "protocol")
            }
            | {"measured_on": r.dataset, "difference": r.value - line["published"]}
            | {
                "verdict": _verdict(
                    line["published"],
                    r,
                    *stated.get((one.dataset, one.task), (places(one.dataset)[0], "")),
                )
            }
            for r in same.itertuples()
        ]
        table += measured or [
            line | {"verdict": f"{NOT_MEASURED}: {_reason(one.model, one.dataset, of_size)}"}
        ]
    numbers = ["published", "value", "sd", "ci_low", "ci_high", "n", "difference"]
    words = ["verdict", "backbone", "protocol", "measured_on"]
    return pd.DataFrame(table, columns=["dataset", "task", "metric", "model", *numbers, *words])


def _verdict(value: float, measured: object, split: str, protocol: str) -> str:
    if not split or not protocol:
        unknown = " and ".join(
            what for what, name in (("split", split), ("protocol", protocol)) if not name
        )
        return f"not comparable: the published {unknown} is not public"
    for what, own, theirs in (
        ("on", measured.dataset, split), ("by", measured.protocol, protocol), ("in", measured.precision, "fp32")
    ):  # fmt: skip
        if own != theirs:
            return f"not comparable: measured {what} {own}, not {what} {theirs}"
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
    """Lays `compare_published` out for people: percent with intervals, the difference in points."""
    measured = compared["value"].notna()
    cells = [
        percent(*one, digits=2)
        for one in compared[["value", "ci_low", "ci_high", "sd"]].to_numpy(float)
    ]
    return pd.DataFrame(
        {
            **compared[["dataset", "task", "metric", "model"]],
            "published %": [f"{100 * one:.2f}" for one in compared["published"]],
            "measured %": [
                cell if is_there else NOT_MEASURED
                for cell, is_there in zip(cells, measured, strict=True)
            ],
            "difference": [
                f"{100 * one:+.2f}" if one == one else "" for one in compared["difference"]
            ],
            "verdict": compared["verdict"],
            "n": [f"{one:.0f}" if one == one else "" for one in compared["n"]],
            "backbone": compared["backbone"].fillna(""),
            "protocol": compared["protocol"].fillna(""),
            "measured on": compared["measured_on"].fillna(""),
        }
    )


def beside_baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Sets the measured MedMNIST rows beside what MedMNIST v2, the MedMNIST+ benchmark and
    RadioDINO publish of the sets.

    Args:
        rows: With `rows.COLUMNS`.

    Returns:
        A line for each set, source, protocol and model, with accuracy % and AUC % by image size;
        measured ones have intervals, those of MedMNIST+ standard deviations over runs. A set that
        nothing was measured on says so. Compare lines of one protocol only.
    """
    plus = published("medmnist_plus").assign(source="MedMNIST+")
    plus["metric"] = plus["metric"].replace("acc", "accuracy")
    plus["cell"] = plus["mean"].map("{:.2f}".format) + plus["sd"].map(
        lambda one: "" if one != one else f" ± {one:.2f}"
    )
    v2 = published("medmnist_v2").rename(columns={"acc": "accuracy", "method": "model"})
    v2 = v2.melt(["model", "dataset"], ["accuracy", "auc"], "metric").assign(
        source="MedMNIST v2", protocol="trained from scratch"
    )
    v2["image_size"] = v2["model"].str.extract(r"\((\d+)\)", expand=False).fillna("28").astype(int)
    v2["model"], v2["cell"] = (
        v2["model"].str.replace(r" \(\d+\)", "", regex=True),
        (100 * v2["value"]).map("{:.1f}".format),
    )
    own = published("radiodino").query("dataset.str.endswith('MNIST')")
    own = own.assign(
        source="RadioDINO README",
        protocol="not public",
        image_size=224,
        cell=own["value_percent"].map("{:.2f}".format),
    )
    own["model"] = "RadioDINO " + own["model"]
    tables = pd.concat([_measured(rows, plus["dataset"].unique()), own, plus, v2])
    tables = tables[tables["metric"].isin(["accuracy", "auc"])]
    tables["column"] = (
        tables["metric"].map({"accuracy": "accuracy %", "auc": "AUC %"})
        + ", "
        + tables["image_size"].astype(str)
    )
    keys = ["dataset", "source", "protocol", "model"]
    wide = tables.pivot_table(
        index=keys, columns="column", values="cell", aggfunc="first", sort=False
    )
    columns = [
        f"{metric} %, {size}" for metric in ("accuracy", "AUC") for size in (28, 64, 128, 224)
    ]
    wide = wide.reindex(columns=columns).fillna("").reset_index().rename_axis(columns=None)
    return wide.sort_values("dataset", kind="stable", ignore_index=True)


def _measured(rows: pd.DataFrame, sets: list[str]) -> pd.DataFrame:
    names = {one.lower(): one for one in sets}
    parts = rows["dataset"].str.extract(r"^(\w+mnist)-(\d+)$")
    is_shown = (
        parts[0].isin(list(names))
        & (rows["split"] == "test")
        & ~rows["protocol"].str.startswith("fewshot")
    )
    shown = over_seeds(rows[is_shown])
    parts = shown["dataset"].str.extract(r"^(\w+mnist)-(\d+)$")
    numbers = shown[["value", "ci_low", "ci_high", "sd"]].to_numpy(float)
    lines = shown.assign(
        dataset=parts[0].map(names),
        image_size=pd.to_numeric(parts[1]),
        source="measured here",
        model=shown["backbone"].map(label_of),
        cell=[percent(*one, digits=1) for one in numbers],
    )
    rest = [
        {"dataset": one, "metric": "accuracy", "image_size": 224, "cell": NOT_MEASURED}
        for one in sets
        if one not in set(lines["dataset"])
    ]
    return (
        pd.concat([lines, pd.DataFrame(rest).assign(source="measured here", protocol="", model="")])
        if rest
        else lines
    )
