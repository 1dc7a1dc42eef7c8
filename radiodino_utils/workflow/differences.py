"""Differences between recomputed and written tables, to the last digit that is written."""

import io
import math
import re
from collections.abc import Mapping

import pandas as pd

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the cells as `write_table` writes them."""
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)


def differences(recomputed: pd.DataFrame, written: pd.DataFrame) -> list[str]:
    """Compare two tables of text cells.

    Args:
        recomputed: Recomputed table.
        written: Table as it is in the file; the column `git` may differ.

    Returns:
        A sentence for each column that differs, with its first row.
    """
    if list(recomputed) != list(written):
        columns = f"has the columns {', '.join(written)}"
        return [f"{columns}; recomputed are {', '.join(recomputed)}"]
    if len(recomputed) != len(written):
        return [f"has {len(written)} rows; recomputed are {len(recomputed)}"]
    faults = []
    for column in recomputed:
        if column == "git":
            continue
        pairs = zip(recomputed[column], written[column], strict=True)
        rows = [row for row, pair in enumerate(pairs) if differ(*pair)]
        if rows:
            row, more = rows[0], f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            faults.append(
                f"{column}, row {row + 1}{more}: '{written[column][row]}' stands there, "
                f"'{recomputed[column][row]}' is recomputed"
            )
    return faults


def differ(text: str, other: str) -> bool:
    """Return whether two texts differ by more than the sixth significant digit of their numbers."""
    if text == other:
        return False
    if _NUMBER.sub("#", text) != _NUMBER.sub("#", other):
        return True
    pairs = zip(_NUMBER.findall(text), _NUMBER.findall(other), strict=True)
    return any(abs(float(a) - float(b)) > max(1e-9, 1.01 * _last_digit(float(b))) for a, b in pairs)


def _last_digit(value: float) -> float:
    return 10.0 ** (math.floor(math.log10(abs(value))) - 5) if value else 0.0


def contradictions(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Find protocols that have two numbers.

    Args:
        tables: Tables of text cells by name; those that are not result rows are ignored.

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
        if any(differ(value, part["value"].iloc[0]) for value in part["value"]):
            values = ", ".join(
                f"{row.value} ({row.table})" for row in part.drop_duplicates("value").itertuples()
            )
            protocol = ", ".join(word for word in key if word)
            faults.append(f"two numbers for one protocol: {protocol}: {values}")
    return faults
