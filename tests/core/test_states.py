"""Records of notebooks, also damaged ones."""

from pathlib import Path

import pytest

from radiodino_utils.core.states import current_files, is_damaged, read_state, recorded, write_state


def test_only_what_is_done_and_up_to_date_is_current(tmp_path: Path) -> None:
    assert current_files(tmp_path) is None
    write_state(tmp_path, "01_a", {"state": "done", "outputs": {"tables/01_x.csv": "1"}})
    write_state(tmp_path, "02_b", {"state": "out of date", "outputs": {"tables/02_x.csv": "1"}})
    write_state(tmp_path, "03_c", {"state": "FAILED"})
    assert recorded(tmp_path) == ["01_a", "02_b", "03_c"]
    assert current_files(tmp_path) == {"tables/01_x.csv"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '"done"'])
def test_a_damaged_record_is_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "01_a.json").write_text(text)
    assert read_state(tmp_path, "01_a") == {} and is_damaged(tmp_path, "01_a")
    assert current_files(tmp_path) == set()
