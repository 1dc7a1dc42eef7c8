"""What `inspect_folder` says of folders, on files of pydicom and nibabel."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.inspection import TILE, contact_sheet, inspect_folder

pytestmark = pytest.mark.filterwarnings("ignore")
DICOM = Path(pydicom.__file__).parent / "data" / "test_files"
NIFTI = Path(nibabel.__file__).parent / "tests" / "data"


@pytest.fixture
def mixed(tmp_path):
    """A folder as a colleague sends it."""
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "test-SR.dcm"):
        shutil.copy(DICOM / name, tmp_path / name.removesuffix(".dcm"))
    shutil.copy(NIFTI / "anatomical.nii", tmp_path)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("")
    return tmp_path


def test_each_file_is_named_or_its_reason(mixed):
    inspection = inspect_folder(mixed, progress=False)
    rows = inspection.files.set_index("path")
    assert rows.loc["CT_small", ["format", "height", "width"]].tolist() == ["DICOM CT", 128, 128]
    assert rows.loc["CT_small", "values"] == "MONOCHROME2 16"
    assert rows.loc["CT_small", "spacing mm"] == "0.661468 x 0.661468"
    assert rows.loc["anatomical.nii", "format"] == "NIfTI"
    assert rows.loc["anatomical.nii", "images"] == 25
    assert rows.loc["a.png", ["format", "height", "width", "values"]].tolist() == ["PNG", 4, 6, "L"]
    reasons = dict(zip(inspection.ignored["path"], inspection.ignored["reason"], strict=True))
    assert reasons.pop("b.png").startswith("damaged")
    assert reasons == {"test-SR": "structured report", "notes.txt": "no image (.txt)"}
    assert "4 image files, 3 others" in str(inspection)
    assert "patient: 2" in str(inspection)
    assert inspection.summary()["images"].sum() == 28


def test_a_contact_sheet(mixed, tmp_path):
    sheet = contact_sheet(inspect_folder(mixed, progress=False), columns=3)
    assert sheet.size == (3 * TILE, 2 * TILE)
    assert np.asarray(sheet)[:TILE, :TILE].any()
    with pytest.raises(InputError, match="holds no images to show"):
        contact_sheet(inspect_folder(mixed / "notes.txt"))
    with pytest.raises(InputError, match="there is no such file or folder"):
        inspect_folder(tmp_path / "nowhere")
