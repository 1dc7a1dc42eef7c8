"""Stability of features: extraction from perturbed images and from several readers' outlines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..core.errors import InputError, unknown_name
from .cases import Case
from .extraction import table_of
from .icc import intraclass_correlation
from .perturbations import PERTURBATIONS, perturbed
from .readers import case_readers, tumour_slices
from .table import KEYS, RadiomicsTable


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
    backbone = backbone and as_backbone(backbone)
    tables, labels = {}, options.get("labels", ())
    originals = case_readers(images, masks)
    read = lru_cache(maxsize=1)(lambda name: originals[name]())  # a single volume is read once
    for kind in kinds:
        if kind not in PERTURBATIONS:
            raise unknown_name("perturbation", kind, PERTURBATIONS)
        readers = {
            name: partial(_perturbed, partial(read, name), kind, labels, seed) for name in originals
        }
        tables[kind] = table_of(
            readers, f"{Path(images).name}, {kind}", backbone=backbone, **options
        )
        tables[kind].facts.update(perturbation=kind, seed=seed)
    return tables


def _perturbed(read: Callable[[], Case], kind: str, labels: Sequence[int], seed: int) -> Case:
    return perturbed(read(), kind, labels=labels, seed=seed)


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
    backbone = backbone and as_backbone(backbone)
    return {
        reader: table_of(slices, f"lung tumour, {reader}", backbone=backbone, **options)
        for reader, slices in tumour_slices().items()
    }


def measured_values(tables: Mapping[str, RadiomicsTable]) -> pd.DataFrame:
    """Return the features of the regions that have all of them in all tables.

    Args:
        tables: Tables returned by `perturb_radiomics` or `reader_tables`.

    Returns:
        One row per region and table: `KEYS`, the name of the table as `measurement`, and features.

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
    parts = {name: frame.loc[shared, names] for name, frame in zip(tables, frames, strict=True)}
    return pd.concat(parts, names=["measurement"]).reset_index()


def feature_correlations(values: pd.DataFrame) -> pd.DataFrame:
    """Return the intraclass correlation of each feature.

    Args:
        values: Table returned by `measured_values`.

    Returns:
        One row per feature: name, family, `icc.ICC_COLUMNS`, the numbers of regions and of
        measurements.
    """
    columns = RadiomicsTable(values, pd.DataFrame(), {}).dictionary()
    features = columns.loc[columns["family"] != "region", ["name", "family"]].reset_index(drop=True)
    measurements = values["measurement"].nunique()
    measured = values[features["name"]].to_numpy(float)
    measured = measured.reshape(measurements, -1, len(features)).swapaxes(0, 1)
    result = pd.concat([features, intraclass_correlation(measured)], axis=1)
    return result.assign(regions=len(measured), measurements=measurements)


def stable_features(correlations: pd.DataFrame, *, threshold: float = 0.75) -> list[str]:
    """Return the features whose whole interval of ICC(2,1) lies above a threshold.

    Args:
        correlations: Table returned by `feature_correlations`.
        threshold: Chosen before the outcome is looked at; .75 is "good" and .9 "excellent" (Koo and
            Li, J. Chiropr. Med. 15 (2016) 155).
    """
    return correlations.loc[correlations["icc2_low"] >= threshold, "name"].tolist()


def stability_table(correlations: pd.DataFrame, *, threshold: float = 0.75) -> pd.DataFrame:
    """Return how many features of each family are stable.

    Args:
        correlations: Table returned by `feature_correlations`.
        threshold: See `stable_features`.

    Returns:
        One row per family: its number of features, that of stable ones, the median ICC(2,1), and
        the numbers of regions and of measurements.
    """
    stable = correlations["name"].isin(stable_features(correlations, threshold=threshold))
    families = correlations.assign(stable=stable).groupby("family", sort=False)
    return families.agg(
        features=("name", "size"),
        stable=("stable", "sum"),
        median_icc2=("icc2", "median"),
        regions=("regions", "first"),
        measurements=("measurements", "first"),
    ).reset_index()
