"""Headers of image files of all formats: sizes, types, spacings, windows, patients; no pixels."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from .archives import is_image
from .dataset import ImageDataset
from .dicom import is_dicom
from .dicom.index import DicomIndex, index_dicom
from .reading import SUFFIXES

COLUMNS = ["path", "format", "height", "width", "images", "values", "spacing", "window"]
COLUMNS += ["modality", "patient", "study", "series"]

DAMAGED = "damaged"  # how the reason begins where an image is expected


@dataclass(frozen=True)
class Headers:
    """Headers of files.

    Attributes:
        files: One row per image file: path (relative), format, height, width, images (frames,
            slices or pages), values (type or colour mode), spacing in mm, the file's own window
            (centre / width), modality, patient, study and series; empty where unknown.
        ignored: Path and reason of each other file.
        dicom: Index of the DICOM files.
    """

    files: pd.DataFrame
    ignored: pd.DataFrame
    dicom: DicomIndex


def read_headers(root: Path, files: Iterable[Path], *, progress: bool = True) -> Headers:
    """Read the header of each file once.

    Args:
        root: Folder that contains the files.
        files: The files, images or not.
        progress: Whether progress bars are shown.
    """
    of_dicom: list[Path] = []
    others: list[Path] = []
    ignored: list[dict[str, str]] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            (of_dicom if is_dicom(file) else others).append(file)
        except OSError as error:
            ignored.append({"path": name, "reason": f"{DAMAGED} ({error.strerror})"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, on values that the standard does not allow
        index = index_dicom(root, of_dicom, progress=progress and bool(of_dicom))
    rows = [_of_dicom(row) for row in index.images.to_dict("records")]
    ignored += index.ignored.to_dict("records")
    progress = progress and bool(others)
    for file in tqdm(others, desc="reading headers", unit="file", disable=not progress):
        name = file.relative_to(root).as_posix()
        if not file.name.lower().endswith(SUFFIXES):
            ignored.append({"path": name, "reason": _no_image(file.suffix)})
            continue
        try:
            rows.append({"path": name} | _of_others(file))
        except Exception as error:  # decoders of damaged files raise anything
            ignored.append({"path": name, "reason": f"{DAMAGED} ({type(error).__name__})"})
    return Headers(*_tables(rows, ignored), index)


def member_headers(names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the image files of an archive and the ignored ones, by their names alone."""
    rows: list[dict[str, Any]] = []
    ignored: list[dict[str, str]] = []
    for name in names:
        suffix = Path(name).suffix
        if is_image(name):
            rows.append({"path": name, "format": suffix[1:].upper(), "images": 1})
        else:
            ignored.append({"path": name, "reason": _no_image(suffix)})
    return _tables(rows, ignored)


def array_headers(dataset: ImageDataset | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per array of a dataset from an npz file; nothing is ignored."""
    rows: list[dict[str, Any]] = []
    for split, part in dataset.splits.items() if dataset else ():
        images: Any = part.images
        facts = {"path": f"{split}_images", "format": "npz", "values": str(images.dtype)}
        sizes = {"height": images.shape[1], "width": images.shape[2], "images": len(images)}
        rows.append(facts | sizes)
    return _tables(rows, [])


def _tables(
    rows: list[dict[str, Any]], ignored: list[dict[str, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    unknown = dict.fromkeys(COLUMNS, "")
    files = pd.DataFrame([unknown | row for row in rows], columns=COLUMNS)
    return files, pd.DataFrame(ignored, columns=["path", "reason"])


def _no_image(suffix: str) -> str:
    return f"no image ({suffix or 'no suffix'})"


def _of_dicom(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a DICOM file from its row of the index."""
    return row | {"format": "DICOM", "images": row["frames"], "values": row["values"].strip()}


def _of_others(path: Path) -> dict[str, Any]:
    """Return the row of a NIfTI file or of a photographic format."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        import nibabel

        image: Any = nibabel.as_closest_canonical(nibabel.load(path))
        width, height, slices = (*image.shape[:3], 1)[:3]
        facts = {"format": "NIfTI", "images": slices, "values": str(image.get_data_dtype())}
        spacing = " x ".join(f"{float(step):g}" for step in image.header.get_zooms()[:3])
        return facts | {"height": height, "width": width, "spacing": spacing}
    with Image.open(path) as opened:
        facts = {"format": opened.format or "", "images": getattr(opened, "n_frames", 1)}
        return facts | {"height": opened.height, "width": opened.width, "values": opened.mode}
