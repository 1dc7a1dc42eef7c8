"""Cases: an image or volume with its labels, and the labelled regions in it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.extras import extra
from ..data.dicom import is_dicom, read_header
from ..data.images import as_grey, read_image
from ..data.masks import read_mask, stem_of
from .handcrafted import Spacing

VOLUMES = (".nii", ".nii.gz")
LABELS = 65535
AXES = "IPL"  # slices go down, rows to the back, columns to the left of the patient


@dataclass(frozen=True, eq=False)
class Case:
    """An image with labels.

    Attributes:
        name: Name of the image.
        values: Grey values, [slices, rows, columns]: superior, anterior and the patient's right
            first; one slice for a 2-D image.
        labels: Label of each voxel, 0 outside.
        spacing_mm: Distances of slices, rows and columns; `None` if they are not known.
        patient: Patient; the name of the image by default.
        names: Names of labels.
        affine: Voxels to mm, as NIfTI has it; `None` for 2-D images.
        facts: Other columns of the table.
    """

    name: str
    values: np.ndarray
    labels: np.ndarray
    spacing_mm: Spacing | None = None
    patient: str = ""
    names: dict[int, str] = field(default_factory=dict)
    affine: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.shape != self.labels.shape or self.values.ndim != 3:
            raise InputError(
                f"{self.name}: the mask has {_edges(self.labels)} voxels, the image "
                f"{_edges(self.values)}; resample the mask."
            )
        if self.values.dtype.kind not in "iuf":
            raise InputError(f"{self.name}: the values are no grey values; save a grey volume.")
        is_whole = self.labels.dtype.kind in "iu"
        if not is_whole or self.labels.min() < 0 or self.labels.max() > LABELS:
            raise InputError(f"{self.name}: labels are whole numbers from 0 to {LABELS}.")


def _edges(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


@dataclass(frozen=True, eq=False)
class Region:
    """A labelled region of a case.

    Attributes:
        label: Its value.
        component: Number of the connected component, the largest first; 0 for a whole label.
        box: Slices, rows and columns that hold it.
        inside: bool, of the shape of the box.
    """

    label: int
    component: int
    box: tuple[slice, slice, slice]
    inside: np.ndarray


def find_regions(case: Case, *, components: bool = False) -> list[Region]:
    """Return the regions of a case, sorted by label.

    Args:
        case: The case.
        components: Whether each connected component, diagonals included, is a region.
    """
    with extra("evaluation"):
        from scipy.ndimage import find_objects, label

    regions = []
    for value, box in enumerate(find_objects(case.labels), start=1):
        if box is None:
            continue
        inside = case.labels[box] == value
        if not components:
            regions.append(Region(value, 0, box, inside))
            continue
        parts, _ = label(inside, np.ones((3, 3, 3)))
        boxes = list(enumerate(find_objects(parts), start=1))
        boxes.sort(key=lambda part: -int((parts[part[1]] == part[0]).sum()))
        for rank, (number, part) in enumerate(boxes, start=1):
            place = tuple(
                slice(outer.start + inner.start, outer.start + inner.stop)
                for outer, inner in zip(box, part, strict=True)
            )
            own = parts[part] == number
            regions.append(Region(value, rank, place, own))  # type: ignore[arg-type]
    return regions


def read_case(image: str | Path, mask: str | Path) -> Case:
    """Read an image and its mask.

    Args:
        image: NIfTI volume, or an image of any format of `read_image`.
        mask: Labels on the same grid, in a NIfTI file or an image.

    Raises:
        InputError: If a file cannot be read, or the mask is on another grid.
    """
    image, mask = Path(image), Path(mask)
    if image.name.lower().endswith(VOLUMES):
        return _read_volume(image, mask)
    grey, labels = as_grey(read_image(image)), read_mask(mask)
    if set(np.unique(labels)) <= {0, 255}:
        labels = labels // 255
    return Case(
        name=stem_of(image.name),
        values=grey[None],
        labels=labels[None],
        spacing_mm=_pixel_spacing(image),
    )


def _read_volume(image: Path, mask: Path) -> Case:
    (values, affine), (labels, other) = (_canonical(path) for path in (image, mask))
    if values.shape != labels.shape or not np.allclose(affine, other, atol=1e-2):
        raise InputError(
            f"{mask}: the labels are not on the grid of {image.name} (shapes {labels.shape} and "
            f"{values.shape}); resample them."
        )
    whole = np.rint(labels)
    if not np.isfinite(labels).all() or (labels != whole).any():
        raise InputError(f"{mask}: the mask holds fractions or NaN, not labels.")
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not (spacing > 0).all():
        raise InputError(f"{image}: the header has no voxel size; set it before.")
    return Case(
        name=stem_of(image.name),
        values=values,
        labels=whole.astype(np.int32),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        affine=affine,
    )


def _canonical(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a NIfTI file along `AXES`, and its affine."""
    import nibabel
    from nibabel.openers import ImageOpener
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    try:
        file = nibabel.load(path)
        with ImageOpener(path) as stored:
            raw = file.header_class.from_fileobj(stored, check=False)
        if not (raw["pixdim"][1:4] > 0).all() and not raw["sform_code"]:
            raise InputError(f"{path}: the header has no voxel size; set it before.")
        if file.ndim == 4 and file.shape[3] == 1:
            file = file.slicer[..., 0]
        if file.ndim == 2:
            file = type(file)(np.asanyarray(file.dataobj)[..., None], file.affine)
        turn = ornt_transform(io_orientation(file.affine), axcodes2ornt(AXES))
        turned = file.as_reoriented(turn)
        return np.asanyarray(turned.dataobj), turned.affine
    except InputError:
        raise
    except Exception as error:  # nibabel raises anything on damaged files
        raise InputError(f"{path}: no NIfTI volume that can be read ({error}).") from error


def _pixel_spacing(path: Path) -> Spacing | None:
    """Return the spacing in the header of a DICOM file."""
    if not is_dicom(path):
        return None
    header = read_header(path)
    steps = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    return None if steps is None else (1.0, float(steps[0]), float(steps[1]))
