"""Tables compared with committed ones, within stated tolerances."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.files import REPOSITORY

TOLERANCES = REPOSITORY / "notebooks" / "tolerances.yaml"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def compare_folders(computed: Path, committed: Path, *, partly: bool = False) -> list[str]:
    """Compare every CSV file of two folders.

    Args:
        computed: Folder of the new tables.
        committed: Folder of the committed tables.
        partly: Whether committed tables without a new one are ignored.

    Returns:
        A sentence for each table that is missing or differs by more than
        `notebooks/tolerances.yaml` allows.
    """
    import yaml

    rules = yaml.safe_load(TOLERANCES.read_text(encoding="utf-8"))
    new = {path.name for path in computed.glob("*.csv")}
    old = {path.name for path in committed.glob("*.csv")}
    differences = [] if partly else [f"{name}: was not made" for name in sorted(old - new)]
    differences += [f"{name}: has no committed counterpart" for name in sorted(new - old)]
    for name in sorted(new & old):
        default, own = rules["default"], rules.get(name, {})
        ignored = [*default["ignored"], *own.get("ignored", [])]
        found = compare_tables(
            _read(computed / name), _read(committed / name), default | own | {"ignored": ignored}
        )
        differences += [f"{name}: {difference}" for difference in found]
    return differences


def compare_tables(
    computed: pd.DataFrame, committed: pd.DataFrame, rules: Mapping[str, Any]
) -> list[str]:
    """Compare two tables cell by cell, in order.

    Args:
        computed: Text cells; numbers in them, also inside a text such as "48.1 [43.8, 52.5]", may
            differ a little.
        committed: Likewise.
        rules: `tolerance` of any number (absolute), `columns` with tolerances of their own,
            `ignored` columns.

    Returns:
        A sentence for each column that differs, with the first row and the number of cells.
    """
    if list(computed.columns) != list(committed.columns):
        columns = f"has the columns {', '.join(computed.columns)}"
        return [f"{columns} instead of {', '.join(committed.columns)}"]
    if len(computed) != len(committed):
        return [f"has {len(computed)} rows instead of {len(committed)}"]
    differences = []
    for column in computed.columns:
        if column in rules["ignored"]:
            continue
        tolerance = rules.get("columns", {}).get(column, rules["tolerance"])
        pairs = zip(computed[column], committed[column], strict=True)
        gaps = np.array([_gap(*pair) for pair in pairs])
        if len(gaps) and not gaps.max() <= tolerance:
            row = int(np.argmax(gaps > tolerance))
            differences.append(
                f"{column}, row {row + 1}: {computed[column][row]} instead of "
                f"{committed[column][row]} ({(gaps > tolerance).sum()} of {len(gaps)} cells differ "
                f"by more than {tolerance:g})"
            )
    return differences


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def _gap(text: str, other: str) -> float:
    """Return the greatest difference of the numbers in two texts; infinite if the words differ."""
    if text == other:
        return 0.0
    if _NUMBER.sub("#", text) != _NUMBER.sub("#", other):
        return np.inf
    pairs = zip(_NUMBER.findall(text), _NUMBER.findall(other), strict=True)
    return max(abs(float(a) - float(b)) for a, b in pairs)
