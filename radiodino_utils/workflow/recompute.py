"""Tables recomputed from prediction files, without weights, images or a GPU."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import InputError
from ..evaluation.predictions import Prediction
from ..evaluation.published import (
    beside_baselines,
    compare_published,
    field_numbers,
    published_table,
)
from ..evaluation.records import read_predictions, read_scores
from ..evaluation.results import (
    COLUMNS,
    SHOWN,
    classification_rows,
    collect_rows,
    curve_rows,
    paired_table,
    wide_table,
)
from ..evaluation.retrieval import retrieval_rows
from ..evaluation.segmentation.results import is_fraction, segmentation_rows
from ..evaluation.segmentation.tables import segmentation_table
from ..evaluation.segmentation.twins import SCORED, twin_points
from ..evaluation.twins import class_mix
from ..explain.faithfulness import METRICS
from ..explain.tables import against_controls, explanation_rows
from ..radiomics.models import EVEN_ODDS
from ..radiomics.stability import feature_correlations, stability_table
from ..radiomics.table import KEYS

Tables = dict[str, pd.DataFrame]
COLLECTED = ("09_results", "09_classification", "09_published", "09_baselines", "09_field")
_SCORES = [
    *("dataset", "backbone", "probe", "seed", "fold", "id", "class"),
    *("tp", "fp", "fn", "labelled", "group", "unit", "groups_from"),
]


def recomputed_tables(folder: Path, tables: Tables) -> tuple[Tables, list[str]]:
    """Recompute the tables of a results folder from its predictions and rows.

    Args:
        folder: Results folder with `predictions/` and `tables/`.
        tables: The tables in it by name; one whose prediction file is missing is reported.

    Returns:
        Recomputed tables by name, and a sentence for each file that cannot be used.
    """
    expected: Tables = {}
    files = {path.stem for path in (folder / "predictions").glob("*.parquet")}
    faults = [
        f"predictions/{name}.parquet: no table is computed from such a file"
        for name in sorted(files - set(_SOURCES))
    ]
    needed = {
        name for name, (targets, _) in _SOURCES.items() if any(table in tables for table in targets)
    }
    for name in sorted(needed | (files & set(_SOURCES))):
        compute = _SOURCES[name][1]
        try:
            expected |= compute(folder / "predictions" / f"{name}.parquet")
        except InputError as error:
            faults.append(str(error))
    if any(name in tables for name in COLLECTED):
        try:
            expected |= _collected(folder)
        except (InputError, ValueError, TypeError) as error:  # a cell that is no number
            faults.append(f"tables of notebook 09: {str(error).splitlines()[0]}")
    return expected, faults


def recomputable_tables() -> set[str]:
    """Return the names of all tables that can be recomputed."""
    return {table for targets, _ in _SOURCES.values() for table in targets} | set(COLLECTED)


def _collected(folder: Path) -> Tables:
    """Return the tables of notebook 09, computed from the rows of the other notebooks."""
    rows = collect_rows(folder / "tables")
    is_few_shot = rows["protocol"].str.startswith("fewshot-")
    shown = rows[(rows["task"] == "classification") & ~is_few_shot]
    computed = (
        rows,
        wide_table(shown),
        published_table(compare_published(rows)),
        beside_baselines(rows),
        field_numbers(),
    )
    return dict(zip(COLLECTED, computed, strict=True))


def _classified(
    path: Path, *, shown: Iterable[str] | None = None
) -> tuple[pd.DataFrame, list[Prediction], dict[str, Any]]:
    """Return result rows, predictions and facts of a prediction file."""
    predictions, facts = read_predictions(path)
    options = {name: facts[name] for name in ("seed", "resamples")}
    rows = pd.concat(
        [classification_rows(prediction, **options) for prediction in predictions],
        ignore_index=True,
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


def _adapted(path: Path) -> Tables:
    rows, predictions, facts = _classified(path, shown=("accuracy", "auc"))
    paired = paired_table(predictions, metrics=("accuracy", "auc"), seed=facts["seed"])
    return {"10_evaluation": rows, "10_paired": paired}


def _radiomics(path: Path) -> Tables:
    rows, predictions, facts = _classified(path)
    at_even_odds = [part for part in predictions if part.protocol.endswith(EVEN_ODDS)]
    options = {"metrics": ("auc",), "seed": facts["seed"], "every_pair": True}
    paired = paired_table(at_even_odds, **options)
    return {"11_evaluation": rows, "11_paired": paired}


def _stability(path: Path) -> Tables:
    values, facts = read_scores(path, ["measurement", *KEYS])
    correlations = feature_correlations(values)
    families = stability_table(correlations, threshold=facts["threshold"])
    families = families.assign(threshold=facts["threshold"], **facts["about"])
    return {path.stem: correlations, f"{path.stem}_families": families}


def _retrieved(path: Path) -> Tables:
    scores, facts = read_scores(path, ["dataset", "backbone", "weights", "id", "precision_at_1"])
    rows = retrieval_rows(scores, seed=facts["seed"])
    return {"03_retrieval_rows": rows}


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


def _twins(path: Path) -> Tables:
    scores, facts = read_scores(path, SCORED)
    return {path.stem: twin_points(scores, empty=facts["empty"], seed=facts["seed"])}


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


# by prediction file: the tables computed from it, and the function that computes them
_SOURCES: dict[str, tuple[tuple[str, ...], Callable[[Path], Tables]]] = {
    "03_k_curve": (("03_k_curve",), _curve),
    "03_knn_rows": (("03_knn_rows", "03_twins"), _knn),
    "03_retrieval_rows": (("03_retrieval_rows",), _retrieved),
    "05_segmentation_rows": (
        ("05_segmentation_rows", "05_distance_rows", "05_segmentation"),
        _segmented,
    ),
    "05_learning_curve": (("05_learning_curve",), _learning_curve),
    "05_twins": (("05_twins",), _twins),
    "06_faithfulness_rows": (
        ("06_faithfulness_rows", "06_faithfulness", "06_against_controls"),
        _explained,
    ),
    "06_head_diversity": (("06_head_diversity",), _diversity),
    "07_probe_rows": (("07_probe_rows", "07_paired"), _probes),
    "07_fewshot_rows": (("07_fewshot_rows",), partial(_plain, shown=SHOWN)),
    "07_finetune_rows": (("07_finetune_rows",), _plain),
    "08_evaluation": (("08_evaluation",), _plain),
    "10_evaluation": (("10_evaluation", "10_paired"), _adapted),
    "11_evaluation": (("11_evaluation", "11_paired"), _radiomics),
    "11_perturbed": (("11_perturbed", "11_perturbed_families"), _stability),
    "11_readers": (("11_readers", "11_readers_families"), _stability),
}
