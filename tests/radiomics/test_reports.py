"""Structured reports hold the values of the table, with codes and units."""

import numpy as np
import pydicom
import pytest
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import srread
from pydicom.sr.codedict import codes

from radiodino_utils import cli
from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.extraction import extract_radiomics
from radiodino_utils.radiomics.reports import write_structured_report

from .test_dicom_cases import VALUES, write_series


@pytest.fixture
def pair(tmp_path):
    """A CT and a SEG file of two segments, by highdicom."""
    folder = write_series(tmp_path / "ct", VALUES)
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda image: image.ImagePositionPatient[2])
    for number, image in enumerate(slices):
        image.FrameOfReferenceUID, image.InstanceNumber, image.SliceThickness = "1.2", number, 2.5
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            setattr(image, name, "")
        image.AccessionNumber = image.StudyID = ""
        image.save_as(image.filename)
    labels = np.zeros(VALUES.shape, np.uint8)
    labels[1:4, 3:12, 4:14], labels[2:5, 14:19, 5:20] = 1, 2
    algorithm = AlgorithmIdentificationSequence("drawn", codes.cid7162.MorphologicalOperations, "1")
    segmentation = Segmentation(
        slices, labels, "BINARY",
        [
            SegmentDescription(
                number, f"lesion {number}", codes.SCT.MorphologicallyAbnormalStructure,
                codes.SCT.Lesion, "AUTOMATIC", algorithm,
            )
            for number in (1, 2)
        ],
        pydicom.uid.generate_uid(), 2, pydicom.uid.generate_uid(), 1, "a", "b", "1", "2",
    )  # fmt: skip
    segmentation.save_as(tmp_path / "seg.dcm")
    return folder, tmp_path / "seg.dcm"


def _segment_of(group):
    return group.referenced_segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber


def test_a_report_holds_the_values_with_codes_and_units(pair, tmp_path):
    table = extract_radiomics(*pair, bin_count=16)
    assert table.rows["voxels"].tolist() == [3 * 9 * 10, 3 * 5 * 15]
    path = write_structured_report(table, tmp_path / "sr.dcm", *pair)
    report = srread(path)
    assert report.PatientID == "P7" and report.Modality == "SR"
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["lesion 1", "lesion 2"]
    assert [group.finding_type.meaning for group in groups] == ["Lesion"] * 2
    dictionary = table.dictionary().set_index("name")
    features = table.columns("handcrafted")
    for (_, row), group in zip(table.rows.iterrows(), groups, strict=True):
        assert _segment_of(group) == row["label"]
        found = {one.name.meaning: one for one in group.get_measurements()}
        assert len(found) == len(features)
        for name in features:
            facts = dictionary.loc[name]
            measurement = found[facts["meaning"]]
            assert measurement.value == pytest.approx(row[name], rel=1e-12)
            assert not facts["ibsi_code"] or measurement.name.value == facts["ibsi_code"]
        units = {one.name.value: one.unit.value for one in found.values()}
        assert [units[code] for code in ("RNU0", "Q4LE", "2PR5", "GYBY")] == [
            "mm3", "[hnsf'U]", "/mm", "1"
        ]  # fmt: skip


def test_the_command_writes_a_report(pair, tmp_path, capsys):
    paths = ["--images", str(pair[0]), "--masks", str(pair[1]), "--out", str(tmp_path / "a.csv")]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["radiomics", *paths, "--report", str(tmp_path / "sr.dcm")])
    assert "sr.dcm" in capsys.readouterr().out
    assert pydicom.dcmread(tmp_path / "sr.dcm").SOPClassUID.name == "Comprehensive 3D SR Storage"


def test_only_whole_segments_are_reported(pair, tmp_path):
    parts = extract_radiomics(*pair, bin_count=16, components=True)
    with pytest.raises(InputError, match="whole segments"):
        write_structured_report(parts, tmp_path / "sr.dcm", *pair)
    with pytest.raises(InputError, match="refers to the segments of a SEG file"):
        write_structured_report(parts, tmp_path / "sr.dcm", pair[0], next(pair[0].iterdir()))
