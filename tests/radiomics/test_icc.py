"""Intraclass correlations are those of the literature."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.icc import ICC_COLUMNS, intraclass_correlation

# pingouin 0.7.0, unrounded, of tables with and without signal, shifts, ties and large offsets
PINGOUIN = pd.read_csv(Path(__file__).with_name("icc_pingouin.csv"))

# Shrout and Fleiss, Psychol. Bull. 86 (1979) 420, table 2: six targets, four judges
RATINGS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)[..., None]


def test_the_published_example():
    row = intraclass_correlation(RATINGS).round(2).iloc[0]
    assert (row["icc2"], row["icc3"]) == (0.29, 0.71)
    # McGraw and Wong's intervals of these ratings
    assert (row["icc2_low"], row["icc2_high"]) == (0.02, 0.76)
    assert (row["icc3_low"], row["icc3_high"]) == (0.34, 0.95)


@pytest.mark.parametrize("row", PINGOUIN.to_dict("records"), ids=PINGOUIN["table"])
def test_values_and_intervals_are_those_of_pingouin(row):
    values = np.array(row["values"].split(), float).reshape(row["targets"], -1, 1)
    found = intraclass_correlation(values).iloc[0]
    assert found.tolist() == pytest.approx([row[name] for name in ICC_COLUMNS], abs=1e-6)


def test_features_are_independent_and_a_shift_lowers_agreement_only():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(30, 1))
    noisy = truth + 0.1 * generator.normal(size=(30, 5))
    both = intraclass_correlation(np.stack([noisy, noisy + 3 * np.arange(5)], -1))
    alone = intraclass_correlation(noisy[..., None])
    assert both.iloc[0].tolist() == pytest.approx(alone.iloc[0].tolist())
    assert both["icc3"][0] == pytest.approx(both["icc3"][1])
    assert both["icc2"][0] > 0.97 and both["icc2"][1] < 0.2
    assert (both["icc2_low"] <= both["icc2"]).all() and (both["icc2"] <= both["icc2_high"]).all()


def test_equal_measurements_agree_and_constants_have_no_correlation():
    same = np.repeat(np.arange(6.0)[:, None], 3, 1)
    table = intraclass_correlation(np.stack([same, np.full((6, 3), 0.1)], -1))
    assert (table.iloc[0] == 1).all() and table.iloc[1].isna().all()


def test_targets_that_differ_by_measurement_alone_do_not_agree():
    same = np.tile([[1.0], [2.0], [4.0]], (5, 1)).reshape(5, 3, 1)
    row = intraclass_correlation(same).iloc[0]
    assert row["icc2"] == 0 and np.isnan(row["icc3"])


def test_opposite_measurements_of_equal_targets_have_no_interval_of_agreement():
    half = np.random.default_rng(0).normal(size=8)
    row = intraclass_correlation(np.stack([half, -half], 1)[..., None]).iloc[0]
    assert row["icc2"] < 0 and np.isnan(row["icc2_low"])
    assert row[["icc3", "icc3_low", "icc3_high"]].tolist() == pytest.approx([-1, -1, -1])


def test_one_target_is_refused():
    with pytest.raises(InputError, match="needs two of each"):
        intraclass_correlation(np.zeros((1, 4, 2)))
