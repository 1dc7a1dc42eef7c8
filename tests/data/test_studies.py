"""Folders of DICOM studies: the index, the choice of slices and labels, on pydicom's own files."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.intensity import parse_window
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.data.studies import index_studies, select_slices

from .test_dicom import dicom

pytestmark = pytest.mark.filterwarnings("ignore")
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two patients of pydicom's test files, as they lie on a disk: without suffixes, mixed."""
    root = tmp_path_factory.mktemp("pacs")
    for name in ("77654033", "98892001", "98892003"):
        shutil.copytree(FILES / "dicomdirtests" / name, root / name)
    for name in ("DICOMDIR", "README.txt"):
        shutil.copy(FILES / "dicomdirtests" / name, root / name)
    shutil.copy(FILES / "test-SR.dcm", root / "report.IMA")
    shutil.copy(FILES / "MR_truncated.dcm", root / "cut.dcm")
    return root


def labels(root, rows):
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    return f"dicom:{root}"


def test_the_index_knows_what_each_file_is(real):
    index = index_studies(real, progress=False)
    headers = [
        pydicom.dcmread(path)
        for path in sorted(real.glob("9*/**/*")) + sorted(real.glob("7*/**/*"))
        if path.is_file()
    ]
    expected = {str(header.SOPInstanceUID): header for header in headers}
    localisers = [h for h in expected.values() if "LOCALIZER" in h.get("ImageType", [])]
    assert index.reasons()["localiser"] == len(localisers) == 2
    assert len(index.images) == len(expected) - 2 + 1  # and the one whose pixels are cut
    assert index.reasons()["DICOMDIR"] == 1
    assert index.reasons()["structured report"] == 1
    assert index.reasons()["not DICOM"] >= 1
    assert index.series()["images"].sum() == len(index.images)
    assert "images" in repr(index)


def test_a_folder_without_dicom_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(InputError, match=r"holds no DICOM images \(1 not DICOM\)"):
        index_studies(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        index_studies(tmp_path / "nowhere")


@pytest.fixture
def study(tmp_path):
    """A synthetic tree: two patients of five slices each, in no order, and a localiser."""
    for patient in ("anna", "berta"):
        for number, height in enumerate([3, 1, 5, 2, 4]):
            pixels = np.full((4, 5), 10 * height, np.int16)
            path = tmp_path / patient / f"IM{number}"
            path.parent.mkdir(exist_ok=True)
            tags = {
                "PatientID": patient,
                "StudyInstanceUID": f"1.{len(patient)}",
                "SeriesInstanceUID": f"1.{len(patient)}.1",
                "AccessionNumber": patient.upper(),
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [0, 0, height],
                "Modality": "CT",
            }
            dicom(path, pixels, **tags)
    scout = tmp_path / "anna" / "scout"
    dicom(scout, np.zeros((4, 5), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return tmp_path


def test_slices_are_sorted_by_position_and_chosen_evenly(study):
    index = index_studies(study, progress=False)
    assert index.reasons() == {"localiser": 1}
    assert index.images["position"].tolist() == [1, 2, 3, 4, 5] * 2
    for slices, expected in (("middle", [3]), ("2", [1, 5]), ("3", [1, 3, 5]), ("9", range(1, 6))):
        chosen = select_slices(index.images, slices)
        assert chosen["position"].tolist() == [*expected] * 2
    assert len(select_slices(index.images, "all")) == 10
    with pytest.raises(InputError, match="slices '0': give middle, all, or a number above 0"):
        select_slices(index.images, "0")


@pytest.mark.parametrize("key", ["PatientID", "AccessionNumber", "study"])
def test_labels_join_by_patient_study_or_accession(study, key):
    values = {"PatientID": ("anna", "berta"), "AccessionNumber": ("ANNA", "BERTA")}
    first, second = values.get(key, ("1.4", "1.5"))
    name = labels(study, [f"{key};diagnosis", f"{first};tumour", f"{second};none"])
    dataset = load_dataset(f"{name}?slices=3&window=0,51")
    split = dataset.splits["all"]
    assert dataset.classes == ("none", "tumour")
    assert split.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert [int(image[0, 0]) for image in split.images] == [50, 150, 250] * 2
    assert len(set(split.groups)) == 2 and "anna" not in str(split.groups)
    assert (dataset.unit, dataset.groups_from) == ("patient", "PatientID")
    assert load_dataset(f"{name}?slices=3&window=lung").digest != dataset.digest


def test_a_patient_stays_in_one_split_and_labels_fit(study):
    rows = ["path,label,split", "anna/IM0,x,Training", "berta/IM0,x,Testing"]
    with pytest.warns(UserWarning, match="8 images have no label"):
        dataset = load_dataset(f"{labels(study, rows)}?slices=all")
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 1, "test": 1}
    with pytest.raises(InputError, match="the splits overlap: group"):
        load_dataset(f"{labels(study, [*rows, 'anna/IM1,x,test'])}?slices=all")
    with pytest.raises(InputError, match=r"1 of 1 rows fit no image, first the patient 'carla'"):
        load_dataset(labels(study, ["patient,label", "carla,x"]))
    with pytest.raises(InputError, match="has none of the columns path, accession, study, patient"):
        load_dataset(labels(study, ["name,label", "carla,x"]))


def test_labels_join_by_path_or_file_name(study):
    (study / "berta" / "IM0").rename(study / "berta" / "other.IMA")
    rows = ["filename,label", "anna/IM0,x", "other.IMA,y", "berta/IM1,y"]
    with pytest.warns(UserWarning, match="7 images have no label"):
        dataset = load_dataset(labels(study, rows))  # each file, though series have a middle image
    split = dataset.splits["all"]
    found = dict(zip(split.ids, split.labels.tolist(), strict=True))
    assert found == {"anna/IM0": 0, "berta/other.IMA": 1, "berta/IM1": 1}
    with pytest.raises(InputError, match="'IM1' is the name of 2 files, such as anna/IM1 and ber"):
        load_dataset(labels(study, ["filename,label", "IM1,x"]))
    with pytest.raises(InputError, match="1 of 1 rows fit no image, first the path 'IM9'"):
        load_dataset(labels(study, ["filename,label", "IM9,x"]))


def test_frames_of_one_file_are_slices(tmp_path):
    frames = np.arange(5, dtype=np.uint8)[:, None, None] * np.full((1, 3, 3), 50, np.uint8)
    dicom(tmp_path / "cine", frames, PatientID="a")
    split = load_dataset(f"{labels(tmp_path, ['patient,label', 'a,x'])}?slices=2").splits["all"]
    assert split.ids == ["cine#0", "cine#4"]
    assert [int(image.max()) for image in split.images] == [0, 200]


def test_options_of_the_name():
    with pytest.raises(InputError, match="unknown option of dicom: 'windows'; did you mean window"):
        load_dataset("dicom:a?windows=lung")
    with pytest.raises(InputError, match="unknown window 'lang'; did you mean lung"):
        parse_window("lang")
    with pytest.raises(InputError, match="window 3,2: the upper value must be greater"):
        parse_window("3,2")


def test_labels_may_lie_elsewhere_or_be_absent(study, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists") / "a list.csv"
    elsewhere.write_text("patient,label\nanna,x\nberta,y")
    dataset = load_dataset(f"mystudy=dicom:{study}?labels={elsewhere}")
    assert (dataset.name, dataset.classes) == ("mystudy", ("x", "y"))
    dataset = load_dataset(f"dicom:{study}?labels=unlabelled&slices=2")
    assert dataset.classes == ("unlabelled",)
    assert len(dataset.splits["all"]) == 4 and len(set(dataset.splits["all"].groups)) == 2
