"""Deep features of many masks take one dense pass; the documents hold the measured times."""

import pandas as pd

from benchmarks.radiomics import TABLE
from radiodino_utils.core.files import REPOSITORY


def test_the_table_of_the_documents_is_that_of_the_benchmark():
    rows = pd.read_csv(TABLE)
    text = (REPOSITORY / "docs" / "radiomics.md").read_text("utf-8")
    for way, part in rows.groupby("way", sort=False):
        seconds = part.set_index("masks")["cpu_s"]
        cells = [f"{seconds[masks]:.1f}" for masks in (1, 10, 89)]
        assert f"| {part['kind'].iloc[0]} | {way} | {' | '.join(cells)} |" in text
    assert len(rows) == 15


def test_the_dense_pass_does_not_grow_with_the_number_of_masks():
    seconds = pd.read_csv(TABLE).set_index(["way", "masks"])["cpu_s"]
    assert seconds["dense pass", 89] < 2 * seconds["dense pass", 1]
    assert seconds["crop per mask and slice", 89] > 10 * seconds["crop per mask and slice", 1]
