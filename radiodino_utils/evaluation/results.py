"""Result rows: one tidy table for every number that is shown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.checks import FORMULA
from ..core.environment import git_revision
from ..core.errors import InputError
from ..core.files import atomic
from ..core.states import current_files
from .labels import DASH, METRIC_LABELS, label_of, percent
from .metrics import classification_metrics, paired_differences
from .predictions import Prediction

COLUMNS = (
    "dataset", "task", "protocol", "backbone", "split", "metric", "value", "ci_low", "ci_high",
    "n", "unit", "units", "groups_from", "seed", "positive", "weights", "engine", "precision",
    "seen_in_pretraining", "git", "choice", "caveat",
)  # fmt: skip
VALIDATED = "val_accuracy"  # a further column, of rows whose protocol was scored on validation
SHOWN = ("accuracy", "f1_macro", "auc")  # metrics in tables for readers
_NUMBERS = ("value", "ci_low", "ci_high")
_PAIRED_COLUMNS = (
    "dataset", "protocol", "backbone", "other", "metric", "difference", "ci_low", "ci_high", "n",
    "unit", "units",
)  # fmt: skip


def classification_rows(
    prediction: Prediction, *, seed: int = 0, resamples: int = 1000
) -> pd.DataFrame:
    """Return the metrics of a prediction as result rows, values as fractions.

    Args:
        prediction: Prediction returned by a protocol.
        seed: Seed of the bootstrap; the column `seed` names that of the training or draw if there
            was one.
        resamples: Number of bootstrap resamples.

    Returns:
        One row per metric, with `COLUMNS`: `n` counts images, `unit` is what the bootstrap draws
        (image, patient, cluster or group), `units` their number, `groups_from` their source. Where
        the protocol was scored on the validation split too, `val_accuracy` is a further column: by
        it protocols can be compared without the test split.
    """
    common = {
        "dataset": prediction.dataset,
        "task": "classification",
        "protocol": prediction.protocol,
        "backbone": prediction.backbone,
        "split": prediction.split,
        "n": prediction.n,
        "unit": prediction.unit,
        "units": prediction.units,
        "groups_from": prediction.groups_from,
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
        groups=prediction.groups,
        resamples=resamples,
        seed=seed,
    )
    table = [
        common
        | {"metric": name, "value": metric.value, "ci_low": metric.low, "ci_high": metric.high}
        for name, metric in metrics.items()
    ]
    rows = pd.DataFrame(table, columns=COLUMNS)
    if prediction.val_accuracy is None:
        return rows
    return rows.assign(**{VALIDATED: prediction.val_accuracy})


def curve_rows(predictions: Iterable[Prediction], *, seed: int = 0) -> pd.DataFrame:
    """Return result rows of predictions that differ in a choice, with a column for each choice.

    Args:
        predictions: Such as those of `knn_curve`, which differ in k.
        seed: Seed of the bootstrap.
    """
    tables = [
        classification_rows(prediction, seed=seed).assign(**prediction.choice)
        for prediction in predictions
    ]
    return pd.concat(tables, ignore_index=True)


def paired_table(
    predictions: Sequence[Prediction],
    *,
    metrics: Sequence[str] = SHOWN,
    seed: int = 0,
    every_pair: bool = False,
) -> pd.DataFrame:
    """Compare the first backbone with each other one on the same images, by a paired bootstrap.

    Args:
        predictions: Predictions of any datasets and protocols; within each the first backbone is
            compared with the others.
        metrics: Metrics that are compared.
        seed: Seed of the bootstrap.
        every_pair: Whether the others are compared with each other too.

    Returns:
        Columns dataset, protocol, backbone, other, metric, difference, ci_low, ci_high (fractions),
        n, unit and units (see `classification_rows`). An interval that contains 0 does not show a
        difference, nor does it show that there is none.
    """
    earlier: dict[tuple[str, str], list[Prediction]] = {}
    table = []
    for other in predictions:
        references = earlier.setdefault((other.dataset, other.protocol), [])
        for reference in references if every_pair else references[:1]:
            table += _paired_rows(reference, other, metrics, seed)
        references.append(other)
    return pd.DataFrame(table, columns=_PAIRED_COLUMNS)


def _paired_rows(
    reference: Prediction, other: Prediction, metrics: Sequence[str], seed: int
) -> list[tuple[object, ...]]:
    differences = paired_differences(
        other.labels,
        reference.probabilities,
        other.probabilities,
        positive=other.positive_label,
        groups=other.groups,
        seed=seed,
    )
    leading = (other.dataset, other.protocol, reference.backbone, other.backbone)
    trailing = (other.n, other.unit, other.units)
    return [
        (*leading, metric, difference.value, difference.low, difference.high, *trailing)
        for metric, difference in differences.items()
        if metric in metrics
    ]


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV with six significant digits, atomically, and return its path.

    A text that a spreadsheet would run as a formula gets an apostrophe in front (OWASP, "CSV
    Injection"); `read_table` removes it again.
    """
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(
        **{name: table[name].astype(object).map(_guarded) for name in texts}
    ).rename(columns=_guarded)
    with atomic(Path(path)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return Path(path)


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that `write_table` wrote; an empty cell is an empty text.

    Args:
        path: The CSV file.
        **options: Options of `pandas.read_csv`.
    """
    table = pd.read_csv(path, keep_default_na=False, **options).rename(columns=_bare)
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{name: table[name].map(_bare) for name in texts})


_RETURN = "\u240d"  # the symbol for a carriage return
# formatted numbers, such as "-1.2 [-3.0, 0.5] mm"
_HARMLESS = re.compile(
    r"[-+]?[\d.]+(e[-+]?\d+)?( \u00b1 [\d.]+)?( \[(no interval|[-\d., e]+)\])?( mm| px)?"
)


def _guarded(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    guarded = f"'{cell}" if FORMULA.match(cell) and not _HARMLESS.fullmatch(cell) else cell
    # pandas does not quote a carriage return, so that it would begin a new line
    return guarded.replace("\r", _RETURN)


def _bare(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace(_RETURN, "\r")
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def collect_rows(folder: Path) -> pd.DataFrame:
    """Read every `*_rows.csv` of a folder into one table of result rows.

    Tables that the runner's last runs of the profile did not write are left out.

    Args:
        folder: Folder of the tables of a profile.

    Raises:
        InputError: If there is none, or one lacks a column.
    """
    tables, current = [], current_files(folder.parent)
    for path in sorted(folder.glob("*_rows.csv")):
        if current is not None and f"{folder.name}/{path.name}" not in current:
            continue
        undefined = {column: [""] for column in (*_NUMBERS, VALIDATED)}  # such as one image's AUC
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
    rows = pd.concat(tables, ignore_index=True)
    columns = [*COLUMNS, *rows.columns.intersection([VALIDATED])]
    return rows[columns].astype(dict.fromkeys(_NUMBERS, float))


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Combine the runs of a protocol that differ only in their seed into one row.

    Args:
        rows: Result rows with `COLUMNS`.

    Returns:
        Rows with two more columns, `sd` (standard deviation over the runs, NaN for a single one)
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
        value=("value", "mean"),
        ci_low=("ci_low", "mean"),
        ci_high=("ci_high", "mean"),
        seed=("seed", "min"),
        git=("git", "first"),
        sd=("value", "std"),
        runs=("value", "size"),
    ).reset_index()
    merged["choice"] = merged["runs"].astype(str) + " runs"
    return pd.concat([single, merged], ignore_index=True)[[*COLUMNS, "sd", "runs"]]


def wide_table(rows: pd.DataFrame, *, metrics: Iterable[str] = SHOWN) -> pd.DataFrame:
    """Format result rows for readers: one line per dataset, protocol and backbone.

    Args:
        rows: Result rows with `COLUMNS`.
        metrics: Metrics that are shown, in this order.

    Returns:
        Columns dataset, positive (where a dataset has two classes), protocol, backbone,
        seen_in_pretraining, choice, n, interval over (such as "30 patients", where not all units
        are images), and one text column per metric in percent, such as
        "48.1 [43.8, 52.5]", or "48.1 ± 0.9 [43.5, 52.2]" for runs of several seeds (see
        `over_seeds`); a dash where a metric is missing or not defined.

    Raises:
        InputError: If two rows would share a cell.
    """
    metrics = list(metrics)
    shown = over_seeds(rows[rows["metric"].isin(metrics)])
    shown["cell"] = [
        percent(*numbers, digits=1) for numbers in shown[[*_NUMBERS, "sd"]].to_numpy(float)
    ]
    shown["backbone"] = shown["backbone"].map(label_of)
    shown[_OVER] = [f"{n:.0f} {unit}s" for n, unit in shown[["units", "unit"]].to_numpy()]
    needed = {"positive": (shown["positive"] != "").any(), _OVER: (shown["unit"] != "image").any()}
    keys = [key for key in _LEADING if needed.get(key, True)]
    repeated = shown.loc[shown.duplicated([*keys, "metric"]), ["dataset", "protocol", "backbone"]]
    if len(repeated):
        raise InputError(
            f"{', '.join(repeated.iloc[0])}: two result rows for the same cell; "
            "choose one split, seed, precision and weights first."
        )
    wide = shown.pivot_table(
        index=keys, columns="metric", values="cell", aggfunc="first", sort=False
    )
    wide = wide.reindex(columns=metrics).astype(object).fillna(DASH)
    return wide.rename(columns=METRIC_LABELS).reset_index().rename_axis(columns=None)


_OVER = "interval over"
_LEADING = (
    "dataset", "positive", "protocol", "backbone", "seen_in_pretraining", "choice", "n", _OVER,
)  # fmt: skip


def notes(rows: pd.DataFrame) -> str:
    """Return the note below a figure of result rows.

    It names positive classes, what pre-training has seen, and the caveats.

    Args:
        rows: Result rows with `COLUMNS`.
    """
    pairs = rows[["dataset", "positive", "backbone", "seen_in_pretraining"]].drop_duplicates()
    positive = [
        f"{pair.dataset}: positive class {pair.positive}"
        for pair in pairs.itertuples()
        if pair.positive
    ]
    seen = [
        f"{pair.backbone} was pre-trained on {pair.seen_in_pretraining} images of {pair.dataset}"
        for pair in pairs.itertuples()
        if pair.seen_in_pretraining.startswith("unlabelled")
    ]
    return "; ".join(
        [*dict.fromkeys(positive), *dict.fromkeys(seen), *sorted(set(rows["caveat"]) - {""})]
    )
