"""What `inspect` says of folders, on files of pydicom and nibabel."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dicom import index
from radiodino_utils.data.inspection import inspect

from .test_dicom import dicom

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
    inspection = inspect(mixed, progress=False)
    rows = inspection.files.set_index("path")
    expected = ["DICOM", "CT", 128, 128]
    assert rows.loc["CT_small", ["format", "modality", "height", "width"]].tolist() == expected
    assert rows.loc["CT_small", "values"] == "MONOCHROME2 16"
    assert rows.loc["CT_small", "spacing"] == "0.661468 x 0.661468"
    assert rows.loc["anatomical.nii", ["format", "images"]].tolist() == ["NIfTI", 25]
    assert rows.loc["a.png", ["format", "height", "width", "values"]].tolist() == ["PNG", 4, 6, "L"]
    reasons = dict(zip(inspection.ignored["path"], inspection.ignored["reason"], strict=True))
    assert reasons.pop("b.png").startswith("damaged")
    assert reasons == {"test-SR": "structured report", "notes.txt": "no image (.txt)"}
    facts = inspection.facts()
    assert (facts["files"], facts["images"], facts["patients"]) == (4, 28, 2)
    assert facts["ignored"]["structured report"] == 1
    assert "28 in 4 files" in str(inspection) and "patients   2" in str(inspection)
    assert inspection.is_usable and "4 files, 3 ignored" in repr(inspection)


def test_labels_splits_and_repeated_names(images):
    names = [
        f"{split}/{label}/{n}.png" for split in ("Train", "TEST") for label in "ab" for n in "12"
    ]
    inspection = inspect(images([*names, "loose.png", "Train/a/1_mask.png"]), progress=False)
    facts = inspection.facts()
    assert facts["splits"] == {"train": 4, "test": 4}
    assert facts["labels by split"]["test"] == {"a": 2, "b": 2}
    assert facts["repeated names"] == {"1.png": 4, "2.png": 4}
    assert facts["ignored"] == {"outside the class folders": 1}
    assert facts["masks"] == {"PNG L": 1} and facts["images"] == 8
    assert "label      a: 4 (train 2, test 2)" in str(inspection)
    assert any("1 images outside the class folders" in note for note in facts["notes"])


def test_why_a_dataset_cannot_be_loaded(images, tmp_path):
    inspection = inspect(images(["train/a/1.png", "train/b/1.png", "test/a/1.png"]), progress=False)
    assert not inspection.is_usable and inspection.dataset is None
    assert "the class 'b' has one image" in inspection.fault
    assert "cannot be loaded: " in str(inspection) and "next:" not in str(inspection)
    (tmp_path / "list.csv").write_text("path,label\nnowhere.png,x\n")
    assert "files are missing" in inspect(tmp_path / "list.csv", progress=False).fault
    (tmp_path / "own.npz").write_bytes(b"PK")
    assert "damaged" in inspect(tmp_path / "own.npz", progress=False).fault


def test_headers_of_studies_are_read_once(tmp_path, monkeypatch):
    for number in range(3):
        dicom(tmp_path / f"IM{number}", np.zeros((4, 5), np.uint8), PatientID=f"{number}")
    (tmp_path / "labels.csv").write_text("patient,label\n0,x\n1,y\n")
    read, calls = index.read_header, []
    monkeypatch.setattr(index, "read_header", lambda path: calls.append(path) or read(path))
    inspection = inspect(tmp_path, progress=False)
    assert len(calls) == 3
    facts = inspection.facts()
    assert facts["labels"] == {"x": 1, "y": 1} and facts["ignored"]["without a label"] == 1
    assert facts["patients"] == 2


def test_images_and_masks_in_folders_of_any_name(images):
    root = images([f"{part}/{number}.png" for part in ("Img", "msk") for number in range(5)])
    for mask in (root / "msk").iterdir():
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(mask)
    for image in (root / "Img").iterdir():
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(image)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(root / "other.png")
    found = inspect(root)
    assert not found.fault and found.facts()["images"] == 5
    assert "neither in Img/ nor in msk/ (1)" in str(found)


def test_arrays_and_archives(synthetic_dataset, tmp_path, images):
    synthetic_dataset()
    facts = inspect(tmp_path / "made.npz", progress=False).facts()
    assert facts["splits"] == {"train": 5, "val": 3, "test": 4} and facts["images"] == 12
    assert facts["sizes"] == {"32 x 32": 3}
    images(["x/1.png"])
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "x")
    inspection = inspect(tmp_path / "packed.zip", progress=False)
    assert inspection.facts()["formats"] == {"PNG": 1} and inspection.is_usable
    (tmp_path / "packed.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="the archive is damaged or truncated"):
        inspect(tmp_path / "packed.zip")
