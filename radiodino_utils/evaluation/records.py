"""Records: parquet files of what each number of a results folder is computed from.

`radiodino verify` recomputes the numbers from them.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import InputError
from ..core.files import atomic
from .predictions import Prediction

_FACTS = b"radiodino"
_ARRAYS = {
    "labels": pa.list_(pa.int32()),
    "ids": pa.list_(pa.string()),
    "groups": pa.list_(pa.string()),
    "probabilities": pa.list_(pa.float32()),
}
_FIELDS = [field.name for field in fields(Prediction)]
_NEEDED = [name for name in _FIELDS if name != "val_accuracy"]  # which older files lack


def write_predictions(
    predictions: Sequence[Prediction], path: Path, *, seed: int = 0, resamples: int = 1000
) -> Path:
    """Write predictions, one row each, beside the result rows that are computed from them.

    Args:
        predictions: Predictions of any datasets and protocols, in the order of their result rows.
        path: `results/PROFILE/predictions/TABLE.parquet`, where TABLE is the name of the table of
            the rows.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        The path. Probabilities are float32, as `Prediction` rounds them.
    """
    table: dict[str, list[Any]] = {
        name: [getattr(prediction, name) for prediction in predictions] for name in _FIELDS
    }
    table["choice"] = [json.dumps(choice) for choice in table["choice"]]
    table["classes"] = [list(classes) for classes in table["classes"]]
    table["probabilities"] = [
        probabilities.astype(np.float32).ravel() for probabilities in table["probabilities"]
    ]
    columns = {name: pa.array(values, _ARRAYS.get(name)) for name, values in table.items()}
    facts = {"kind": "predictions", "seed": seed, "resamples": resamples}
    return _write(pa.table(columns), path, facts)


def read_predictions(path: Path) -> tuple[list[Prediction], dict[str, Any]]:
    """Read predictions that `write_predictions` wrote.

    Args:
        path: The file.

    Returns:
        The predictions, and how their rows were computed: seed and resamples.

    Raises:
        InputError: If the file is missing, damaged, or not such a file.
    """
    table, facts = _read(path, "predictions", _NEEDED)
    try:
        return [_prediction(row) for row in table.to_pylist()], facts
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _prediction(row: dict[str, Any]) -> Prediction:
    classes, labels = tuple(row["classes"]), np.array(row["labels"], np.int64)
    probabilities = np.array(row["probabilities"], np.float64).reshape(len(labels), len(classes))
    for name in ("ids", "groups"):
        if row[name] is not None and len(row[name]) != len(labels):
            raise ValueError(f"{len(labels)} labels and {len(row[name])} {name}")
    arrays = {"classes": classes, "labels": labels, "probabilities": probabilities}
    return Prediction(**row | arrays | {"choice": json.loads(row["choice"])})


def class_numbers(folder: Path) -> dict[str, int]:
    """Return the number of classes of each dataset, such as for the accuracy of guessing.

    Args:
        folder: `results/PROFILE/predictions`; files without predictions are ignored.
    """
    numbers: dict[str, int] = {}
    for path in sorted(folder.glob("*.parquet")):
        if set(_NEEDED) <= set(pq.read_schema(path).names):
            table = pq.read_table(path, columns=["dataset", "classes"]).to_pylist()
            numbers |= {row["dataset"]: len(row["classes"]) for row in table}
    return numbers


def write_scores(scores: pd.DataFrame, path: Path, **facts: object) -> Path:
    """Write values per image, beside the result rows that are computed from them.

    Args:
        scores: One row for each image and what it was measured on, such as `score_images` returns.
        path: See `write_predictions`.
        **facts: How the rows were computed, JSON values.

    Returns:
        The path.
    """
    table = pa.Table.from_pandas(scores, preserve_index=False)
    return _write(table, path, {"kind": "scores"} | facts)


def read_scores(path: Path, columns: Sequence[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read scores that `write_scores` wrote.

    Args:
        path: The file.
        columns: Columns that the file must have.

    Returns:
        The scores and the facts.

    Raises:
        InputError: If the file is missing, damaged, or not such a file.
    """
    table, facts = _read(path, "scores", columns)
    return table.to_pandas(), facts


def _write(table: pa.Table, path: Path, facts: dict[str, object]) -> Path:
    metadata = (table.schema.metadata or {}) | {_FACTS: json.dumps(facts).encode()}
    with atomic(Path(path)) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            compression_level=15,
            write_page_checksum=True,
            data_page_size=1 << 24,
        )
    return Path(path)


def _read(path: Path, kind: str, columns: Sequence[str]) -> tuple[pa.Table, dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: is missing; run its notebook again.")
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        facts = json.loads((table.schema.metadata or {})[_FACTS])
    except KeyError as error:
        raise InputError(
            f"{path}: was not written by this project; run its notebook again."
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if facts.get("kind") != kind:
        raise InputError(f"{path}: holds no {kind}; run its notebook again.")
    if missing := [name for name in columns if name not in table.column_names]:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; run its notebook again.")
    return table, facts


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is damaged ({str(error).splitlines()[0]}); run its notebook again.")
