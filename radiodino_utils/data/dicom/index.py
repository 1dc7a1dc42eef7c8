"""Index of the DICOM images in a folder: patients, studies and series, by their headers."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ...core.errors import InputError
from .decoding import read_header
from .recognition import kind_without_image
from .values import attributes_of

if TYPE_CHECKING:
    from pydicom import Dataset

_IDENTIFIERS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "accession": "AccessionNumber",
    "modality": "Modality",
    "description": "SeriesDescription",
}


@dataclass(frozen=True, repr=False)
class DicomIndex:
    """Headers of the DICOM images of a folder; no pixels.

    Attributes:
        images: One row per file, sorted by patient, study, series and position: path (relative to
            the folder), patient, study, series, accession, modality, description, height, width,
            frames, position (mm along the normal of the slice, else the instance number), values
            (photometric interpretation and bits), spacing (of rows and columns in mm) and window
            (centre / width), both of the first frame and empty if unknown.
        ignored: Path and reason of each other file.
    """

    images: pd.DataFrame
    ignored: pd.DataFrame

    def __repr__(self) -> str:
        return f"DicomIndex({len(self.images)} images, {len(self.ignored)} ignored)"

    def reasons(self) -> dict[str, int]:
        """Return the number of ignored files by reason."""
        return dict(Counter(self.ignored["reason"]).most_common())

    def series(self) -> pd.DataFrame:
        """Return one row per series: its identifiers, modality, description, size and images."""
        keys = ["patient", "study", "series", "modality", "description", "height", "width"]
        return self.images.groupby(keys, sort=False)["frames"].sum().reset_index(name="images")


def index_dicom(root: Path, files: Iterable[Path], *, progress: bool = True) -> DicomIndex:
    """Read the header of each file once, whatever its name, and sort the images.

    Args:
        root: Folder that contains the files.
        files: The files, DICOM or not.
        progress: Whether a progress bar is shown.

    Returns:
        The index; localisers and files that hold no image are among the ignored ones.
    """
    rows, ignored = [], []
    for path in tqdm(files, desc="reading headers", unit="file", disable=not progress):
        name = path.relative_to(root).as_posix()
        try:
            header = read_header(path)
            reason = _reason_to_ignore(header)
            if not reason:
                rows.append({"path": name} | _row(header))
        except InputError as error:
            reason = "not DICOM" if "not a DICOM file" in str(error) else "damaged"
        except Exception:  # values of damaged headers raise anything
            reason = "damaged"
        if reason:
            ignored.append({"path": name, "reason": reason})
    columns = ["path", *_IDENTIFIERS, "height", "width", "frames", "position"]
    columns += ["values", "spacing", "window"]
    images = pd.DataFrame(rows, columns=columns)
    images = images.sort_values(["patient", "study", "series", "position", "path"], kind="stable")
    return DicomIndex(
        images.reset_index(drop=True), pd.DataFrame(ignored, columns=["path", "reason"])
    )


def _reason_to_ignore(header: "Dataset") -> str:
    """Return why a file is not among the images of a study, or an empty string."""
    if kind := kind_without_image(header):
        return kind.removeprefix("a ")
    if not header.get("Rows") or not header.get("Columns"):
        return "DICOM without an image"
    image_type = [str(value).upper() for value in np.atleast_1d(header.get("ImageType") or [])]
    return "localiser" if {"LOCALIZER", "SCOUT"} & set(image_type) else ""


def _row(header: "Dataset") -> dict[str, Any]:
    row: dict[str, Any] = {
        name: str(header.get(keyword) or "").strip() for name, keyword in _IDENTIFIERS.items()
    }
    return row | {
        "height": int(header.Rows),
        "width": int(header.Columns),
        "frames": int(header.get("NumberOfFrames") or 1),
        "position": _position(header),
        "values": f"{header.get('PhotometricInterpretation', '')} {header.get('BitsStored', '')}",
        "spacing": _spacing(header),
        "window": _window(header),
    }


def _spacing(header: "Dataset") -> str:
    """Return the distances of rows and columns, such as "0.7 x 0.7"."""
    with suppress(TypeError, ValueError):  # values that are no numbers
        measures = attributes_of(header, "PixelMeasuresSequence", 0)
        steps = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing") or []
        return " x ".join(f"{float(step):g}" for step in np.atleast_1d(steps))
    return ""


def _window(header: "Dataset") -> str:
    """Return the first window, such as "40 / 400"."""
    with suppress(TypeError, ValueError, IndexError):  # values that are no numbers, or empty
        source = attributes_of(header, "FrameVOILUTSequence", 0)
        ends = [source.get(keyword) for keyword in ("WindowCenter", "WindowWidth")]
        return " / ".join(f"{float(np.atleast_1d(end)[0]):g}" for end in ends)
    return ""


def _position(header: "Dataset") -> float:
    """Return the place of a slice in its series, in mm if the header says it."""
    orientation = header.get("ImageOrientationPatient")
    position = header.get("ImagePositionPatient")
    if orientation is not None and position is not None and len(orientation) == 6:
        axes = np.array(orientation, float).reshape(2, 3)
        return float(np.cross(axes[0], axes[1]) @ np.array(position, float))
    return float(header.get("InstanceNumber") or 0)
