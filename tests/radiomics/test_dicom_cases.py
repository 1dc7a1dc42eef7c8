"""DICOM series with contours and segments give the regions that were drawn."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.readers import case_readers

SHAPE, SPACING, ORIGIN = (6, 20, 24), (2.5, 0.8, 0.5), (-10.0, 5.0, 40.0)
VALUES = np.random.default_rng(0).integers(0, 900, SHAPE, dtype=np.uint16)  # superior last


def item(**tags):
    header = Dataset()
    for name, value in tags.items():
        setattr(header, name, value)
    return header


def write(path, kind, **tags):
    header = item(Modality=kind, PatientID="P7", SOPInstanceUID=generate_uid(), **tags)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(path, enforce_file_format=True)
    return path


def pixels(array, bits):
    return {
        "Rows": array.shape[-2], "Columns": array.shape[-1], "BitsAllocated": bits,
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "PixelData": array.tobytes(),
    }  # fmt: skip


def position(place):
    return [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[0] * place]


@pytest.fixture
def series(tmp_path):
    folder, uid = tmp_path / "ct", generate_uid()
    folder.mkdir()
    for place in range(SHAPE[0]):
        write(
            folder / f"{place * 7 % 11}.dcm", "CT", SeriesInstanceUID=uid,
            StudyInstanceUID="1.2", ImagePositionPatient=position(place),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=list(SPACING[1:]),
            RescaleSlope=1, RescaleIntercept=-100, **pixels(VALUES[place], 16),
        )  # fmt: skip
    return folder


def contour(place, rows, columns):
    """Return a rectangle around the centres of voxels, both ends included."""
    corners = [(rows[0], columns[0]), (rows[0], columns[1]), (rows[1], columns[1])]
    corners.append((rows[1], columns[0]))
    outset = np.array(corners) + np.sign(np.array(corners) - np.mean(corners, 0)) * 0.4
    x = ORIGIN[0] + outset[:, 1] * SPACING[2]
    y = ORIGIN[1] + outset[:, 0] * SPACING[1]
    z = np.full(4, position(place)[2])
    return item(ContourData=np.column_stack([x, y, z]).round(3).ravel().tolist())


def cases(series, masks):
    return {name: read() for name, read in case_readers(series, masks).items()}


def test_contours_become_masks_with_holes_and_may_overlap(series, tmp_path):
    rings = [contour(2, (4, 12), (5, 15)), contour(2, (7, 9), (8, 10)), contour(3, (4, 6), (5, 6))]
    path = write(
        tmp_path / "rs.dcm", "RTSTRUCT",
        StructureSetROISequence=[
            item(ROINumber=3, ROIName="GTV"), item(ROINumber=5, ROIName="PTV")
        ],
        ROIContourSequence=[
            item(ReferencedROINumber=3, ContourSequence=rings),
            item(ReferencedROINumber=5, ContourSequence=[contour(2, (2, 14), (3, 17))]),
        ],
    )  # fmt: skip
    found = cases(series, path)
    assert list(found) == ["ct GTV", "ct PTV"]
    drawn = np.zeros(SHAPE, bool)
    drawn[2, 4:13, 5:16], drawn[3, 4:7, 5:7] = True, True
    drawn[2, 7:10, 8:11] = False
    case = found["ct GTV"]
    assert np.array_equal(case.labels, 3 * drawn[::-1])
    assert np.array_equal(case.values, VALUES[::-1].astype(int) - 100)
    assert case.spacing_mm == pytest.approx(SPACING) and case.patient == "P7"
    assert (found["ct PTV"].labels > 0).sum() == 13 * 15
    top = case.affine @ [0, 0, 0, 1]
    assert top[:3] == pytest.approx([-ORIGIN[0], -ORIGIN[1], position(5)[2]])


def segmentation(tmp_path, frames, shape=SHAPE[1:]):
    array = np.zeros((len(frames), *shape), np.uint8)
    array[:, 2:5, 3:9] = 1
    return write(
        tmp_path / "seg.dcm", "SEG", SegmentationType="FRACTIONAL", NumberOfFrames=len(frames),
        SegmentSequence=[item(SegmentNumber=n, SegmentLabel=f"part {n}") for n in (1, 2)],
        PerFrameFunctionalGroupsSequence=[
            item(
                SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
                PlanePositionSequence=[item(ImagePositionPatient=position(place))],
            )
            for number, place in frames
        ],
        **pixels(array, 8),
    )  # fmt: skip


def test_segments_lie_on_their_slices(series, tmp_path):
    found = cases(series, segmentation(tmp_path, [(1, 0), (2, 1), (2, 2)]))
    assert [case.names for case in found.values()] == [{1: "part 1"}, {2: "part 2"}]
    slices = [np.flatnonzero(case.labels.any((1, 2))).tolist() for case in found.values()]
    assert slices == [[5], [3, 4]]


def test_segments_of_another_grid_and_incomplete_series_are_refused(series, tmp_path):
    other = segmentation(tmp_path, [(1, 0)], shape=(10, 12))
    with pytest.raises(InputError, match="not on the grid"):
        cases(series, other)
    with pytest.raises(InputError, match="beside the slices"):
        cases(series, segmentation(tmp_path, [(1, 9)]))
    (series / "3.dcm").unlink()  # the third slice
    with pytest.raises(InputError, match="slices are missing"):
        cases(series, segmentation(tmp_path, [(1, 0)]))
