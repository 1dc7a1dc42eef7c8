"""Cases of a DICOM series with its contours (RTSTRUCT) or segments (SEG), one for each."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError
from ..core.extras import extra
from ..data.dicom.decoding import decoded_frame, decoded_header, read_header, undecodable
from ..data.dicom.index import index_dicom
from ..data.dicom.values import attributes_of, modality_values, stored_bits

if TYPE_CHECKING:
    from pydicom import Dataset

TOLERANCE_MM = 0.1  # of positions


def dicom_volume(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Read the series in a folder as a volume.

    Args:
        folder: Folder with the files of one series.

    Returns:
        Values in the units of the modality, [slices, rows, columns]; the affine from these to mm,
        with axes to the right, front and top as in NIfTI; the patient.

    Raises:
        InputError: If there is no series or several, or slices are missing or not parallel.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    images = index_dicom(folder, files, progress=False).images
    if images["series"].nunique() != 1 or len(images) < 2:
        raise InputError(f"{folder}: holds {images['series'].nunique()} series; give one.")
    paths = [folder / name for name in images["path"]]
    headers = [read_header(path) for path in paths]
    try:
        places = np.array([header.ImagePositionPatient for header in headers], float)
        axes = np.array([header.ImageOrientationPatient for header in headers], float)
        rows, columns = (float(step) for step in headers[0].PixelSpacing)
    except AttributeError as error:
        raise InputError(f"{folder}: a file lacks its position or spacing ({error}).") from error
    steps = np.diff(places, axis=0)
    if np.abs(steps - steps[0]).max() > TOLERANCE_MM or np.abs(axes - axes[0]).max() > 1e-3:
        raise InputError(f"{folder}: slices are missing, or not parallel; complete the series.")
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [steps.mean(0), axes[0, 3:] * rows, axes[0, :3] * columns, places[0]]
    )
    values = np.stack([_values(path) for path in paths])
    return values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, str(images["patient"].iloc[0])


def _values(path: Path) -> np.ndarray:
    """Return the values of a slice in the units of the modality, [rows, columns]."""
    header = decoded_header(path, str(path))
    try:
        pixels = stored_bits(decoded_frame(header, 0), header)
    except Exception as error:  # decoders raise anything on damaged pixels
        raise undecodable(str(path), error) from error
    return modality_values(pixels, header, 0, str(path))


def dicom_masks(
    path: Path, shape: tuple[int, ...], affine: np.ndarray
) -> dict[int, tuple[str, Callable[[], np.ndarray]]]:
    """Return the name of each structure of a file, and what draws it, by its number.

    Structures may overlap, so each has a mask of its own.

    Args:
        path: An RTSTRUCT or SEG file.
        shape: Shape of the volume.
        affine: See `dicom_volume`.

    Raises:
        InputError: If the file is neither.
    """
    header = decoded_header(path, str(path))
    to_voxels = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM points left, back
    if header.get("Modality") == "RTSTRUCT":
        rois = header.get("StructureSetROISequence") or ()
        names = {int(roi.ROINumber): str(roi.get("ROIName") or roi.ROINumber) for roi in rois}
        drawn = header.get("ROIContourSequence") or ()
        contours = {int(roi.ReferencedROINumber): roi for roi in drawn}
        numbers = sorted(contours.keys() | names.keys())
        if not numbers:
            raise InputError(f"{path}: the structure set holds no structure.")
        # labels of a mask are 16 bits, and 0 is none
        fit = numbers[0] > 0 and numbers[-1] < 1 << 16
        counted = numbers if fit else range(1, len(numbers) + 1)
        return {
            label: (
                names.get(number, str(number)),
                partial(_drawn, path, contours.get(number, {}), shape, to_voxels),
            )
            for label, number in zip(counted, numbers, strict=True)
        }
    if header.get("Modality") == "SEG":
        labels = {
            int(segment.SegmentNumber): str(segment.get("SegmentLabel") or segment.SegmentNumber)
            for segment in header.SegmentSequence
        }
        return {
            number: (name, partial(_segment, path, header, number, shape, to_voxels))
            for number, name in labels.items()
        }
    raise InputError(f"{path}: neither contours (RTSTRUCT) nor segments (SEG).")


def _drawn(path: Path, roi: Any, shape: tuple[int, ...], to_voxels: np.ndarray) -> np.ndarray:
    """Return the mask of a structure; a contour inside another one is a hole."""
    with extra("radiomics"):
        from skimage.draw import polygon2mask

    mask = np.zeros(shape, bool)
    for contour in roi.get("ContourSequence") or ():
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        place = round(float(voxels[:, 0].mean()))
        if np.abs(voxels[:, 0] - place).max() > 0.25 or not 0 <= place < shape[0]:
            raise InputError(f"{path}: a contour lies between or beside the slices of the series.")
        mask[place] ^= polygon2mask(shape[1:], voxels[:, 1:])
    return mask


def _segment(
    path: Path, header: "Dataset", number: int, shape: tuple[int, ...], to_voxels: np.ndarray
) -> np.ndarray:
    """Return the mask of a segment; of fractions those from one half count."""
    if (int(header.Rows), int(header.Columns)) != shape[1:]:
        raise InputError(f"{path}: the segments are not on the grid of the series; resample them.")
    kind, mask = header.get("SegmentationType"), np.zeros(shape, bool)
    least = float(header.get("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 1
    for frame in range(int(header.get("NumberOfFrames") or 1)):
        segment = attributes_of(header, "SegmentIdentificationSequence", frame)
        if kind != "LABELMAP" and int(segment.get("ReferencedSegmentNumber") or 1) != number:
            continue
        place = _slice_of_frame(path, header, frame, shape, to_voxels)
        try:
            pixels = decoded_frame(header, frame)
        except Exception as error:  # decoders raise anything on damaged pixels
            raise undecodable(str(path), error) from error
        mask[place] |= pixels == number if kind == "LABELMAP" else pixels >= least
    return mask


def _slice_of_frame(
    path: Path, header: "Dataset", frame: int, shape: tuple[int, ...], to_voxels: np.ndarray
) -> int:
    """Return the slice of the series that a frame lies on, pixel by pixel."""
    try:
        position = attributes_of(header, "PlanePositionSequence", frame).ImagePositionPatient
        axes = attributes_of(header, "PlaneOrientationSequence", frame).ImageOrientationPatient
        spacing = attributes_of(header, "PixelMeasuresSequence", frame).PixelSpacing
    except AttributeError as error:
        raise InputError(f"{path}: a segment lacks its position or spacing ({error}).") from error
    place, *corner = to_voxels[:3, :3] @ np.array(position, float) + to_voxels[:3, 3]
    steps = np.array([axes[3:], axes[:3]], float) * np.array(spacing, float)[:, None]
    turned = np.abs(steps @ to_voxels[:3, :3].T - np.eye(3)[1:]).max() * max(shape)
    if max(abs(place - round(place)), *np.abs(corner)) > 0.25 or turned > 0.5:
        raise InputError(f"{path}: the segments are not on the grid of the series; resample them.")
    if not 0 <= round(place) < shape[0]:
        raise InputError(f"{path}: a segment lies beside the slices of the series.")
    return round(place)


def structures(
    folder: Path, path: Path
) -> Iterator[tuple[int, str, str, Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]]]:
    """Yield number, name and patient of each structure, and what reads values, mask and affine."""
    values, affine, patient = dicom_volume(folder)
    for number, (name, draw) in dicom_masks(path, values.shape, affine).items():
        yield number, name, patient, partial(_structure, values, draw, affine)


def _structure(
    values: np.ndarray, draw: Callable[[], np.ndarray], affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, the mask that is drawn now, and the affine."""
    return values, draw(), affine
