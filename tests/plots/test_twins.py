"""The figure of the Dice that near duplicates buy."""

import pandas as pd
import pytest

from radiodino_utils.plots.twins import twin_points

from .text_boxes import overlaps, text_boxes


def points(datasets=("busi-breastmnist", "busi-list1")):
    """Points of two probes with two backbones and a U-Net; the last dataset has no twins."""
    rows = []
    for dataset in (*datasets, "busi-folds"):
        for protocol, backbone in (
            ("seg-linear", "radiodino-mini"),
            ("seg-linear", "random-t16"),
            ("seg-knn", "radiodino-mini"),
            ("seg-unet", "none"),
        ):
            for comparison in ("deduplicated", "train-deduplicated"):
                facts = {"dataset": dataset, "protocol": protocol, "backbone": backbone}
                value = {"difference": 0.02, "ci_low": -0.01, "ci_high": 0.05}
                counts = {"images": 156, "with_twin": 0 if dataset == "busi-folds" else 62}
                rows.append(facts | {"comparison": comparison} | value | counts)
    return pd.DataFrame(rows)


def test_a_row_of_panels_for_each_dataset_that_has_twins():
    figure = twin_points(points(), caveat="near duplicates lie across the official splits")
    assert len(figure.axes) == 4
    assert "62 of 156\nhave a twin" in figure.axes[0].get_ylabel()
    assert "official splits" in figure.get_suptitle().replace("\n", " ")
    drawn = [line.get_xdata() for line in figure.axes[0].lines]
    assert max(value for line in drawn for value in line if value == value) == pytest.approx(2)


@pytest.mark.parametrize("datasets", [("busi-breastmnist",), ("busi-breastmnist", "busi-list1")])
@pytest.mark.parametrize("protocols", [("seg-linear",), ("seg-linear", "seg-knn", "seg-unet")])
def test_no_text_lies_on_another(datasets, protocols):
    table = points(datasets)
    table = table[table["protocol"].isin(protocols)]
    assert overlaps(text_boxes(twin_points(table))) == []
