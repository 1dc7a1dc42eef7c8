"""Stability of features: extraction from perturbed images and from several readers' outlines."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..backbones.backbone import Backbone
from ..core.errors import InputError, unknown_name
from .cases import Case
from .extraction import table_of
from .icc import intraclass_correlation
from .perturbations import PERTURBATIONS, perturbed
from .readers import case_readers, tumour_slices
from .table import RadiomicsTable

KEYS = ["case", "label", "component"]
READERS = 4


def perturb_radiomics(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    kinds: Iterable[str] = tuple(PERTURBATIONS),
    seed: int = 0,
    backbone: Backbone | str | None = None,
    **options: Any,
) -> dict[str, RadiomicsTable]:
    """Extract features from perturbed images.

    Args:
        images: See `extract_radiomics`.
        masks: See `extract_radiomics`.
        kinds: Keys of `PERTURBATIONS`; "none" is the image as it is.
        seed: Seed of the perturbations.
        backbone: See `extract_radiomics`.
        **options: Further arguments of `extract_radiomics`.

    Returns:
        A table for each kind.

    Raises:
        InputError: If a kind is unknown; or see `extract_radiomics`.
    """
    tables = {}
    for kind in kinds:
        if kind not in PERTURBATIONS:
            raise unknown_name("perturbation", kind, PERTURBATIONS)
        readers = {
            name: partial(_perturbed, read, kind, seed)
            for name, read in case_readers(images, masks).items()
        }
        tables[kind] = table_of(
            readers, f"{Path(images).name}, {kind}", backbone=backbone, **options
        )
    return tables


def _perturbed(read: Callable[[], Case], kind: str, seed: int) -> Case:
    return perturbed(read(), kind, seed=seed)


def reader_tables(
    *, backbone: Backbone | str | None = None, **options: Any
) -> dict[str, RadiomicsTable]:
    """Extract features of the lung tumour in the demo's CT as each of its four readers outlined it.

    The regions are the slices that all four outlined. They are of one tumour, so that their
    correlation is no estimate for other tumours.

    Args:
        backbone: See `extract_radiomics`.
        **options: Further arguments of `extract_radiomics`.

    Returns:
        A table for each reader.

    Raises:
        InputError: See `lidc.lung_tumour` and `extract_radiomics`.
    """
    return {
        f"reader {number + 1}": table_of(
            tumour_slices(number), f"lung tumour, reader {number + 1}", backbone=backbone, **options
        )
        for number in range(READERS)
    }


def feature_correlations(tables: Mapping[str, RadiomicsTable]) -> pd.DataFrame:
    """Return the intraclass correlation of each feature over tables of the same regions.

    Args:
        tables: Tables returned by `perturb_radiomics` or `reader_tables`.

    Returns:
        One row per feature: name, family, `icc.ICC_COLUMNS`, the number of regions (those with all
        features in all tables) and of measurements.

    Raises:
        InputError: If fewer than two tables are given, or share fewer than two such regions.
    """
    first = next(iter(tables.values()), None)
    if first is None or len(tables) < 2:
        raise InputError(f"{len(tables)} tables: stability compares at least two.")
    frames = [table.rows.set_index(KEYS) for table in tables.values()]
    wanted = first.columns("handcrafted", "deep")
    names = [name for name in wanted if all(f.get(name, f.iloc[:, :0]).size for f in frames)]
    names = [name for name in names if all(frame[name].notna().any() for frame in frames)]
    complete = [set(frame.index[frame[names].notna().all(axis=1)]) for frame in frames]
    shared = [key for key in frames[0].index if all(key in keys for keys in complete)]
    if len(shared) < 2:
        raise InputError(f"{len(shared)} regions have all features in all tables; two are needed.")
    measured = np.stack([frame.loc[shared, names].to_numpy(float) for frame in frames], 1)
    family = first.dictionary().set_index("name")["family"]
    facts = pd.DataFrame({"name": names, "family": family[names].to_numpy()})
    result = pd.concat([facts, intraclass_correlation(measured)], axis=1)
    return result.assign(regions=len(shared), measurements=len(tables))


def stable_features(correlations: pd.DataFrame, *, threshold: float = 0.75) -> list[str]:
    """Return the features whose whole interval of ICC(2,1) lies above a threshold.

    Args:
        correlations: Table returned by `feature_correlations`.
        threshold: Chosen before the outcome is looked at; .75 is "good" and .9 "excellent" (Koo and
            Li, J. Chiropr. Med. 15 (2016) 155).
    """
    return correlations.loc[correlations["icc2_low"] >= threshold, "name"].tolist()
