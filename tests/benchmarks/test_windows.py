import pandas as pd

from radiodino_utils.core.files import REPOSITORY


def test_the_table_of_the_documents_is_that_of_the_benchmark():
    rows = pd.read_csv(REPOSITORY / "benchmarks" / "windows.csv")
    text = (REPOSITORY / "docs" / "own-data.md").read_text("utf-8")
    for (train, test), part in rows.groupby(["train", "test"], sort=False):
        values = part.set_index("metric")[["value", "ci_low", "ci_high"]] * 100
        cells = [
            "{:.1f} [{:.1f}, {:.1f}]".format(*values.loc[name]) for name in ("accuracy", "auc")
        ]
        assert f"| {train} | {test} | {' | '.join(cells)} |" in text
    assert len(rows) == 14 and set(rows["n"]) == {240} and set(rows["unit"]) == {"image"}
