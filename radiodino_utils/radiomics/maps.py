"""Maps of a feature: the value of each region at its voxels, as NIfTI."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError, unknown_name
from ..core.files import atomic
from .cases import Case, find_regions
from .readers import case_readers, read_cases
from .table import RadiomicsTable


def feature_map(case: Case, rows: pd.DataFrame, feature: str) -> np.ndarray:
    """Return the value of a feature at each voxel.

    Args:
        case: The case.
        rows: Rows of its table.
        feature: Name of a numeric column.

    Returns:
        float32, [slices, rows, columns]; NaN outside of the regions.
    """
    values = rows.set_index(["label", "component"])[feature]
    painted = np.full(case.values.shape, np.nan, np.float32)
    for region in find_regions(case, components=bool((rows["component"] > 0).any())):
        if (region.label, region.component) in values.index:
            painted[region.box][region.inside] = values[region.label, region.component]
    return painted


def write_feature_maps(
    table: RadiomicsTable,
    feature: str,
    folder: str | Path,
    images: str | Path,
    masks: str | Path | None = None,
) -> list[Path]:
    """Write a map of a feature for each case, on the grid of its image.

    Args:
        table: Table of `extract_radiomics`.
        feature: Name of a numeric column.
        folder: Folder of the files `CASE.nii.gz`.
        images: As given to `extract_radiomics`.
        masks: As given to `extract_radiomics`.

    Returns:
        The files.

    Raises:
        InputError: If the table has no such numeric column, an image cannot be read any more, or a
            file cannot be written.
    """
    import nibabel

    numeric = table.rows.select_dtypes("number").columns
    if feature not in numeric:
        raise unknown_name("feature", feature, numeric)
    written = []
    rows_of = dict(tuple(table.rows.groupby("case", sort=False)))
    readers = {name: read for name, read in case_readers(images, masks).items() if name in rows_of}
    for name, case in read_cases(readers):
        if isinstance(case, InputError):
            raise case
        affine = case.affine
        if affine is None:
            affine = np.diag([*(case.spacing_mm or (1.0, 1.0, 1.0)), 1.0])
        path = Path(folder) / f"{name.replace('/', '_')}.nii.gz"  # a structure may be "GTV/CTV"
        with atomic(path.absolute()) as temporary:
            image = nibabel.Nifti1Image(feature_map(case, rows_of[name], feature), affine)
            nibabel.save(image, temporary)
        written.append(path)
    return written
