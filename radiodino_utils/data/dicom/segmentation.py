"""Label values of DICOM segmentations (SEG)."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from .decoding import decoded_frame
from .values import attributes_of

if TYPE_CHECKING:
    from pydicom import Dataset


def segmentation_labels(header: "Dataset", index: int | None, name: str | Path) -> np.ndarray:
    """Return the labels of a plane of a segmentation.

    Args:
        header: The file, with its pixels.
        index: Plane, in the order of the file; the middle one by default.
        name: Name of the file, for messages.

    Returns:
        int64, [height, width]: the number of the segment, 0 outside.

    Raises:
        InputError: If there is no such plane, segments overlap, or the segmentation is fractional.
    """
    kind = str(header.get("SegmentationType") or "BINARY")
    if kind not in ("BINARY", "LABELMAP"):
        raise InputError(f"{name}: a {kind.lower()} segmentation; only binary ones have labels.")
    planes = frames_of_planes(header)
    plane = len(planes) // 2 if index is None else index
    if not -len(planes) <= plane < len(planes):
        raise InputError(f"{name}: plane {plane} is outside the file's {len(planes)} planes.")
    labels = np.zeros((header.Rows, header.Columns), np.int64)
    for frame in planes[plane]:
        values = decoded_frame(header, frame)
        if kind == "LABELMAP":
            return values.astype(np.int64)
        segment = attributes_of(header, "SegmentIdentificationSequence", frame)
        inside = values > 0
        if labels[inside].any():
            raise InputError(f"{name}: segments overlap, so a pixel has more than one label.")
        labels[inside] = int(segment.get("ReferencedSegmentNumber") or 1)
    return labels


def frames_of_planes(header: "Dataset") -> list[list[int]]:
    """Return the frames of each plane; frames of several segments share a position."""
    planes: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for frame in range(int(header.get("NumberOfFrames") or 1)):
        position = attributes_of(header, "PlanePositionSequence", frame)
        place = position.get("ImagePositionPatient")
        key = (float(frame),) if place is None else tuple(round(float(edge), 3) for edge in place)
        planes[key].append(frame)
    return list(planes.values())
