"""Radiomics tables: regions of images and masks, with deep, handcrafted and clinical columns."""

import io
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..core.environment import cpu_count, git_revision, versions
from ..core.errors import InputError
from ..data.masks import stem_of
from ..data.tables import decoded_text, separator_of
from ..evaluation.logistic import one_thread
from .cases import Case, Region, find_regions
from .deep import DeepExtractor
from .handcrafted import handcrafted_features, resampled
from .options import RadiomicsOptions
from .readers import CAVEATS, case_readers, read_cases
from .table import EXCLUDED, RadiomicsTable


def extract_radiomics(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    backbone: Backbone | str | None = None,
    clinical: str | Path | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    **options: Any,
) -> RadiomicsTable:
    """Return one row of features per labelled region.

    A file that cannot be used does not stop the others: `excluded` names it, with every region or
    part of a row that is left out, and why.

    Args:
        images: Folder of images or NIfTI volumes, one such file, or demo-ct, lung-tumour or busi,
            which need no masks.
        masks: Folder of label images or volumes with the same names, or the mask of the one image.
        backbone: Registered name, or backbone returned by `load_backbone`; without it there are no
            deep features.
        clinical: CSV file with the column patient; an optional column image (name of the file) says
            whose image each is. Its other columns join the table as `clinical_...`.
        engine: See `make_engine`.
        precision: See `make_engine`.
        threads: See `make_engine`.
        **options: Fields of `RadiomicsOptions`.

    Returns:
        The table, in the order of the names.

    Raises:
        InputError: If an option, the backbone or the clinical table is not valid, or there is no
            region at all.
    """
    return table_of(
        case_readers(images, masks),
        Path(images).name,
        backbone=backbone,
        clinical=clinical,
        engine=engine,
        precision=precision,
        threads=threads,
        **options,
    )


def table_of(
    readers: Mapping[str, Callable[[], Case]],
    images: str,
    *,
    backbone: Backbone | str | None = None,
    clinical: str | Path | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    **options: Any,
) -> RadiomicsTable:
    """Return the table of cases; see `extract_radiomics`.

    Args:
        readers: What reads each case, by name.
        images: Name of the images, for messages and the sidecar.
        backbone: See `extract_radiomics`.
        clinical: See `extract_radiomics`.
        engine: See `extract_radiomics`.
        precision: See `extract_radiomics`.
        threads: See `extract_radiomics`.
        **options: See `extract_radiomics`.

    Raises:
        InputError: See `extract_radiomics`.
    """
    chosen = RadiomicsOptions(**options)
    table = None if clinical is None else _read_clinical(Path(clinical))
    extractor = None
    if backbone is not None:
        extractor = DeepExtractor(
            as_backbone(backbone), chosen, engine=engine, precision=precision, threads=threads
        )
    patients = _patients_of_images(table)
    excluded: list[dict[str, Any]] = []
    parts: list[pd.DataFrame] = []
    found: set[int] = set()
    bar = tqdm(read_cases(readers), total=len(readers), desc="radiomics", unit="case")
    for name, case in bar:
        if isinstance(case, InputError):
            patient = patients.get(name, name)
            excluded.append(_exclusion(name, patient, None, "row", str(case)))
            continue
        patient = patients.get(name) or case.patient or name
        regions = find_regions(case, components=chosen.components)
        found |= {region.label for region in regions}
        part = _rows(case, patient, regions, chosen, extractor, excluded)
        if part is not None:
            parts.append(part)
    if not parts:
        reason = excluded[0]["reason"] if excluded else "there is no image"
        if found and not found.intersection(chosen.labels or found):
            reason = f"no image has the labels {', '.join(map(str, chosen.labels))}"
        raise InputError(f"{images}: no region has features: {reason}")
    rows = pd.concat(parts, ignore_index=True)
    facts = _facts(chosen, extractor, images, len(readers))
    if missing := [label for label in chosen.labels if label not in found]:
        facts["labels_in_no_image"] = missing
    if absent := sorted(patients.keys() - readers.keys()):
        facts["images_only_in_clinical_table"] = absent
    if table is not None:
        rows = _with_clinical(rows, table, facts)
    _warn(facts)
    return RadiomicsTable(rows, pd.DataFrame(excluded, columns=EXCLUDED, dtype=object), facts)


def _rows(
    case: Case,
    patient: str,
    regions: list[Region],
    options: RadiomicsOptions,
    extractor: DeepExtractor | None,
    excluded: list[dict[str, Any]],
) -> pd.DataFrame | None:
    """Return the rows of a case; `None` without any."""
    if not regions:
        excluded.append(_exclusion(case.name, patient, None, "row", "the mask is empty"))
    elif options.labels:
        regions = [region for region in regions if region.label in options.labels]
        if not regions:
            asked = ", ".join(map(str, options.labels))
            reason = f"the mask has none of the labels {asked}"
            excluded.append(_exclusion(case.name, patient, None, "row", reason))
    usable = []
    for region in regions:
        values = case.values[region.box]
        if values.dtype.kind == "f" and not np.isfinite(values[region.inside]).all():
            reason = "NaN or infinite values inside"
            excluded.append(_exclusion(case.name, patient, region, "row", reason))
        else:
            usable.append(region)
    if not usable:
        return None
    parts = [pd.DataFrame([_region_row(case, patient, region) for region in usable])]
    if options.handcrafted:
        found = _all_handcrafted(case, usable, options)
        for region, (_, reason) in zip(usable, found, strict=True):
            if reason:
                excluded.append(_exclusion(case.name, patient, region, "handcrafted", reason))
        parts.append(pd.DataFrame([features for features, _ in found]))
    if extractor:
        parts.append(pd.DataFrame(extractor(case, usable), columns=extractor.names()))
    return pd.concat(parts, axis=1)


def _region_row(case: Case, patient: str, region: Region) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case.name,
        "patient": patient,
        "label": region.label,
        "name": case.names.get(region.label, str(region.label)),
        "component": region.component,
    } | case.facts
    flat = len(case.values) == 1
    for axis, name in enumerate(("slices", "rows", "columns")):
        known = case.spacing_mm is not None and not (flat and axis == 0)
        step = case.spacing_mm[axis] if known and case.spacing_mm else np.nan
        row[f"spacing_{name}_mm"] = step
        row[f"size_{name}_mm"] = step * region.inside.shape[axis]
    return row | {"voxels": int(region.inside.sum())}


@one_thread  # in each thread
def _all_handcrafted(
    case: Case, regions: list[Region], options: RadiomicsOptions
) -> list[tuple[dict[str, float], str]]:
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(partial(_handcrafted, case, options=options), regions))


def _handcrafted(
    case: Case, region: Region, options: RadiomicsOptions
) -> tuple[dict[str, float], str]:
    """Return the handcrafted features of a region, and why some are missing."""
    spacing, edge = case.spacing_mm, options.resample_mm
    if edge and spacing is None:
        return {}, "the image has no spacing, so it cannot be resampled; leave out resample_mm"
    values, inside = case.values[region.box].astype(np.float32), region.inside
    if edge and spacing:
        grown = tuple(
            slice(max(0, box.start - 1), min(size, box.stop + 1))
            for box, size in zip(region.box, case.values.shape, strict=True)
        )
        around = [
            (box.start - wide.start, wide.stop - box.stop)
            for box, wide in zip(region.box, grown, strict=True)
        ]
        values, inside = resampled(
            case.values[grown],
            np.pad(inside, around),
            start=tuple(wide.start for wide in grown),
            shape=case.values.shape,
            spacing_mm=spacing,
            edge_mm=edge,
        )
        flat = len(case.values) == 1
        spacing = (spacing[0] if flat else edge, edge, edge)
    if len(case.values) > 1 == len(values):  # a region of one slice of a volume is no plane
        values, inside = (np.pad(array, ((0, 1), (0, 0), (0, 0))) for array in (values, inside))
    try:
        return handcrafted_features(values, inside, spacing_mm=spacing, options=options)
    except RuntimeError as error:  # of torch, for what fastrad does not foresee
        return {}, f"fastrad fails: {str(error).splitlines()[0]}"


def _exclusion(
    case: str, patient: str, region: Region | None, what: str, reason: str
) -> dict[str, Any]:
    place = (region.label, region.component) if region else (None, None)
    return dict(zip(EXCLUDED, (case, patient, *place, what, reason), strict=True))


def _read_clinical(path: Path) -> pd.DataFrame:
    """Read the clinical table; patients and images are text."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such CSV file.")
    names = {"patient": str, "image": str}
    try:
        text = decoded_text(path.read_bytes())
        table = pd.read_csv(io.StringIO(text), sep=separator_of(text), dtype=names)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a CSV file that can be read ({error}).") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first column for an index
        raise InputError(f"{path}: rows have more fields than the header; name each column.")
    if "patient" not in table:
        raise InputError(
            f"{path}: the column patient is missing; it has {', '.join(table.columns)}."
        )
    for name in names.keys() & {*table}:
        table[name] = table[name].str.strip().replace("", np.nan)
    if table["patient"].isna().any():
        row = int(table["patient"].isna().argmax()) + 1
        raise InputError(f"{path}: row {row} names no patient; name one, or remove the row.")
    own = table.drop(columns="image", errors="ignore").drop_duplicates()
    if len(twice := own["patient"][own["patient"].duplicated()]):
        raise InputError(f"{path}: patient '{twice.iloc[0]}' has several rows that differ.")
    if "image" in table:
        stems = table["image"].map(lambda name: stem_of(Path(name).name), na_action="ignore")
        table["image"] = stems
        pairs = table[["image", "patient"]].dropna().drop_duplicates()
        if len(shared := pairs["image"][pairs["image"].duplicated()]):
            raise InputError(f"{path}: image '{shared.iloc[0]}' is of several patients.")
    return table


def _patients_of_images(table: pd.DataFrame | None) -> dict[str, str]:
    """Return the patient of each image that the clinical table names."""
    if table is None or "image" not in table:
        return {}
    named = table.dropna(subset=["image", "patient"])
    return dict(zip(named["image"], named["patient"], strict=True))


def _with_clinical(rows: pd.DataFrame, table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    """Return the rows with the clinical columns of their patients."""
    own = table.drop(columns="image", errors="ignore").drop_duplicates().set_index("patient")
    imaged = set(rows["patient"])
    facts["patients_without_region"] = sorted(set(own.index) - imaged)
    facts["patients_without_clinical_row"] = sorted(imaged - set(own.index))
    joined = own.add_prefix("clinical_").reindex(rows["patient"]).reset_index(drop=True)
    first = rows.columns.get_loc("voxels") + 1
    return pd.concat([rows.iloc[:, :first], joined, rows.iloc[:, first:]], axis=1)


def _facts(
    options: RadiomicsOptions, extractor: DeepExtractor | None, images: str, cases: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "images": images,
        "cases": cases,
        "caveat": CAVEATS.get(images, ""),
        "options": options.model_dump(mode="json"),
        "handcrafted": "fastrad, scikit-image; IBSI, 13 directions averaged (4 in a plane)",
        "versions": versions(("fastrad", "scikit-image", "torch", "timm", "openvino")),
        "git": git_revision(),
    }
    if extractor:
        facts |= {
            "backbone": extractor.backbone.name,
            "weights": extractor.backbone.fingerprint,
            "engine": extractor.engine.name,
            "precision": extractor.engine.precision,
        }
    return facts


def _warn(facts: dict[str, Any]) -> None:
    """Name patients and labels without a partner."""
    words = {
        "labels_in_no_image": "labels that no image has",
        "images_only_in_clinical_table": "images of the clinical table that are not there",
        "patients_without_region": "patients of the clinical table without a region",
        "patients_without_clinical_row": "patients without a row in the clinical table",
    }
    for key, what in words.items():
        if named := facts.get(key):
            shown = ", ".join(map(str, named[:5])) + (", ..." if len(named) > 5 else "")
            warnings.warn(f"{len(named)} {what}: {shown}.", stacklevel=3)
