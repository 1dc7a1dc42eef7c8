"""Tables for readers keep split protocols apart; captions state the rule for empty masks."""

import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.segmentation.metrics import EMPTY_RULES, score_images
from radiodino_utils.evaluation.segmentation.results import segmentation_rows
from radiodino_utils.evaluation.segmentation.tables import caption, segmentation_table

from ...synthetic_segmentation import synthetic_segmentation
from .test_metrics import predicted, truth


def test_the_table_keeps_protocols_apart_and_adds_the_published_numbers():
    dataset = synthetic_segmentation(name="busi-lesions", protocol="lesions only")
    rows = segmentation_rows(score_images(predicted(dataset, truth(dataset))))
    table = segmentation_table(rows, {dataset.name: dataset.protocol})
    assert table.loc[0, ["dataset", "split", "probe", "Dice %", "source"]].tolist() == [
        "busi-lesions",
        "lesions only",
        "linear",
        "100.0 [100.0, 100.0]",
        "this run",
    ]
    published = table[table["source"] != "this run"].set_index("backbone")
    assert published.loc["radiodino-b16 (published)", "Dice %"] == "69.5"
    assert published.loc["frozen DINO", "Dice %"] == "none published"
    assert published.loc["U-Net DenseNet-121", "Dice %"] == "69.5 (67.8 to 72.1 over 3 seeds)"
    assert published.loc["TransUnet", "Dice %"] == "79.85 ± 2.59 over 3 lists"
    assert "without a test set" in published.loc["TransUnet", "split"]
    assert (published["split"] != "lesions only").all()
    with pytest.raises(InputError, match="two result rows for the same cell"):
        segmentation_table(pd.concat([rows, rows]), {dataset.name: ""})


def test_images_of_ones_own_get_no_published_numbers():
    dataset = synthetic_segmentation(name="busi-mine", protocol="5 folds")
    rows = segmentation_rows(score_images(predicted(dataset, truth(dataset))))
    table = segmentation_table(rows, {dataset.name: dataset.protocol})
    assert set(table["source"]) == {"this run"}


def test_the_rule_is_said_in_the_caption():
    assert (
        caption(["one patient", ""], empty="one")
        == f"empty masks: {EMPTY_RULES['one']}; one patient"
    )
