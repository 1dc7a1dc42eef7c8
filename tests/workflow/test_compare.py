"""Tables against committed ones."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from radiodino_utils.workflow.compare import TOLERANCES, compare_folders, compare_tables

RULES = {"tolerance": 0.02, "ignored": ["git"], "columns": {"pca1": 0.5}}


def _table(**columns: str) -> pd.DataFrame:
    return pd.DataFrame({name: [value] for name, value in columns.items()})


@pytest.mark.parametrize(
    ("made", "committed", "differs"),
    [
        ("0.50", "0.51", False),
        ("0.50", "0.53", True),
        ("nan", "0.5", True),
        ("", "", False),
        ("48.10 [43.80, 52.50]", "48.11 [43.80, 52.49]", False),
        ("48.10 [43.80, 52.50]", "48.10 [43.80, 52.60]", True),
        ("random-t16", "random-s16", True),
        ("not measured", "48.1", True),
        ("1e-3", "0.001", False),
        ("-0.01", "0.005", False),
    ],
)
def test_cells_may_differ_by_the_tolerance_and_no_more(
    made: str, committed: str, differs: bool
) -> None:
    faults = compare_tables(_table(value=made), _table(value=committed), RULES)
    assert bool(faults) == differs
    assert not differs or "row 1" in faults[0]


def test_columns_have_their_own_tolerance_or_are_ignored() -> None:
    assert compare_tables(_table(git="a", pca1="0.1"), _table(git="b", pca1="0.5"), RULES) == []
    assert compare_tables(_table(git="a", pca1="0.1"), _table(git="b", pca1="0.7"), RULES)


def test_other_rows_or_columns_are_differences() -> None:
    one = _table(value="1")
    assert "2 rows instead of 1" in compare_tables(pd.concat([one, one]), one, RULES)[0]
    assert "columns" in compare_tables(one.rename(columns={"value": "other"}), one, RULES)[0]


def test_folders_are_compared_by_file(tmp_path: Path) -> None:
    made, committed = tmp_path / "made", tmp_path / "committed"
    for folder, names in ((made, ("same", "new")), (committed, ("same", "gone"))):
        folder.mkdir()
        for name in names:
            _table(value="0.5").to_csv(folder / f"{name}.csv", index=False)
    assert compare_folders(made, committed) == [
        "gone.csv: was not made",
        "new.csv: has no committed counterpart",
    ]
    assert compare_folders(made, committed, partly=True) == [
        "new.csv: has no committed counterpart"
    ]


def test_no_tolerance_hides_a_difference_that_matters() -> None:
    """Fractions by .05 and percent by 5 points at most; what is wider holds no fractions."""
    rules = yaml.safe_load(TOLERANCES.read_text())
    percent = {
        "05_segmentation.csv",
        "06_faithfulness.csv",
        "09_classification.csv",
        "09_published.csv",
        "09_baselines.csv",
    }
    others = {"05_distance_rows.csv", "08_monitor.csv", "10_monitor.csv"}
    for name, rule in rules.items():
        assert name in others or rule.get("tolerance", 0) <= (5 if name in percent else 0.05), name
        columns = {
            column: limit for column, limit in rule.get("columns", {}).items() if column != "HD95"
        }
        assert name in others or all(limit <= 0.05 for limit in columns.values()), name


def test_what_every_table_ignores_is_ignored_where_a_table_ignores_more(tmp_path: Path) -> None:
    for folder, git, umap in (("made", "a", 1), ("committed", "b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "04_coordinates.csv").write_text(f"git,umap1,pca1\n{git},{umap},0.5\n")
    assert compare_folders(tmp_path / "made", tmp_path / "committed") == []
