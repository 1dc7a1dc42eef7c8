"""Labelled datasets from folders of DICOM studies, as a PACS exports them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.files import files_digest, value_hash
from .dataset import SPLITS, ImageDataset, Split
from .dicom import read_dicom
from .dicom.index import DicomIndex, index_dicom
from .folder_layout import SPLIT_NAMES, visible_files
from .images import LazyImages
from .intensity import Window, parse_window
from .labels import require_distinct_labels
from .open_names import UNLABELLED, OpenName
from .slices import chosen_slices
from .tables import read_table, require_disjoint, require_trained_labels

LABELS = "labels.csv"
KEYS = {
    "path": ("path", "filename", "file"),
    "accession": ("accession", "accessionnumber", "accession_number"),
    "study": ("study", "studyinstanceuid", "study_uid"),
    "patient": ("patient", "patientid", "patient_id", "subject"),
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
    """

    root: Path
    names: Sequence[str]
    frames: Sequence[int]
    window: Window | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Read the frame of a row."""
        return read_dicom(self.root / self.names[row], window=self.window, index=self.frames[row])


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


def read_dicom_studies(opened: OpenName, name: str) -> ImageDataset:
    """Read the studies of an open name such as `dicom:PATH?window=lung&slices=3`.

    Args:
        opened: A folder; the options are `window` (a key of `intensity.WINDOWS`, or a lower and an
            upper value with a comma), `slices` (see `read_studies`) and `labels`: a list in place
            of `labels.csv`, or "unlabelled".
        name: Name of the dataset.

    Returns:
        See `read_studies`.

    Raises:
        InputError: See `read_studies`, or if an option is unknown or has no such value.
    """
    opened.require_options(("window", "slices", "labels"))
    window = parse_window(opened.options["window"]) if "window" in opened.options else None
    labels = None if opened.is_unlabelled else opened.labels or opened.root / LABELS
    slices = opened.options.get("slices", "middle")
    return read_studies(opened.root, name, labels=labels, window=window, slices=slices)


def read_studies(
    root: Path,
    name: str,
    *,
    labels: Path | None,
    window: Window | None = None,
    slices: str = "middle",
    index: DicomIndex | None = None,
) -> ImageDataset:
    """Read a folder of DICOM studies with their labels.

    Args:
        root: Folder of any structure.
        name: Name of the dataset.
        labels: List with the column label, one of path, accession, study and patient (see `KEYS`)
            that says what it is the label of, and optionally split; `None` for no labels.
        window: Window of all images; by default each file's own.
        slices: Which images of a series are taken: `middle`, `all`, or a number of them, evenly
            from the first to the last.
        index: The index of `root`, if it has been made.

    Returns:
        The dataset; groups are patients, by a hash of their id, or of their study without one.
        Images are read when needed.

    Raises:
        InputError: If a folder, a file or a column is missing, a label fits no image, or a patient
            is in two splits.
    """
    images = select_slices((index or index_studies(root)).images, slices)
    images["group"] = _patients(images, root)
    if labels is None:
        table = images.assign(label=UNLABELLED, split="all")
    else:
        table = _labelled(images, labels)
        require_trained_labels(table, labels)
        require_disjoint(table[table["group"] != ""], "group", labels)
    classes = sorted(set(table["label"]))
    splits = {}
    for split in [split for split in (*SPLITS, "all") if split in set(table["split"])]:
        part = table[table["split"] == split]
        numbers = pd.Categorical(part["label"], categories=classes).codes.astype(np.int64)
        frames = part["frame"].tolist()
        ids = [
            f"{path}#{frame}" if total > 1 else path
            for path, frame, total in zip(part["path"], frames, part["frames"], strict=True)
        ]
        groups = part["group"].tolist() if (part["group"] != "").all() else None
        images_of = DicomFrames(root, part["path"].tolist(), frames, window)
        splits[split] = Split(images_of, numbers, ids, groups)
    content = files_digest(root, list(dict.fromkeys(table["path"])))
    rows = table[["path", "frame", "label", "split"]].to_numpy().tolist()
    digest = value_hash([content, window, *rows])
    return ImageDataset(
        name, tuple(classes), splits, digest, unit="patient", groups_from="PatientID"
    )


def _patients(images: pd.DataFrame, root: Path) -> list[str]:
    """Return the patient of each image by a hash; its study, where it names no patient."""
    names = images["patient"].where(images["patient"] != "", images["study"])
    if without := int((images["patient"] == "").sum()):
        warnings.warn(
            f"{root}: {without} images name no patient; their study takes its place.", stacklevel=3
        )
    return [value_hash(name) if name else "" for name in names]


def select_slices(images: pd.DataFrame, slices: str) -> pd.DataFrame:
    """Select images of each series.

    Args:
        images: `DicomIndex.images`.
        slices: See `read_studies`.

    Returns:
        Rows of `images` with the column `frame`, in their order.

    Raises:
        InputError: If `slices` is none of its values.
    """
    rows = images.loc[images.index.repeat(images["frames"])]
    rows = rows.assign(frame=rows.groupby("path", sort=False).cumcount())
    series = rows.groupby(["patient", "study", "series"], sort=False)
    return pd.concat([part.iloc[chosen_slices(len(part), slices)] for _, part in series])


def _labelled(images: pd.DataFrame, source: Path) -> pd.DataFrame:
    """Join images and their labels; add the columns label and split."""
    table = read_table(source, ("label",), synonyms=KEYS | _COLUMNS)
    key = next((key for key in KEYS if key in table), None)
    if key is None:
        raise InputError(f"{source}: has none of the columns {', '.join(KEYS)}; add one.")
    require_distinct_labels(table["label"], source)
    if len(repeated := table[key][table[key].duplicated()]):
        raise InputError(f"{source}: the {key} '{repeated.iloc[0]}' is listed twice.")
    if "split" in table:
        table["split"] = [SPLIT_NAMES.get(name.strip().lower(), name) for name in table["split"]]
    else:
        table["split"] = "all"
    if others := sorted(set(table["split"]) - {*SPLITS, "all"}):
        raise InputError(f"{source}: unknown split '{others[0]}'; known: {', '.join(SPLITS)}.")
    joined = images.merge(table[[key, "label", "split"]], on=key, how="left", validate="m:1")
    if absent := sorted(set(table[key]) - set(images[key])):
        raise InputError(
            f"{source}: {len(absent)} of {len(table)} rows fit no image, first the {key} "
            f"'{absent[0]}'; mend the list."
        )
    if without := int(joined["label"].isna().sum()):
        warnings.warn(f"{source}: {without} images have no label and are left out.", stacklevel=3)
        joined = joined[joined["label"].notna()]
    return joined.reset_index(drop=True)
