"""Public files that nobody here wrote: the bar of the committed table."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import input_formats
from radiodino_utils.core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


def require_bar(table, share=0.97):
    total = table.set_index("kind").loc["all"]
    assert total["tracebacks"] == total["unexplained"] == 0, table.to_string()
    assert total["read"] >= share * total["files"], table.to_string()


@pytest.mark.slow
def test_installed_public_files_are_read():
    table = input_formats.survey(input_formats.installed_files())
    assert len(table) > 12 and table["files"].iloc[-1] > 100
    require_bar(table, 0.95)  # the damaged files are all among the installed ones


@pytest.mark.network
@pytest.mark.slow
def test_fetched_public_files_are_read(tmp_path):
    try:
        files = input_formats.fetched_files(tmp_path)
    except InputError as error:
        pytest.skip(f"no network: {error}")
    require_bar(input_formats.survey(files))


def test_the_committed_table_reaches_the_bar():
    table = pd.read_csv(Path(input_formats.__file__).with_suffix(".csv"), keep_default_na=False)
    require_bar(table)
    is_dicom = table["kind"].str.startswith("DICOM")
    read, files = (table.loc[is_dicom, name].sum() for name in ("read", "files"))
    assert read >= 0.97 * files
    for row in table[table["read"] < table["files"]][:-1].to_dict("records"):
        assert row["reasons"].count(" refused: ") == row["refused"]
