"""What a profile needs, checked before any work; the rest of profiles is tested with the runner."""

from pathlib import Path

import pytest

from radiodino_utils.errors import InputError
from radiodino_utils.profiles import Notebook, provided


@pytest.fixture
def notebooks(monkeypatch, data_folder):
    monkeypatch.delenv("BUSI", raising=False)

    def one(name, *needs, **parameters):
        return Notebook(name, Path(f"{name}.ipynb"), needs, 60, parameters)

    return [
        one("01_own", dataset="organct-axial"),
        one("02_busi", dataset="busi-fold0"),
        one("03_both", "02_busi", datasets=["organct-axial", "busi-fold0"]),
    ]


def test_missing_data_stop_a_profile_with_all_that_is_missing(notebooks):
    with pytest.raises(InputError, match=r"lacks 1 data sets or weights:\n  busi-fold0: download it from .*\n.*--allow-missing"):
        provided(notebooks, notebooks, allow_missing=False)


def test_only_what_the_chosen_notebooks_need_is_checked(notebooks):
    assert provided(notebooks, notebooks[:1], allow_missing=False) == notebooks
    with pytest.raises(InputError, match="busi-fold0"):
        provided(notebooks, notebooks[2:], allow_missing=False)


def test_what_is_there_runs_where_it_is_allowed(notebooks, capsys):
    kept = provided(notebooks, notebooks, allow_missing=True)
    assert [(one.name, one.needs, one.parameters) for one in kept] == [
        ("01_own", (), {"dataset": "organct-axial"}),
        ("03_both", (), {"datasets": ["organct-axial"]}),
    ]
    assert "02_busi" in capsys.readouterr().out
    with pytest.raises(InputError, match="nothing is left to run"):
        provided(notebooks, notebooks[1:2], allow_missing=True)
