"""Tables compared with committed ones, within stated tolerances."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.files import REPOSITORY

TOLERANCES = REPOSITORY / "notebooks" / "tolerances.yaml"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def compare_folders(made: Path, committed: Path, *, partly: bool = False) -> list[str]:
    """Compares every CSV file of two folders.

    Args:
        made: The new tables.
        committed: The tables to be met.
        partly: Whether tables that were not made anew are passed over.

    Returns:
        A sentence for each table that is missing or differs by more than
        `notebooks/tolerances.yaml` allows.
    """
    import yaml

    rules = yaml.safe_load(TOLERANCES.read_text())
    names = {folder: {path.name for path in folder.glob("*.csv")} for folder in (made, committed)}
    differences = (
        []
        if partly
        else [f"{name}: was not made" for name in sorted(names[committed] - names[made])]
    )
    differences += [
        f"{name}: has no committed counterpart" for name in sorted(names[made] - names[committed])
    ]
    for name in sorted(names[made] & names[committed]):
        tables = [
            pd.read_csv(folder / name, keep_default_na=False, dtype=str)
            for folder in (made, committed)
        ]
        default, own = rules["default"], rules.get(name, {})
        both = default | own | {"ignored": [*default["ignored"], *own.get("ignored", [])]}
        differences += [f"{name}: {fault}" for fault in compare_tables(*tables, both)]
    return differences


def compare_tables(
    made: pd.DataFrame, committed: pd.DataFrame, rules: dict[str, object]
) -> list[str]:
    """Compares two tables cell by cell, in order.

    Args:
        made: Text cells; numbers in them, also inside a text such as "48.1 [43.8, 52.5]", may
            differ a little.
        committed: Likewise.
        rules: `tolerance` of any number (absolute), `columns` with tolerances of their own,
            `ignored` columns.

    Returns:
        A sentence for each column that differs, with the first row and the greatest difference.
    """
    if list(made.columns) != list(committed.columns):
        return [
            f"has the columns {', '.join(made.columns)} instead of {', '.join(committed.columns)}"
        ]
    if len(made) != len(committed):
        return [f"has {len(made)} rows instead of {len(committed)}"]
    differences = []
    for column in made.columns:
        if column in rules["ignored"]:
            continue
        tolerance = rules.get("columns", {}).get(column, rules["tolerance"])
        gaps = np.array([_gap(a, b) for a, b in zip(made[column], committed[column], strict=True)])
        if len(gaps) and not gaps.max() <= tolerance:
            row = int(np.argmax(gaps > tolerance))
            differences.append(
                f"{column}, row {row + 1}: {made[column][row]} instead of {committed[column][row]} "
                f"({(gaps > tolerance).sum()} of {len(gaps)} cells differ by more than {tolerance:g})"
            )
    return differences


def _gap(made: str, committed: str) -> float:
    """The greatest difference of the numbers in two texts; infinite where the words around them differ."""
    if made == committed:
        return 0.0
    if _NUMBER.sub("#", made) != _NUMBER.sub("#", committed):
        return np.inf
    pairs = zip(_NUMBER.findall(made), _NUMBER.findall(committed), strict=True)
    return max(abs(float(a) - float(b)) for a, b in pairs)
