"""The documents hold the measured Dice that near duplicates buy."""

import pandas as pd

from benchmarks.busi_twins import TABLE
from radiodino_utils.core.files import REPOSITORY


def test_the_table_of_the_documents_is_that_of_the_benchmark():
    rows = pd.read_csv(TABLE)
    text = (REPOSITORY / "docs" / "protocols.md").read_text("utf-8")
    for (dataset, backbone), part in rows.groupby(["dataset", "backbone"], sort=False):
        by_comparison = part.set_index("comparison")
        first = part.iloc[0]
        cells = [f"{first['with_twin']} of {first['images']}", f"{100 * first['dice']:.1f}"]
        for comparison in ("deduplicated", "train-deduplicated"):
            values = by_comparison.loc[comparison, ["difference", "ci_low", "ci_high"]] * 100
            cells.append("{:.1f} [{:.1f}, {:.1f}]".format(*values))
        line = f"| `{dataset}` | {backbone} | {' | '.join(cells)} |"
        assert line.replace("-0.0 ", "0.0 ") in text


def test_no_interval_of_the_bundled_backbone_excludes_zero():
    rows = pd.read_csv(TABLE).query("backbone == 'radiodino-mini'")
    assert (rows["ci_low"] < 0).all() and (rows["ci_high"] > 0).all()
