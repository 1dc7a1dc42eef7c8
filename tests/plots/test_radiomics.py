"""Figures of radiomics."""

import numpy as np
import pandas as pd

from radiodino_utils.plots.radiomics import decision_curves, stability_by_family


def test_stability_is_drawn_by_family_with_the_count_of_stable_features():
    generator = np.random.default_rng(0)
    icc = generator.uniform(0.5, 1, 40)
    table = pd.DataFrame(
        {"name": range(40), "family": ["deep"] * 30 + ["glcm"] * 10, "icc2": icc,
         "icc2_low": icc - 0.1, "regions": 8, "measurements": 3}
    )  # fmt: skip
    figure = stability_by_family(table)
    texts = [text.get_text() for text in figure.axes[0].texts]
    stable = (table["icc2_low"] >= 0.75).groupby(table["family"]).sum()
    assert texts == [f"{stable['deep']} of 30", f"{stable['glcm']} of 10"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["deep", "glcm"]


def test_decision_curves_have_a_line_per_model():
    thresholds = np.linspace(0.1, 0.9, 9)
    curves = pd.concat(
        pd.DataFrame({"model": model, "threshold": thresholds, "net_benefit": benefit})
        for model, benefit in (("deep", 0.2), ("treat none", 0.0))
    )
    figure = decision_curves(curves)
    assert [line.get_label() for line in figure.axes[0].lines] == ["deep", "treat none"]
