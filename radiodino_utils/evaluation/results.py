"""Result rows: one tidy table for every number that is shown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ..core.environment import git_revision
from ..core.errors import InputError
from ..core.files import atomic
from ..core.states import current_files
from .metrics import classification_metrics, paired_differences
from .predictions import Prediction

COLUMNS = (
    "dataset", "task", "protocol", "backbone", "split", "metric", "value", "ci_low", "ci_high", "n", "seed", "positive",
    "weights", "engine", "precision", "seen_in_pretraining", "git", "choice", "caveat",
)  # fmt: skip
SHOWN = ("accuracy", "f1_macro", "auc")  # of the metrics those that tables for people hold
_NUMBERS = ("value", "ci_low", "ci_high")


def classification_rows(
    prediction: Prediction, *, seed: int = 0, resamples: int = 1000
) -> pd.DataFrame:
    """The metrics of a prediction as result rows, values as fractions.

    Args:
        prediction: What a task gives.
        seed: Of the bootstrap; the column `seed` names that of the training or draw where there was
            one.
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
        "seed": seed if prediction.seed is None else prediction.seed,
        "positive": prediction.positive,
        "weights": prediction.weights,
        "engine": prediction.engine,
        "precision": prediction.precision,
        "seen_in_pretraining": prediction.seen_in_pretraining,
        "git": git_revision(),
        "choice": prediction.chosen,
        "caveat": prediction.caveat,
    }
    metrics = classification_metrics(
        prediction.labels,
        prediction.probabilities,
        positive=prediction.positive_label,
        resamples=resamples,
        seed=seed,
    )
    table = [
        common | {"metric": name, "value": one.value, "ci_low": one.low, "ci_high": one.high}
        for name, one in metrics.items()
    ]
    return pd.DataFrame(table, columns=COLUMNS)


def curve_rows(predictions: Iterable[Prediction], *, seed: int = 0) -> pd.DataFrame:
    """The result rows of predictions that differ in what was chosen, such as k, with a column for each choice."""
    return pd.concat(
        [classification_rows(one, seed=seed).assign(**one.choice) for one in predictions],
        ignore_index=True,
    )


def paired_table(
    predictions: Sequence[Prediction], *, metrics: Sequence[str] = SHOWN, seed: int = 0
) -> pd.DataFrame:
    """How much better the first backbone is than each other one on the same images, by a paired
    bootstrap.

    Args:
        predictions: Of any sets and protocols; within each the first backbone is compared with the
            others.
        metrics: Which ones.
        seed: Of the bootstrap.

    Returns:
        Columns dataset, protocol, backbone, other, metric, difference, ci_low, ci_high (fractions)
        and n. An interval that holds 0 does not show a difference, nor does it show that there is
        none.
    """
    first, table = {}, []
    for one in predictions:
        best = first.setdefault((one.dataset, one.protocol), one)
        if one is best:
            continue
        gaps = paired_differences(
            one.labels,
            best.probabilities,
            one.probabilities,
            positive=one.positive_label,
            seed=seed,
        )
        line = {
            "dataset": one.dataset,
            "protocol": one.protocol,
            "backbone": best.backbone,
            "other": one.backbone,
        }
        table += [
            line
            | {
                "metric": name,
                "difference": gap.value,
                "ci_low": gap.low,
                "ci_high": gap.high,
                "n": len(one.labels),
            }
            for name, gap in gaps.items()
            if name in metrics
        ]
    return pd.DataFrame(
        table,
        columns=[
            "dataset",
            "protocol",
            "backbone",
            "other",
            "metric",
            "difference",
            "ci_low",
            "ci_high",
            "n",
        ],
    )


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes a table as CSV with six significant digits, whole or not at all.

    A text that a spreadsheet would run as a formula gets an apostrophe in front (OWASP, "CSV
    Injection"); `read_table` takes it away again.
    """
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(
        **{name: table[name].astype(object).map(_guarded) for name in texts}
    ).rename(columns=_guarded)
    with atomic(Path(path)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return Path(path)


def read_table(path: Path, **options: object) -> pd.DataFrame:
    """Reads a table as `write_table` wrote it; an empty cell is an empty text.

    Args:
        path: The CSV file.
        **options: Of `pandas.read_csv`.
    """
    table = pd.read_csv(path, keep_default_na=False, **options).rename(columns=_bare)
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{name: table[name].map(_bare) for name in texts})


_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_RETURN = "\u240d"  # the sign for a carriage return
_HARMLESS = re.compile(
    r"[-+]?[\d.]+(e[-+]?\d+)?( \u00b1 [\d.]+)?( \[(no interval|[-\d., e]+)\])?( mm| px)?"
)  # numbers for people


def _guarded(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    guarded = f"'{cell}" if _FORMULA.match(cell) and not _HARMLESS.fullmatch(cell) else cell
    return guarded.replace(
        "\r", _RETURN
    )  # pandas does not quote it, so that it would begin a new line


def _bare(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace(_RETURN, "\r")
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def collect_rows(folder: Path) -> pd.DataFrame:
    """Reads every `*_rows.csv` of a folder into one table of result rows.

    Where the runner made the tables, those that its last runs of the profile did not write are left
    out.

    Raises:
        InputError: If there is none, or one lacks a column.
    """
    tables, current = [], current_files(folder.parent)
    for path in sorted(folder.glob("*_rows.csv")):
        if current is not None and f"{folder.name}/{path.name}" not in current:
            continue
        undefined = {column: [""] for column in _NUMBERS}  # such as the AUC of one image
        table = read_table(
            path, na_values=undefined, dtype={"weights": str, "git": str, "positive": str}
        )
        if missing := [column for column in COLUMNS if column not in table]:
            raise InputError(
                f"{path}: the columns {', '.join(missing)} are missing; run its notebook again."
            )
        tables.append(table)
    if not tables:
        raise InputError(
            f"{folder}: holds no result rows (*_rows.csv); run the task notebooks first."
        )
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)].astype(
        dict.fromkeys(_NUMBERS, float)
    )


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Puts the runs of a protocol that differ in their seed into one row.

    Args:
        rows: With `COLUMNS`.

    Returns:
        Rows with two columns more, `sd` (standard deviation over the runs, NaN for a single one)
        and `runs`. Of several runs `value`, `ci_low` and `ci_high` are means, and `choice` says how
        many they are.
    """
    keys = [name for name in COLUMNS if name not in (*_NUMBERS, "seed", "git", "choice")]
    several = rows["seed"].groupby([rows[key] for key in keys], sort=False).transform("nunique") > 1
    single = rows[~several].assign(sd=float("nan"), runs=1)
    if not several.any():
        return single
    groups = rows[several].groupby(keys, sort=False, dropna=False)
    merged = groups.agg(
        value=("value", "mean"), ci_low=("ci_low", "mean"), ci_high=("ci_high", "mean"), seed=("seed", "min"),
        git=("git", "first"), sd=("value", "std"), runs=("value", "size"),
    ).reset_index()  # fmt: skip
    merged["choice"] = merged["runs"].astype(str) + " runs"
    return pd.concat([single, merged], ignore_index=True)[[*COLUMNS, "sd", "runs"]]


def wide_table(rows: pd.DataFrame, *, metrics: Iterable[str] = SHOWN) -> pd.DataFrame:
    """Lays result rows out for people: one line a dataset, protocol and backbone, metrics in
    percent with intervals.

    Args:
        rows: With `COLUMNS`.
        metrics: Which ones, in this order.

    Returns:
        Columns dataset, positive (where a dataset has two classes), protocol, backbone,
        seen_in_pretraining, choice, n, and one text column a metric such as "48.1 [43.8, 52.5]", or
        "48.1 ± 0.9 [43.5, 52.2]" for runs of several seeds (see `over_seeds`); a metric that is not
        there or not defined is a dash.

    Raises:
        InputError: If two rows would have to share a cell.
    """
    metrics = list(metrics)
    shown = over_seeds(rows[rows["metric"].isin(metrics)])
    shown["cell"] = [
        percent(*numbers, digits=1) for numbers in shown[[*_NUMBERS, "sd"]].to_numpy(float)
    ]
    shown["backbone"] = shown["backbone"].map(label_of)
    keys = [key for key in _LEADING if key != "positive" or (shown["positive"] != "").any()]
    if twice := list(
        shown.loc[
            shown.duplicated([*keys, "metric"]), ["dataset", "protocol", "backbone"]
        ].itertuples(index=False)
    ):
        raise InputError(
            f"{', '.join(twice[0])}: two result rows for the same cell; choose one split, seed, precision and weights first."
        )
    wide = shown.pivot_table(
        index=keys, columns="metric", values="cell", aggfunc="first", sort=False
    )
    wide = wide.reindex(columns=metrics).astype(object).fillna(_DASH)
    return wide.rename(columns=METRIC_LABELS).reset_index().rename_axis(columns=None)


_DASH = "–"
_LEADING = ("dataset", "positive", "protocol", "backbone", "seen_in_pretraining", "choice", "n")


def percent(value: float, low: float, high: float, sd: float = float("nan"), *, digits: int) -> str:
    """Fractions as percent: "48.1 [43.8, 52.5]", with "± 0.9" behind the value where there is a
    standard deviation.

    One image has no interval: "48.1 [no interval]".
    """
    if value != value:  # NaN: not defined
        return _DASH
    spread = "" if sd != sd else f" ± {100 * sd:.{digits}f}"
    interval = "no interval" if low != low else f"{100 * low:.{digits}f}, {100 * high:.{digits}f}"
    return f"{100 * value:.{digits}f}{spread} [{interval}]"


METRIC_LABELS = {
    "accuracy": "accuracy %",
    "balanced_accuracy": "balanced acc. %",
    "f1_macro": "macro-F1 %",
    "auc": "AUC %",
    "sensitivity": "sensitivity %",
    "specificity": "specificity %",
    "ece": "calibration error %",
    "road": "ROAD %",
    "mass_share": "mass on the mask %",
    "pointing": "pointing game %",
}


def notes(rows: pd.DataFrame) -> str:
    """What a figure of result rows says below its title: positive classes, what pre-training saw, and the caveats."""
    pairs = rows[["dataset", "positive", "backbone", "seen_in_pretraining"]].drop_duplicates()
    positive = [
        f"{one.dataset}: positive class {one.positive}"
        for one in pairs.itertuples()
        if one.positive
    ]
    seen = [
        f"{one.backbone} was pre-trained on {one.seen_in_pretraining} images of {one.dataset}"
        for one in pairs.itertuples()
        if one.seen_in_pretraining.startswith("unlabelled")
    ]
    return "; ".join(
        [*dict.fromkeys(positive), *dict.fromkeys(seen), *sorted(set(rows["caveat"]) - {""})]
    )


def label_of(backbone: str) -> str:
    """The name of a backbone for tables and figures, with a word where it is only a floor or none at all."""
    words = {"random": "random weights", "pixels": "no backbone", "none": "from scratch"}
    word = words.get(backbone.partition("-")[0])
    return f"{backbone} ({word})" if word else backbone
