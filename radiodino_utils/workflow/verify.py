"""Verification: recompute every number of a results folder from its prediction files, without weights, images or a GPU."""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import unescape
from pathlib import Path

import pandas as pd

from ..backbones.bundled import evaluation_rows
from ..core.errors import InputError
from ..core.files import REPOSITORY, results_folder
from ..evaluation.published import beside_baselines, compare_published, published_table
from ..evaluation.records import read_predictions, read_scores
from ..evaluation.results import (
    COLUMNS,
    SHOWN,
    classification_rows,
    collect_rows,
    curve_rows,
    over_seeds,
    paired_table,
    read_table,
    wide_table,
)
from ..evaluation.segmentation.metrics import is_fraction, segmentation_rows, segmentation_table
from ..evaluation.twins import class_mix
from ..explain.faithfulness import METRICS
from ..explain.tables import against_controls, explanation_rows
from .report import readme_with_tables

NOT_COVERED = {
    "02_features": "facts about feature files (engine, versions)",
    "04_coordinates": "coordinates of PCA and UMAP",
    "04_variance": "shares of the variance",
    "06_lung_tumour": "maps of one slice",
    "08_monitor": "the curve of a training",
}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_INTERVAL = re.compile(r"(-?\d+\.\d+)(?: %)?(?: ± \d+\.\d+)? \[(-?\d+\.\d+), (-?\d+\.\d+)\]")
_SCORES = [
    "dataset",
    "backbone",
    "probe",
    "seed",
    "fold",
    "id",
    "class",
    "tp",
    "fp",
    "fn",
    "labelled",
]
Tables = dict[str, pd.DataFrame]


def verify_results(folder: Path, *, notebooks: Path | None = None) -> tuple[list[str], list[str]]:
    """Recompute the tables of a results folder and compare them with what stands there.

    Args:
        folder: With `tables/` and `predictions/`.
        notebooks: A folder of notebooks; of those that were executed for this profile every value
            with an interval must be one of the tables'.

    Returns:
        A sentence for each thing that does not match, and one for each table that cannot be
        recomputed from predictions.

    Raises:
        InputError: If the folder holds no tables.
    """
    paths = {path.stem: path for path in sorted((folder / "tables").glob("*.csv"))}
    if not paths:
        raise InputError(f"{folder / 'tables'}: holds no tables to verify; run the profile first.")
    tables = {name: read_table(path, dtype=str) for name, path in paths.items()}
    expected, faults = {}, []
    wanted = {
        name for name, (makes, _) in _SOURCES.items() if any(table in tables for table in makes)
    }
    there = {path.stem for path in (folder / "predictions").glob("*.parquet")}
    faults += [
        f"predictions/{name}.parquet: no table is computed from such a file"
        for name in sorted(there - set(_SOURCES))
    ]
    for name in sorted(wanted | (there & set(_SOURCES))):
        try:
            expected |= _SOURCES[name][1](folder / "predictions" / f"{name}.parquet")
        except InputError as error:
            faults.append(str(error))
    expected |= _collected(folder, tables, faults)
    known = (
        {table for makes, _ in _SOURCES.values() for table in makes}
        | set(_COLLECTED)
        | set(NOT_COVERED)
    )
    for name in sorted(set(tables) | set(expected)):
        if name not in known:
            faults.append(f"tables/{name}.csv: nothing says how to recompute it")
        elif name in expected and name not in tables:
            faults.append(f"tables/{name}.csv: is missing")
        elif name in expected:
            faults += [
                f"tables/{name}.csv: {fault}"
                for fault in _differences(_as_text(expected[name]), tables[name])
            ]
    card = _as_text(evaluation_rows())
    faults += contradictions(tables | {"the model card": card})
    if notebooks:
        faults += _notebook_faults(
            notebooks, folder.name, [*expected.values(), *tables.values(), card]
        )
    return faults, [
        f"tables/{name}.csv ({NOT_COVERED[name]})"
        for name in sorted(set(tables) & set(NOT_COVERED))
    ]


def contradictions(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Find protocols that have two numbers.

    Args:
        tables: By name tables of text cells; those that are no result rows are ignored.

    Returns:
        A sentence for each dataset, protocol, backbone, split, metric, seed (and number of labelled
        images) with two values.
    """
    keys = ["dataset", "protocol", "backbone", "split", "metric", "seed", "labelled"]
    parts = []
    for name, table in tables.items():
        if set(keys[:6]) | {"value"} <= set(table):
            part = table.assign(table=name, labelled=table.get("labelled", ""))
            if "k" in part:
                part["protocol"] += ", " + part["choice"]
            parts.append(part[[*keys, "value", "table"]])
    if not parts:
        return []
    rows = pd.concat(parts)
    faults = []
    for key, part in rows[rows.duplicated(keys, keep=False)].groupby(keys, sort=False):
        if any(_gap(one, part["value"].iloc[0]) for one in part["value"]):
            values = ", ".join(
                f"{row.value} ({row.table})" for row in part.drop_duplicates("value").itertuples()
            )
            faults.append(
                f"two numbers for one protocol: {', '.join(one for one in key if one)}: {values}"
            )
    return faults


def _classified(
    path: Path, *, shown: Iterable[str] | None = None
) -> tuple[pd.DataFrame, list, dict]:
    predictions, facts = read_predictions(path)
    options = {name: facts[name] for name in ("seed", "resamples")}
    rows = pd.concat(
        [classification_rows(one, **options) for one in predictions], ignore_index=True
    )
    return rows[rows["metric"].isin(shown)] if shown else rows, predictions, facts


def _plain(path: Path, *, shown: Iterable[str] | None = None) -> Tables:
    return {path.stem: _classified(path, shown=shown)[0]}


def _knn(path: Path) -> Tables:
    rows, predictions, _ = _classified(path)
    return {"03_knn_rows": rows, "03_twins": class_mix(predictions)}


def _curve(path: Path) -> Tables:
    predictions, facts = read_predictions(path)
    return {"03_k_curve": curve_rows(predictions, seed=facts["seed"])}


def _probes(path: Path) -> Tables:
    rows, predictions, facts = _classified(path)
    return {"07_probe_rows": rows, "07_paired": paired_table(predictions, seed=facts["seed"])}


def _segmented(path: Path) -> Tables:
    scores, facts = read_scores(path, _SCORES)
    rows = segmentation_rows(scores, empty=facts["empty"], seed=facts["seed"])
    fraction = is_fraction(rows)
    return {
        "05_segmentation_rows": rows.loc[fraction, list(COLUMNS)],
        "05_distance_rows": rows.loc[~fraction, list(COLUMNS)],
        "05_segmentation": segmentation_table(rows, facts["splits"]),
    }


def _learning_curve(path: Path) -> Tables:
    scores, facts = read_scores(path, _SCORES)
    rows = segmentation_rows(scores, empty=facts["empty"], seed=facts["seed"])
    return {"05_learning_curve": rows[rows["metric"].isin(["dice", "iou"])]}


def _explained(path: Path) -> Tables:
    scores, facts = read_scores(
        path, ["backbone", "weights", "seen_in_pretraining", "map", "image", *METRICS]
    )
    options = {name: facts[name] for name in ("dataset", "split", "seed", "caveat")}
    rows = explanation_rows(scores, **options)
    return {
        "06_faithfulness_rows": rows,
        "06_faithfulness": wide_table(rows, metrics=tuple(METRICS)),
        "06_against_controls": against_controls(scores, seed=facts["seed"]),
    }


def _diversity(path: Path) -> Tables:
    scores, _ = read_scores(path, ["backbone", "block", "divergence_bits"])
    groups = scores.groupby(["backbone", "block"], sort=False)["divergence_bits"]
    return {"06_head_diversity": groups.agg(["mean", "std", "count"]).reset_index()}


# by prediction file the tables that are computed from it, and how
_SOURCES: dict[str, tuple[tuple[str, ...], Callable[[Path], Tables]]] = {
    "03_k_curve": (("03_k_curve",), _curve),
    "03_knn_rows": (("03_knn_rows", "03_twins"), _knn),
    "05_segmentation_rows": (
        ("05_segmentation_rows", "05_distance_rows", "05_segmentation"),
        _segmented,
    ),
    "05_learning_curve": (("05_learning_curve",), _learning_curve),
    "06_faithfulness_rows": (
        ("06_faithfulness_rows", "06_faithfulness", "06_against_controls"),
        _explained,
    ),
    "06_head_diversity": (("06_head_diversity",), _diversity),
    "07_probe_rows": (("07_probe_rows", "07_paired"), _probes),
    "07_fewshot_rows": (("07_fewshot_rows",), partial(_plain, shown=SHOWN)),
    "07_finetune_rows": (("07_finetune_rows",), _plain),
    "08_evaluation": (("08_evaluation",), _plain),
}
_COLLECTED = ("09_results", "09_classification", "09_published", "09_baselines")


def _collected(folder: Path, tables: Tables, faults: list[str]) -> Tables:
    """The tables of notebook 09, from the rows that stand in the folder."""
    if not any(name in tables for name in _COLLECTED):
        return {}
    try:
        rows = collect_rows(folder / "tables")
        people = rows[
            (rows["task"] == "classification") & ~rows["protocol"].str.startswith("fewshot-")
        ]
        made = (
            rows,
            wide_table(people),
            published_table(compare_published(rows)),
            beside_baselines(rows),
        )
        return dict(zip(_COLLECTED, made, strict=True))
    except (InputError, ValueError, TypeError) as error:  # a cell that is no number
        faults.append(f"tables of notebook 09: {str(error).splitlines()[0]}")
        return {}


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The cells as `write_table` writes them."""
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)


def _differences(made: pd.DataFrame, written: pd.DataFrame) -> list[str]:
    if list(made) != list(written):
        return [f"has the columns {', '.join(written)}; recomputed are {', '.join(made)}"]
    if len(made) != len(written):
        return [f"has {len(written)} rows; recomputed are {len(made)}"]
    faults = []
    for column in [name for name in made if name != "git"]:  # which commit made it
        bad = [
            row
            for row, pair in enumerate(zip(made[column], written[column], strict=True))
            if _gap(*pair)
        ]
        if bad:
            row, more = bad[0], f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            faults.append(
                f"{column}, row {row + 1}{more}: '{written[column][row]}' stands there, '{made[column][row]}' is recomputed"
            )
    return faults


def _gap(one: str, other: str) -> bool:
    """Whether two texts differ by more than the sixth significant digit of a number in them."""
    if one == other:
        return False
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return True
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return any(abs(float(a) - float(b)) > max(1e-9, 1.01 * _last_digit(float(b))) for a, b in pairs)


def _last_digit(value: float) -> float:
    return 10.0 ** (math.floor(math.log10(abs(value))) - 5) if value else 0.0


def _notebook_faults(folder: Path, profile: str, tables: Iterable[pd.DataFrame]) -> list[str]:
    known = set()
    for table in tables:
        if {"value", "ci_low", "ci_high"} <= set(table):
            rows = table.assign(
                **{
                    name: pd.to_numeric(table[name], errors="coerce")
                    for name in ("value", "ci_low", "ci_high")
                }
            )
            merged = (
                over_seeds(rows)[["value", "ci_low", "ci_high"]]
                if set(COLUMNS) <= set(rows)
                else rows
            )
            for part in (rows, merged):
                for numbers in part[["value", "ci_low", "ci_high"]].itertuples(index=False):
                    known |= {
                        tuple(f"{scale * one:.{digits}f}" for one in numbers)
                        for scale in (1, 100)
                        for digits in (1, 2, 3)
                    }
        for text in (
            cell for column in table.select_dtypes(["object", "str"]) for cell in table[column]
        ):
            known |= set(_INTERVAL.findall(str(text)))
    faults = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = [
            cell
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
        ]
        if not any(f'profile = "{profile}"' in "".join(cell["source"]) for cell in cells):
            continue
        for position, cell in enumerate(cells, 1):
            shown = dict.fromkeys(
                match for text in map(_shown, cell["outputs"]) for match in _INTERVAL.finditer(text)
            )
            wrong = dict.fromkeys(match[0] for match in shown if match.groups() not in known)
            faults += [
                f"{path.name}, code cell {position}: '{one}' is no value of the tables"
                for one in wrong
            ]
    return faults


def _shown(output: dict) -> str:
    data = output.get("data", {})
    text = "".join(data.get("text/html", data.get("text/plain", output.get("text", ""))))
    return unescape(re.sub(r"<[^>]+>", " ", text))


def verify_profiles(profiles: Sequence[str] = ()) -> list[str]:
    """Recompute the numbers of committed results, and print what is covered.

    Args:
        profiles: Names of profiles; all by default.

    Returns:
        A sentence for each difference.

    Raises:
        InputError: If a results folder holds no tables.
    """
    if not profiles:
        folders = (REPOSITORY / "results").iterdir()
        profiles = sorted(path.name for path in folders if path.is_dir())
    faults = []
    for profile in profiles:
        folder = results_folder(profile)
        differences, not_covered = verify_results(folder, notebooks=REPOSITORY / "notebooks")
        covered = f"not covered: {', '.join(not_covered) or 'nothing'}; all figures"
        print(f"{folder}: {len(differences)} differences; {covered}")
        faults += [f"{profile}: {difference}" for difference in differences]
    readme = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    if readme_with_tables(readme, REPOSITORY) != readme:
        faults.append(
            "results/README.md: its tables are not those of the results; "
            "run radiodino report --readme"
        )
    print(
        "not covered: benchmarks (times and memory), numbers in prose, "
        "numbers of notebooks without an interval"
    )
    return faults
