"""Records: small parquet files of what each number of a results folder is computed from, see `verify`."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

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
    "probabilities": pa.list_(pa.float32()),
}
_FIELDS = [field.name for field in fields(Prediction)]


def write_predictions(
    predictions: Sequence[Prediction], path: Path, *, seed: int = 0, resamples: int = 1000
) -> Path:
    """Write predictions, one row each, beside the result rows that are computed from them.

    Args:
        predictions: Of any datasets and protocols, in the order of their result rows.
        path: `results/PROFILE/predictions/TABLE.parquet`, where TABLE is the name of the table of
            the rows.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        The path. Probabilities are float32, as `Prediction` rounds them.
    """
    table = {name: [getattr(one, name) for one in predictions] for name in _FIELDS}
    table["choice"] = [json.dumps(one.choice) for one in predictions]
    table["classes"] = [list(one.classes) for one in predictions]
    table["probabilities"] = [one.probabilities.astype(np.float32).ravel() for one in predictions]
    columns = {name: pa.array(values, _ARRAYS.get(name)) for name, values in table.items()}
    return _write(
        pa.table(columns), path, {"kind": "predictions", "seed": seed, "resamples": resamples}
    )


def read_predictions(path: Path) -> tuple[list[Prediction], dict[str, object]]:
    """Read what `write_predictions` wrote.

    Returns:
        The predictions, and how their rows were made: seed and resamples.

    Raises:
        InputError: If the file is missing, damaged, or not such a file.
    """
    table, facts = _read(path, "predictions", _FIELDS)
    found = []
    try:
        for row in table.to_pylist():
            classes, labels = tuple(row["classes"]), np.array(row["labels"], np.int64)
            probabilities = np.array(row["probabilities"], np.float64).reshape(
                len(labels), len(classes)
            )
            arrays = {"classes": classes, "labels": labels, "probabilities": probabilities}
            if len(row["ids"]) != len(labels):
                raise InputError(
                    f"{path}: has {len(labels)} labels and {len(row['ids'])} ids; run its notebook again."
                )
            found.append(Prediction(**row | arrays | {"choice": json.loads(row["choice"])}))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: is damaged ({str(error).splitlines()[0]}); run its notebook again."
        ) from error
    return found, facts


def write_scores(scores: pd.DataFrame, path: Path, **facts: object) -> Path:
    """Write values by image, such as those of `score_images`, beside the result rows that are
    computed from them.

    Args:
        scores: One row for each image and whatever it was measured on.
        path: See `write_predictions`.
        **facts: How the rows were made, JSON values.
    """
    return _write(
        pa.Table.from_pandas(scores, preserve_index=False), path, {"kind": "scores"} | facts
    )


def read_scores(path: Path, columns: Sequence[str]) -> tuple[pd.DataFrame, dict[str, object]]:
    """Read what `write_scores` wrote.

    Args:
        path: The file.
        columns: Which ones it must have.

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
        options = {
            "compression": "zstd",
            "compression_level": 15,
            "write_page_checksum": True,
            "data_page_size": 1 << 24,
        }
        pq.write_table(table.replace_schema_metadata(metadata), temporary, **options)
    return Path(path)


def _read(path: Path, kind: str, columns: Sequence[str]) -> tuple[pa.Table, dict[str, object]]:
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
        raise InputError(
            f"{path}: is damaged ({str(error).splitlines()[0]}); run its notebook again."
        ) from error
    if facts.get("kind") != kind or (
        missing := [name for name in columns if name not in table.column_names]
    ):
        lacks = (
            f"lacks the columns {', '.join(missing)}"
            if facts.get("kind") == kind
            else f"holds no {kind}"
        )
        raise InputError(f"{path}: {lacks}; run its notebook again.")
    return table, facts
