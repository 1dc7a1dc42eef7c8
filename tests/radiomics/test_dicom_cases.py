"""DICOM series with contours and segments give the regions that were drawn."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.extraction import extract_radiomics
from radiodino_utils.radiomics.maps import write_feature_maps
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


def write_series(folder, values, axes=(1, 0, 0, 0, 1, 0), step=(0, 0, 1), order=None):
    """Write slices whose rows and columns point along axes; names are in another order."""
    folder.mkdir()
    uid, offsets = generate_uid(), SPACING[0] * np.array(step, float)
    for place in order or range(len(values)):
        write(
            folder / f"{place * 7 % 11}.dcm", "CT", SeriesInstanceUID=uid, StudyInstanceUID="1.2",
            ImagePositionPatient=(np.array(ORIGIN) + place * offsets).round(3).tolist(),
            ImageOrientationPatient=list(axes), PixelSpacing=list(SPACING[1:]),
            RescaleSlope=1, RescaleIntercept=-100, **pixels(values[place], 16),
        )  # fmt: skip
    return folder


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "ct", VALUES)


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


def segmentation(tmp_path, frames, array=None, kind="BINARY", axes=(1, 0, 0, 0, 1, 0), **tags):
    """Write frames of (segment, position); of two segments by default."""
    if array is None:
        array = np.zeros((len(frames), *SHAPE[1:]), np.uint8)
        array[:, 2:5, 3:9] = 1
    stored = pixels(array, 8)
    if kind == "BINARY":
        stored |= {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
        stored["PixelData"] = pack_bits(array)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(axes))],
        PixelMeasuresSequence=[item(PixelSpacing=list(SPACING[1:]))],
    )
    return write(
        tmp_path / "seg.dcm", "SEG", SegmentationType=kind, NumberOfFrames=len(frames),
        SegmentSequence=[item(SegmentNumber=n, SegmentLabel=f"part {n}") for n in (1, 2)],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[
            item(
                SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
                PlanePositionSequence=[item(ImagePositionPatient=list(place))],
            )
            for number, place in frames
        ],
        **stored, **tags,
    )  # fmt: skip


def test_segments_lie_on_their_slices_and_may_overlap(series, tmp_path):
    frames = [(1, position(0)), (1, position(2)), (2, position(1)), (2, position(2))]
    found = cases(series, segmentation(tmp_path, frames))
    assert [case.names for case in found.values()] == [{1: "part 1"}, {2: "part 2"}]
    drawn = np.zeros(SHAPE[1:], bool)
    drawn[2:5, 3:9] = True
    for (number, case), places in zip(enumerate(found.values(), 1), ([5, 3], [4, 3]), strict=True):
        expected = np.zeros(SHAPE, bool)
        expected[places] = drawn
        assert np.array_equal(case.labels, number * expected)


def test_fractions_count_from_one_half(series, tmp_path):
    array = np.zeros((1, *SHAPE[1:]), np.uint8)
    array[0, 4, 4:8] = 20, 99, 100, 200
    options = {"array": array, "kind": "FRACTIONAL", "MaximumFractionalValue": 200}
    path = segmentation(tmp_path, [(2, position(0))], **options)
    assert np.argwhere(cases(series, path)["ct part 2"].labels).tolist() == [[5, 4, 6], [5, 4, 7]]


def test_label_maps_hold_all_segments_in_a_frame(series, tmp_path):
    array = np.zeros((1, *SHAPE[1:]), np.uint8)
    array[0, 2, 3], array[0, 5, 6:8] = 1, 2
    path = segmentation(tmp_path, [(1, position(0))], array=array, kind="LABELMAP")
    found = cases(series, path)
    assert np.argwhere(found["ct part 1"].labels).tolist() == [[5, 2, 3]]
    assert np.argwhere(found["ct part 2"].labels).tolist() == [[5, 5, 6], [5, 5, 7]]


TURNS = {  # orientation of rows and columns, and direction of the slices
    "axial from above": ((1, 0, 0, 0, 1, 0), (0, 0, -1)),
    "axial, feet first, prone": ((-1, 0, 0, 0, -1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 1, 0)),
    "coronal from behind": ((1, 0, 0, 0, 0, -1), (0, -1, 0)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (1, 0, 0)),
    "tilted": ((0.8, 0.6, 0, -0.6, 0.8, 0), (0, 0, 1)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["contours", "segments"])
def test_any_orientation_keeps_values_and_regions_in_place(tmp_path, turn, kind):
    """Stored values tell the place in mm, so that a swapped or flipped axis shows."""
    axes, step = TURNS[turn]
    moves = np.array([np.multiply(step, SPACING[0]), np.multiply(axes[3:], SPACING[1]),
                      np.multiply(axes[:3], SPACING[2])])  # fmt: skip
    voxels = np.stack(np.indices(SHAPE), -1)
    mm = voxels @ moves + ORIGIN
    coded = np.rint(5000 + mm @ [30, 50, 70]).astype(np.uint16)
    folder = write_series(tmp_path / "ct", coded, axes, step)
    inside = np.zeros(SHAPE, bool)
    inside[1:3, 4:9, 5:15] = True
    if kind == "contours":
        corners = np.array([(3.6, 4.6), (3.6, 14.4), (8.4, 14.4), (8.4, 4.6)])
        rings = [np.column_stack([np.full(4, place), corners]) @ moves + ORIGIN for place in (1, 2)]
        path = write(
            tmp_path / "rs.dcm", "RTSTRUCT",
            StructureSetROISequence=[item(ROINumber=1, ROIName="GTV")],
            ROIContourSequence=[
                item(
                    ReferencedROINumber=1,
                    ContourSequence=[item(ContourData=r.round(3).ravel().tolist()) for r in rings],
                )
            ],
        )  # fmt: skip
    else:
        frames = [(1, (np.array(ORIGIN) + place * moves[0]).round(3)) for place in (1, 2)]
        path = segmentation(tmp_path, frames, inside[1:3].astype(np.uint8), axes=axes)
    case = next(iter(cases(folder, path).values()))
    found = np.argwhere(case.labels) @ case.affine[:3, :3].T + case.affine[:3, 3]
    expected = mm[inside] * [-1, -1, 1]
    assert np.sort(found.round(2), 0) == pytest.approx(np.sort(expected.round(2), 0), abs=0.02)
    seen = 5000 + found * [-1, -1, 1] @ [30, 50, 70] - 100
    assert case.values[case.labels > 0] == pytest.approx(seen, abs=1)


def test_several_contours_in_a_slice_are_islands_holes_and_islands_in_holes(series, tmp_path):
    rings = [contour(2, (2, 16), (2, 12)), contour(2, (4, 14), (4, 10)), contour(2, (7, 9), (6, 8))]
    rings.append(contour(2, (3, 5), (17, 20)))
    path = write(
        tmp_path / "rs.dcm", "RTSTRUCT",
        StructureSetROISequence=[item(ROINumber=1, ROIName="wall")],
        ROIContourSequence=[item(ReferencedROINumber=1, ContourSequence=rings)],
    )  # fmt: skip
    drawn = np.zeros(SHAPE[1:], bool)
    drawn[2:17, 2:13], drawn[4:15, 4:11], drawn[7:10, 6:9] = True, False, True
    drawn[3:6, 17:21] = True
    assert np.array_equal(cases(series, path)["ct wall"].labels[3], drawn)


def test_structures_without_a_contour_are_empty_and_zero_is_a_number(series, tmp_path):
    names = [item(ROINumber=n, ROIName=f"s{n}") for n in (0, 4)]
    drawn = [item(ReferencedROINumber=0, ContourSequence=[contour(2, (4, 12), (5, 15))])]
    path = write(
        tmp_path / "rs.dcm", "RTSTRUCT", StructureSetROISequence=names, ROIContourSequence=drawn
    )
    found = cases(series, path)
    assert [int(found[name].labels.max()) for name in ("ct s0", "ct s4")] == [1, 0]
    assert (found["ct s0"].labels > 0).sum() == 9 * 11
    with pytest.raises(InputError, match="holds no structure"):
        cases(series, write(tmp_path / "rs.dcm", "RTSTRUCT", StructureSetROISequence=[]))


def test_segments_of_another_grid_and_incomplete_series_are_refused(series, tmp_path):
    first = [(1, position(0))]
    other = segmentation(tmp_path, first, np.zeros((1, 10, 12), np.uint8), "FRACTIONAL")
    with pytest.raises(InputError, match="not on the grid"):
        cases(series, other)
    with pytest.raises(InputError, match="not on the grid"):
        cases(series, segmentation(tmp_path, first, axes=(-1, 0, 0, 0, 1, 0)))
    with pytest.raises(InputError, match="beside the slices"):
        cases(series, segmentation(tmp_path, [(1, position(9))]))
    (series / "3.dcm").unlink()  # the third slice
    with pytest.raises(InputError, match="slices are missing"):
        cases(series, segmentation(tmp_path, first))


def test_structures_of_one_name_are_told_apart_by_their_numbers(series, tmp_path):
    path = write(
        tmp_path / "rs.dcm", "RTSTRUCT",
        StructureSetROISequence=[item(ROINumber=n, ROIName=f"a/{n // 5}") for n in (3, 5, 7)],
        ROIContourSequence=[
            item(ReferencedROINumber=n, ContourSequence=[contour(2, (n, 14), (3, 17))])
            for n in (3, 5, 7)
        ],
    )  # fmt: skip
    assert list(case_readers(series, path)) == ["ct a/0", "ct a/1 5", "ct a/1 7"]
    table = extract_radiomics(series, path, bin_count=8)
    maps = write_feature_maps(table, "firstorder_mean", tmp_path / "maps", series, path)
    assert [file.name for file in maps][:2] == ["ct a_0.nii.gz", "ct a_1 5.nii.gz"]
