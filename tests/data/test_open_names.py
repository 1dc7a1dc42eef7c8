"""Names that hold a path, and what is read by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.data.open_names import KINDS, OpenName, parse_open_name

WORDS = st.text("abcXYZ019 _-./+&=%é", min_size=1, max_size=12)


@given(st.sampled_from(KINDS), WORDS, WORDS, st.sampled_from(["", "study", "ct-2.1"]))
def test_a_name_reads_back_as_it_was_written(kind, path, labels, alias):
    opened = OpenName(kind, path, {"labels": labels}, alias)
    assert parse_open_name(str(opened)) == opened


@pytest.mark.parametrize("text", ["organct-axial", "folder:", "hub:a/b", "a b=folder:x", ""])
def test_other_texts_are_no_open_names(text):
    assert parse_open_name(text) is None
