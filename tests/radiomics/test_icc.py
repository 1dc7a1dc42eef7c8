"""Intraclass correlations are those of the literature."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.icc import intraclass_correlation

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


def test_one_target_is_refused():
    with pytest.raises(InputError, match="needs two of each"):
        intraclass_correlation(np.zeros((1, 4, 2)))
