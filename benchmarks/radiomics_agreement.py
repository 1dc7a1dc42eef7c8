"""Handcrafted features of the demo's CT beside those of mirp; writes `radiomics_agreement.csv`.

    pip install mirp==2.7.0
    python benchmarks/radiomics_agreement.py

mirp is by authors of the Image Biomarker Standardisation Initiative (IBSI). It is no dependency:
its ITK takes 1.5 GB. Both read the same NIfTI files: 20 regions, every second structure by size
from the smallest. Features are paired by IBSI code, so that a wrong code shows as a difference.
Shape is not compared.
"""

import logging
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import pandas as pd

from radiodino_utils.core.environment import git_revision, set_threads
from radiodino_utils.radiomics.cases import find_regions
from radiodino_utils.radiomics.extraction import extract_radiomics
from radiodino_utils.radiomics.readers import case_readers
from radiodino_utils.radiomics.table import handcrafted_dictionary

REGIONS, EVERY, MARGIN, TOLERANCE = 20, 2, 3, 1e-3
TABLE = Path(__file__).with_suffix(".csv")
MISSPELT = {"P6QZ1": "P6QZ"}  # by mirp
FAMILIES = ["statistics", "intensity_histogram", "glcm", "glrlm", "glszm", "ngtdm", "ngldm"]
WIDTH = {  # levels count from the lowest of the region, as ours
    "base_discretisation_method": "fixed_bin_size_pyradiomics",
    "base_discretisation_bin_width": 25.0,
    "ibsi_compliant": False,
    "image_modality": "ct",
}
NUMBER = {
    "base_discretisation_method": "fixed_bin_number",
    "base_discretisation_n_bins": 32,
    "image_modality": "mr",  # a number of bins is for intensities without a unit
}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # ours, mirp's
    "3-D, 25 HU": ({"bin_width": 25.0}, WIDTH),
    "largest slice, 32 bins": ({"bin_count": 32}, NUMBER),
}


def write_regions(folder: Path, *, flat: bool, regions: int = REGIONS) -> None:
    """Write image and mask of the box around each region, or its largest slice."""
    case = case_readers("demo-ct")["demo-ct"]()
    found = sorted(find_regions(case), key=lambda region: int(region.inside.sum()))
    for region in found[::EVERY][:regions]:
        box = tuple(slice(max(0, edge.start - MARGIN), edge.stop + MARGIN) for edge in region.box)
        values, inside = case.values[box], case.labels[box] == region.label
        if flat:
            largest = inside.sum((1, 2)).argmax()
            values, inside = values[largest][None], inside[largest][None]
        affine = np.diag([*(case.spacing_mm or (1.0,))[::-1], 1.0])
        for kind, array in (("images", values), ("masks", inside)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(array.T.astype(np.float32), affine)
            nibabel.save(image, folder / kind / f"{region.label:03d}.nii.gz")


def features_of_mirp(folder: Path, *, flat: bool, **settings: Any) -> tuple[pd.DataFrame, dict]:
    """Return the features of mirp, one row per region, and their names by IBSI code."""
    from mirp import extract_features
    from mirp._features import feature_generator
    from mirp.settings.feature_parameters import FeatureExtractionSettingsClass

    logging.disable(logging.INFO)
    space, way = ("2d", "2d_average") if flat else ("3d", "3d_average")
    settings |= {f"{name}_spatial_method": space for name in ("glszm", "ngtdm", "ngldm")}
    settings |= {"glcm_spatial_method": way, "glrlm_spatial_method": way, "by_slice": flat}
    codes = {code for *_, code, _ in handcrafted_dictionary().values()} | {*MISSPELT}
    every = feature_generator.generate_features

    def shared(settings: FeatureExtractionSettingsClass) -> list[Any]:
        return [feature for feature in every(settings) if feature.ibsi_id in codes]

    names, rows = {}, {}
    for feature in shared(FeatureExtractionSettingsClass(**settings)):
        feature.create_table_name()
        names[MISSPELT.get(feature.ibsi_id, feature.ibsi_id)] = feature.table_name
    with patch.object(feature_generator, "generate_features", shared):
        for image in sorted((folder / "images").iterdir()):
            mask = folder / "masks" / image.name
            (found,) = extract_features(image=str(image), mask=str(mask), **settings)
            rows[image.name.partition(".")[0]] = found.iloc[0]
    return pd.DataFrame(rows).T, names


def compared(own: pd.DataFrame, other: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Return the largest relative difference of each feature that both have."""
    own, rows = own.set_index("case"), []
    for name, (_, family, _, code, _) in handcrafted_dictionary().items():
        if name not in own or names.get(code) not in other:
            continue
        pair = own[name].to_numpy(float), other.loc[own.index, names[code]].to_numpy(float)
        scale = np.maximum(*np.abs(pair))
        difference = np.abs(pair[0] - pair[1]) / np.where(scale > 0, scale, 1)
        rows.append(
            {
                "name": name,
                "family": family,
                "ibsi_code": code,
                "mirp": names[code],
                "regions": int(np.isfinite(difference).sum()),
                "largest_difference": float(f"{difference.max():.2g}"),
                "agrees": bool(difference.max() <= TOLERANCE),
            }
        )
    return pd.DataFrame(rows)


def agreement(regions: int = REGIONS, settings: tuple[str, ...] = tuple(SETTINGS)) -> pd.DataFrame:
    """Return the table for a number of regions and some of the settings."""
    tables = []
    for name in settings:
        ours, theirs = SETTINGS[name]
        flat = name.startswith("largest")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_regions(root, flat=flat, regions=regions)
            other, names = features_of_mirp(
                root, flat=flat, base_feature_families=FAMILIES, **theirs
            )
            own = extract_radiomics(root / "images", root / "masks", **ours)
        tables.append(compared(own.rows, other, names).assign(setting=name))
    facts = {"mirp_version": version("mirp"), "git": git_revision()}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def main() -> None:
    """Compute all rows and write the table."""
    warnings.simplefilter("ignore")
    set_threads(1)
    table = agreement()
    table.to_csv(TABLE, index=False)
    counts = table.groupby("setting")["agrees"].agg(["sum", "count"])
    print(f"{counts}\n{table[~table['agrees']].to_string()}")


if __name__ == "__main__":
    main()
