"""Labelled datasets from folders of DICOM studies, as a PACS exports them."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core.errors import InputError
from ..core.files import files_digest, value_hash
from .dataset import SPLITS, ImageDataset, Split
from .dicom import read_dicom, read_dicom_values
from .dicom.index import DicomIndex, index_dicom
from .folder_layout import split_of, visible_files
from .folders import SYNONYMS
from .images import LazyImages
from .intensity import OPTIONS, Percentiles, Rule, Window, limits, parse_rule, rule_text
from .labels import parse_renames, renamed_labels
from .open_names import UNLABELLED, OpenName
from .readability import caveat_without, require_few, unreadable_images, without_unreadable
from .slices import chosen_slices
from .tables import completed_names, read_table, require_disjoint, require_trained_labels

LABELS = "labels.csv"
SAMPLED = 32  # greatest number of slices of a series whose percentiles are taken
KEYS = {
    "path": ("path", "filename", "file"),
    "accession": ("accession", "accessionnumber", "accession_number"),
    "study": ("study", "studyinstanceuid", "study_uid"),
    "patient": SYNONYMS["patient"],
}
_COLUMNS = {"label": ("label", "class", "diagnosis"), "split": ("split", "subset")}


@dataclass(frozen=True)
class DicomFrames(LazyImages):
    """Frames of DICOM files as a sequence of uint8 arrays, each read when it is needed.

    Attributes:
        root: Folder that contains the files.
        names: Paths of the files in `root`.
        frames: Number of the frame of each, from 0.
        window: See `dicom.read_dicom`.
        windows: Window of each row; empty if `window` is that of all.
    """

    root: Path
    names: Sequence[str]
    frames: Sequence[int]
    window: Rule | None = None
    windows: tuple[Window, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Read the frame of a row."""
        window = self.windows[row] if self.windows else self.window
        return read_dicom(self.root / self.names[row], window=window, index=self.frames[row])


def index_studies(root: str | Path, *, progress: bool = True) -> DicomIndex:
    """Index the DICOM images of a folder and its subfolders; see `dicom.index.index_dicom`.

    Raises:
        InputError: If there is no such folder, or it holds no DICOM image.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder.")
    index = index_dicom(root, visible_files(root), progress=progress)
    if index.images.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in index.reasons().items())
        raise InputError(f"{root}: holds no DICOM images ({reasons or 'it is empty'}).")
    return index


def read_dicom_studies(
    opened: OpenName, name: str, *, tolerated: float | None = None
) -> ImageDataset:
    """Read the studies of an open name such as `dicom:PATH?window=lung&slices=3`.

    Args:
        opened: A folder; the options are `window`, `percentile` and `over` (see
            `intensity.parse_rule`), `slices` (see `read_studies`) and `labels`: a list in place of
            `labels.csv`, or "unlabelled"; and `rename` (see `labels.parse_renames`).
        name: Name of the dataset.
        tolerated: See `read_studies`.

    Returns:
        See `read_studies`.

    Raises:
        InputError: See `read_studies`, or if an option is unknown or has no such value.
    """
    opened.require_options((*OPTIONS, "slices", "labels", "rename"))
    rule = parse_rule(opened.options, over=("image", "volume"))
    labels = None if opened.is_unlabelled else opened.labels or opened.root / LABELS
    slices = opened.options.get("slices", "middle")
    return read_studies(
        opened.root,
        name,
        labels=labels,
        window=rule,
        slices=slices,
        renames=parse_renames(opened.options.get("rename", "")),
        tolerated=tolerated,
    )


def read_studies(
    root: Path,
    name: str,
    *,
    labels: Path | None,
    window: Rule | None = None,
    slices: str = "middle",
    renames: Mapping[str, str] | None = None,
    index: DicomIndex | None = None,
    tolerated: float | None = None,
) -> ImageDataset:
    """Read a folder of DICOM studies with their labels.

    Args:
        root: Folder of any structure.
        name: Name of the dataset.
        labels: List with the column label, one of path (or file name), accession, study and
            patient (see `KEYS`) that says what it is the label of, and optionally split; `None` for
            no labels.
        window: Intensity rule of all images; by default each file's own window. Percentiles over
            the volume are those of `SAMPLED` slices of the series.
        slices: Which images of a series, or of each file that has a label of its own, are taken:
            `middle`, `all`, or a number of them, evenly from the first to the last.
        renames: New name of labels.
        index: The index of `root`, if it has been made.
        tolerated: Share of images that are left out if they cannot be read; `None` reads nothing
            ahead.

    Returns:
        The dataset; groups are patients, by a hash of their id, or of their study without one.
        Images are read when needed.

    Raises:
        InputError: If a folder, a file or a column is missing, a label fits no image, a patient is
            in two splits, or too many images cannot be read.
    """
    index = index or index_studies(root)
    unreadable = _damaged(index, root, tolerated)
    paths = index.images["path"]
    listed = None if labels is None else _listed(labels, paths, renames or {})
    of_files = listed is not None and "path" in listed
    images = select_slices(index.images, slices, of_files=of_files)
    if isinstance(window, Percentiles) and window.over == "volume":
        images["window"] = _series_windows(images, index.images, root, window)
    images["group"] = _patients(images, root)
    if labels is None or listed is None:
        table = images.assign(label=UNLABELLED, split="all")
    else:
        table, unmatched = _joined(images, listed, labels, tolerated=len(unreadable))
        unreadable |= dict.fromkeys(unmatched, "fits no image that can be read")
        require_trained_labels(table, labels)
        require_disjoint(table[table["group"] != ""], "group", labels)
    classes, total = sorted(set(table["label"])), len(table) + len(unreadable)
    if tolerated is not None:
        frames = _frames(table, root, window)
        files = [root / path for path in frames.names]
        undecodable = unreadable_images(
            frames.read, table["id"].tolist(), files=files, facts=[frames.frames, rule_text(window)]
        )
        table = without_unreadable(table, undecodable, source=root, share=tolerated)
        unreadable |= undecodable
    splits = {}
    for split in [split for split in (*SPLITS, "all") if split in set(table["split"])]:
        part = table[table["split"] == split]
        numbers = pd.Categorical(part["label"], categories=classes).codes.astype(np.int64)
        groups = part["group"].tolist() if (part["group"] != "").all() else None
        splits[split] = Split(_frames(part, root, window), numbers, part["id"].tolist(), groups)
    content = files_digest(root, list(dict.fromkeys(table["path"])))
    rows = table[["path", "frame", "label", "split"]].to_numpy().tolist()
    rule = window if isinstance(window, tuple | None) else str(window)
    return ImageDataset(
        name,
        tuple(classes),
        splits,
        value_hash([content, rule, *rows]),
        caveat_without(unreadable, total),
        unit="patient",
        groups_from="PatientID",
        unreadable=unreadable,
        intensity=rule_text(window),
    )


def _frames(table: pd.DataFrame, root: Path, window: Rule | None) -> DicomFrames:
    names, frames = table["path"].tolist(), table["frame"].tolist()
    of_series = isinstance(window, Percentiles) and window.over == "volume"
    return DicomFrames(root, names, frames, window, tuple(table["window"]) if of_series else ())


def _damaged(index: DicomIndex, root: Path, tolerated: float | None) -> dict[str, str]:
    """Return the files without a readable header, after checking that they are few."""
    if tolerated is None:
        return {}
    paths, reasons = index.ignored["path"], index.ignored["reason"]
    is_cut = reasons.eq("not DICOM") & paths.str.lower().str.endswith(".dcm")
    damaged = paths[reasons.eq("damaged") | is_cut].tolist()
    unreadable = dict.fromkeys(damaged, "the header is damaged")
    require_few(unreadable, len(index.images) + len(damaged), source=root, share=tolerated)
    return unreadable


def _patients(images: pd.DataFrame, root: Path) -> list[str]:
    """Return the patient of each image by a hash; its study, where it names no patient."""
    names = images["patient"].where(images["patient"] != "", images["study"])
    if without := int((images["patient"] == "").sum()):
        warnings.warn(
            f"{root}: {without} images name no patient; their study takes its place.", stacklevel=3
        )
    return [value_hash(name) if name else "" for name in names]


def _series_windows(
    images: pd.DataFrame, everything: pd.DataFrame, root: Path, rule: Percentiles
) -> list[Window]:
    """Return the window of each row, from `SAMPLED` slices of its series."""
    keys = ["patient", "study", "series"]
    wanted = set(images[keys].itertuples(index=False, name=None))
    sampled = select_slices(everything, str(SAMPLED))
    found = {}
    groups = [group for group in sampled.groupby(keys, sort=False) if group[0] in wanted]
    for series, part in tqdm(groups, desc="reading series", unit="series"):
        values = [np.zeros(0)]
        for path, frame in zip(part["path"], part["frame"], strict=True):
            with suppress(InputError):  # it is refused when it is needed
                values.append(read_dicom_values(root / path, index=frame))
        found[series] = limits(np.concatenate(values), rule)
    return [found[series] for series in images[keys].itertuples(index=False, name=None)]


def select_slices(images: pd.DataFrame, slices: str, *, of_files: bool = False) -> pd.DataFrame:
    """Select images of each series.

    Args:
        images: `DicomIndex.images`.
        slices: See `read_studies`.
        of_files: Whether they are selected of each file instead, as files have labels of their own.

    Returns:
        Rows of `images` with the columns `frame` and `id`, in their order.

    Raises:
        InputError: If `slices` is none of its values.
    """
    rows = images.loc[images.index.repeat(images["frames"])]
    rows = rows.assign(frame=rows.groupby("path", sort=False).cumcount())
    keys = ["path"] if of_files else ["patient", "study", "series"]
    parts = rows.groupby(keys, sort=False)
    rows = pd.concat([part.iloc[chosen_slices(len(part), slices)] for _, part in parts])
    numbered = rows["path"] + "#" + rows["frame"].astype(str)
    return rows.assign(id=rows["path"].where(rows["frames"] == 1, numbered))


def _listed(source: Path, paths: pd.Series, renames: Mapping[str, str]) -> pd.DataFrame:
    """Read a list of labels.

    Args:
        source: The list.
        paths: Path of each image, which a list may name by the file name alone.
        renames: See `read_studies`.

    Returns:
        One of the columns `KEYS`, label and split.
    """
    table = read_table(source, ("label",), synonyms=KEYS | _COLUMNS)
    key = next((key for key in KEYS if key in table), None)
    if key is None:
        raise InputError(f"{source}: has none of the columns {', '.join(KEYS)}; add one.")
    if key == "path":
        table[key] = completed_names(table[key], paths, source)
    table["label"] = renamed_labels(table["label"], renames, source)
    if len(repeated := table[key][table[key].duplicated()]):
        raise InputError(f"{source}: the {key} '{repeated.iloc[0]}' is listed twice.")
    if "split" in table:
        table["split"] = [split_of(name) or name for name in table["split"]]
    else:
        table["split"] = "all"
    if others := sorted(set(table["split"]) - {*SPLITS, "all"}):
        raise InputError(f"{source}: unknown split '{others[0]}'; known: {', '.join(SPLITS)}.")
    return table[[key, "label", "split"]]


def _joined(
    images: pd.DataFrame, table: pd.DataFrame, source: Path, *, tolerated: int
) -> tuple[pd.DataFrame, list[str]]:
    """Join images and their labels.

    Args:
        images: Result of `select_slices`.
        table: Result of `_listed`.
        source: The list, for messages.
        tolerated: How many of its rows may fit no image.

    Returns:
        The images with the columns label and split, and the rows that fit none.
    """
    key = table.columns[0]
    joined = images.merge(table, on=key, how="left", validate="m:1")
    absent = sorted(set(table[key]) - set(images[key]))
    if len(absent) > tolerated:
        raise InputError(
            f"{source}: {len(absent)} of {len(table)} rows fit no image, first the {key} "
            f"'{absent[0]}'; mend the list."
        )
    if without := int(joined["label"].isna().sum()):
        warnings.warn(f"{source}: {without} images have no label and are left out.", stacklevel=3)
        joined = joined[joined["label"].notna()]
    return joined.reset_index(drop=True), [f"{key} {value}" for value in absent]
