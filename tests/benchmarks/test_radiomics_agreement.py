"""Handcrafted features agree with those of mirp, by the committed table and by mirp itself."""

import importlib.util

import pandas as pd
import pytest

from benchmarks.radiomics_agreement import REGIONS, SETTINGS, TABLE, TOLERANCE, agreement
from radiodino_utils.core.files import REPOSITORY
from radiodino_utils.radiomics.table import handcrafted_dictionary


def test_every_feature_with_a_code_of_the_ibsi_agrees_in_all_regions():
    table = pd.read_csv(TABLE)
    known = handcrafted_dictionary().values()
    coded = {name for name, family, _, code, _ in known if code and family != "shape"}
    assert set(table["name"]) == coded and set(table["setting"]) == set(SETTINGS)
    assert table["agrees"].all() and (table["regions"] == REGIONS).all()
    assert table["largest_difference"].max() <= TOLERANCE


def test_the_numbers_of_the_documents_are_those_of_the_table():
    table = pd.read_csv(TABLE)
    words = " ".join((REPOSITORY / "docs" / "radiomics.md").read_text("utf-8").split())
    assert (
        f"All {table['name'].nunique()} features that have a code of the IBSI and are not of shape"
        in words
    )
    assert f"largest relative difference {table['largest_difference'].max():.1g}" in words


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    importlib.util.find_spec("mirp") is None,
    reason="mirp is not installed: its ITK takes 1.5 GB (pip install mirp==2.7.0)",
)
def test_mirp_agrees_still():
    table = agreement(regions=2)
    assert table["agrees"].all(), table[~table["agrees"]].to_string()
