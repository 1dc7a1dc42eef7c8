"""Figures of radiomics."""

import numpy as np
import pandas as pd

from radiodino_utils.plots.radiomics import decision_curves, stability_by_family, survival_curves


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


def test_survival_curves_have_a_step_line_per_half():
    times = np.arange(5.0)
    curves = pd.concat(
        pd.DataFrame(
            {"half": half, "time": times, "survival": 1 - slope * times, "model": "fused",
             "ci_low": 0.9 - slope * times, "ci_high": 1.0, "at_risk": 30 - times.astype(int)}
        )
        for half, slope in (("low risk", 0.05), ("high risk", 0.15))
    )  # fmt: skip
    axis = survival_curves(curves, time="years").axes[0]
    assert [line.get_label() for line in axis.lines] == ["low risk (n 30)", "high risk (n 30)"]
    assert axis.get_xlabel() == "years"
