"""Numbers with an interval in the outputs of notebooks, which must be those of the tables."""

import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd

from ..evaluation.results import COLUMNS, over_seeds
from .notebooks import cells_of

Interval = tuple[str, ...]  # value, lower and upper end, as they are shown
_INTERVAL = re.compile(r"(-?\d+\.\d+)(?: %)?(?: ± \d+\.\d+)? \[(-?\d+\.\d+), (-?\d+\.\d+)\]")
_ENDS = ["value", "ci_low", "ci_high"]
_SHOWN = [(scale, digits) for scale in (1, 100) for digits in (1, 2, 3)]


def unknown_intervals(folder: Path, profile: str, tables: Iterable[pd.DataFrame]) -> list[str]:
    """Find values with an interval that notebooks show and no table holds.

    Args:
        folder: Folder of the notebooks; only those that were executed for the profile count.
        profile: Name of the profile.
        tables: Tables of text cells or of numbers.

    Returns:
        A sentence for each such value.
    """
    known = {interval for table in tables for interval in _intervals_of(table)}
    faults = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
        if not any(f'profile = "{profile}"' in cell["source"] for cell in cells):
            continue
        for position, cell in enumerate(cells, 1):
            faults += [
                f"{path.name}, code cell {position}: '{text}' is no value of the tables"
                for text in _unknown_in(cell, known)
            ]
    return faults


def _unknown_in(cell: dict[str, Any], known: set[Interval]) -> list[str]:
    texts = [_text_of(output) for output in cell["outputs"]]
    matches = [match for text in texts for match in _INTERVAL.finditer(text)]
    return list(dict.fromkeys(match[0] for match in matches if match.groups() not in known))


def _intervals_of(table: pd.DataFrame) -> Iterator[Interval]:
    """Yield the intervals of a table, as notebooks may show them."""
    if set(_ENDS) <= set(table):
        numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in _ENDS}
        rows = table.assign(**numbers)
        yield from _rounded(rows)
        if set(COLUMNS) <= set(rows):
            yield from _rounded(over_seeds(rows))
    for column in table.select_dtypes(["object", "str"]):
        for cell in table[column]:
            yield from _INTERVAL.findall(str(cell))


def _rounded(rows: pd.DataFrame) -> Iterator[Interval]:
    for numbers in rows[_ENDS].itertuples(index=False):
        for scale, digits in _SHOWN:
            yield tuple(f"{scale * number:.{digits}f}" for number in numbers)


def _text_of(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    text = "".join(data.get("text/html", data.get("text/plain", output.get("text", ""))))
    return unescape(re.sub(r"<[^>]+>", " ", text))
