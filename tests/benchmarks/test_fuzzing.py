"""Damaged files never end in a traceback."""

import pytest

from benchmarks.fuzzing import fuzz


def require_no_traceback(table):
    assert not table["tracebacks"].sum(), "\n".join(table["last"])


def test_damaged_files_are_refused_or_read(tmp_path):
    table = fuzz(66, tmp_path, seed=1)
    assert len(table) > 15 and table["files"].sum() == 66
    require_no_traceback(table)


@pytest.mark.slow
def test_two_thousand_damaged_files_are_refused_or_read(tmp_path):
    require_no_traceback(fuzz(2000, tmp_path))
