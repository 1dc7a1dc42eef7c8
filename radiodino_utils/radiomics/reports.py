"""Structured reports (DICOM SR, TID 1500) of the features of the segments of a DICOM series."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import atomic
from ..data.dicom import is_dicom, read_header
from .table import RadiomicsTable

if TYPE_CHECKING:
    from pydicom import Dataset

with extra("radiomics"):
    from highdicom import UID
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        Comprehensive3DSR,
        DeviceObserverIdentifyingAttributes,
        Measurement,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.codedict import codes

NAME, SCHEME = "radiodino_utils", "99RADIODINO"  # of features that the IBSI does not define


def write_structured_report(
    table: RadiomicsTable, path: str | Path, images: str | Path, masks: str | Path
) -> Path:
    """Write the handcrafted features of segments as a structured report.

    It has a group of measurements for each segment, by template 1500 of DICOM part 16, with the
    codes of the Image Biomarker Standardisation Initiative and units of UCUM.

    Args:
        table: Table that `extract_radiomics` returned for the two paths, without components.
        path: File to write.
        images: Folder of the DICOM series.
        masks: SEG file.

    Returns:
        The file.

    Raises:
        InputError: If the masks are no SEG file, the table is of something else, or the headers
            lack what a report needs.
    """
    segmentation = read_header(Path(masks))
    if segmentation.get("Modality") != "SEG":
        raise InputError(f"{masks}: a structured report refers to the segments of a SEG file.")
    files = sorted(file for file in Path(images).rglob("*") if file.is_file() and is_dicom(file))
    evidence = [read_header(file) for file in files]
    if table.rows["component"].any() or not evidence or evidence[0].Modality == "SEG":
        raise InputError(
            f"{images}: give a table of whole segments and the folder of their series."
        )
    segments = {int(segment.SegmentNumber): segment for segment in segmentation.SegmentSequence}
    try:
        groups = [
            _measurements(table, row, segments[row["label"]], segmentation, evidence[0])
            for _, row in table.rows.iterrows()
        ]
        report = _report(groups, [segmentation, *evidence])
    except (AttributeError, KeyError, ValueError) as error:
        raise InputError(f"{masks}: no structured report can refer to it ({error}).") from error
    path = Path(path).absolute()
    with atomic(path) as temporary:
        report.save_as(temporary, enforce_file_format=True)
    return path


def _measurements(
    table: RadiomicsTable,
    row: pd.Series,
    segment: "Dataset",
    segmentation: "Dataset",
    image: "Dataset",
) -> "VolumetricROIMeasurementsAndQualitativeEvaluations":
    """Return the group of measurements of a segment."""
    kind = segment.get("SegmentedPropertyTypeCodeSequence")
    settings = [f"{name}={value}" for name, value in table.facts["options"].items()]
    dictionary = table.dictionary().set_index("name")
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(), row["name"]),
        referenced_segment=ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            int(row["label"]),
            source_series=SourceSeriesForSegmentation(image.SeriesInstanceUID),
        ),
        finding_type=CodedConcept.from_dataset(kind[0]) if kind else None,
        algorithm_id=AlgorithmIdentification(NAME, table.facts["git"], settings or None),
        measurements=[
            Measurement(
                _concept(name, facts),
                float(row[name]),
                _unit(facts["unit"], image.Modality),
            )
            for name, facts in dictionary.loc[table.columns("handcrafted")].iterrows()
            if pd.notna(row[name])
        ],
    )


def _concept(name: str, facts: pd.Series) -> "CodedConcept":
    """Return the code of a feature: that of the IBSI, else one of 8 characters for its name.

    The standard allows longer ones, but highdicom reads no report that has them.
    """
    if facts["ibsi_code"]:
        return CodedConcept(facts["ibsi_code"], "IBSI", facts["meaning"])
    return CodedConcept(f"{crc32(name.encode()):08X}", SCHEME, facts["meaning"])


def _unit(unit: str, modality: str) -> "CodedConcept":
    """Return the code of UCUM; intensities of CT are in HU."""
    grey = "[hnsf'U]" if modality == "CT" else "{intensity}"
    code = {"": "1", "1/mm": "/mm"}.get(unit, unit)
    code = code.replace("intensity", grey).replace(" ", ".")
    return CodedConcept(code, "UCUM", unit or "no units")


def _report(groups: list[Any], evidence: list["Dataset"]) -> "Comprehensive3DSR":
    """Return the report of groups of measurements."""
    observer = DeviceObserverIdentifyingAttributes(UID(), name=NAME, model_name=NAME)
    return Comprehensive3DSR(
        evidence,
        MeasurementReport(
            ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, observer)),
            CodedConcept("363679005", "SCT", "Imaging procedure"),
            groups,
        ),
        series_instance_uid=UID(),
        series_number=1,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        series_description="Radiomics features",
    )
