"""Tables of results in a README, filled from CSV files."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..core.environment import made_on
from ..core.errors import InputError
from ..core.files import REPOSITORY, write_text
from ..evaluation.results import read_table

_MARK = re.compile(
    r"(?P<begin><!-- table: (?P<file>\S+)(?: columns: (?P<columns>.+?))?"
    r"(?: rows: (?P<key>\w+) = (?P<values>.+?))? -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def readme_with_tables(text: str, folder: Path) -> str:
    """Fill the marked places of a README with Markdown tables from CSV files.

    Args:
        text: The README. A place reaches from `<!-- table: FILE.csv -->`, optionally with
            `columns: NAME, NAME` and after them `rows: NAME = VALUE, VALUE` before the arrow, to
            `<!-- end -->`.
        folder: Folder from which the paths of the files start.

    Returns:
        The README with the tables as they are now, and below each table of a profile the processors
        that computed it.

    Raises:
        InputError: If a file or a column is missing.
    """

    def filled(match: re.Match[str]) -> str:
        path = folder / match["file"]
        if not path.is_file():
            raise InputError(
                f"{path}: the README asks for this table and it is not there; "
                "run the notebooks first."
            )
        table = _selected(path, match["columns"], match["key"], match["values"])
        processors = made_on(path.parents[1])
        made = textwrap.fill(f"Made on: {processors}.", 100)
        caption = f"\n{made}\n" if processors else ""
        return f"{match['begin']}{_as_markdown(table)}{caption}{match['end']}"

    return _MARK.sub(filled, text)


def update_readme() -> Path:
    """Fill the tables of `results/README.md` and return its path."""
    path = REPOSITORY / "results" / "README.md"
    write_text(path, readme_with_tables(path.read_text(encoding="utf-8"), REPOSITORY))
    return path


def _selected(path: Path, columns: str | None, key: str | None, values: str | None) -> pd.DataFrame:
    """Return some columns of a table, and the rows whose key is among the values."""
    table = read_table(path, dtype=str)
    shown: Sequence[str] = columns.split(", ") if columns else list(table)
    for name in (*shown, *([key] if key else [])):
        if name not in table:
            raise InputError(f"{path}: the README asks for the column {name} and it is not there.")
    if key and values:
        table = table[table[key].isin(values.split(", "))]
    return table[shown]


def _as_markdown(table: pd.DataFrame) -> str:
    escaped = table.replace(r"\|", r"\|", regex=True)
    lines = [escaped.columns, ["---"] * len(escaped.columns), *escaped.to_numpy()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
