"""What would be read of a file or folder, and what is ignored and why, before anything is read."""

import shlex
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import InputError
from .archives import archive_members
from .dataset import ImageDataset
from .detection import KINDS, Detected, detect
from .dicom.index import DicomIndex
from .folder_layout import masks_beside, visible_files
from .headers import array_headers, member_headers, read_headers
from .registry import load_dataset
from .segmentation import load_segmentation_dataset, volume_segmentation
from .segmentation_dataset import SegmentationDataset
from .studies import LABELS, read_studies

_SHOWN = 6  # values of a line; the others are counted
_UNUSED = {  # why an image is not part of a dataset that could be loaded, by its kind
    "classes": "outside the class folders",
    "list": "not in the list",
    "dicom": "without a label",
}


@dataclass(frozen=True, repr=False)
class Inspection:
    """What would be read of a file or folder; pixels are not decoded.

    Attributes:
        found: What lies there, and its name for other commands.
        dataset: The dataset of that name; `None` if it has none, or cannot be loaded.
        fault: Why it cannot be loaded; empty if it can.
        files: One row per image file that would be read; see `headers.Headers`.
        masks: The same of the masks.
        labels: One row per image of a labelled dataset: path, label, split and group (empty if
            unknown).
        ignored: Path and reason of each other file.
        notes: Warnings.
    """

    found: Detected
    dataset: ImageDataset | SegmentationDataset | None
    fault: str
    files: pd.DataFrame
    masks: pd.DataFrame
    labels: pd.DataFrame
    ignored: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """Whether something would be read."""
        return not self.fault and (self.dataset is not None or len(self.files) > 0)

    def facts(self) -> dict[str, Any]:
        """Return numbers and counts by value, without names of patients; JSON values."""
        files, labels = self.files, self.labels
        images = len(labels) if self.found.kind == "npz" else int(files["images"].sum())
        of_patients = files["patient"] if len(files) and files["patient"].any() else labels["group"]
        types = files["format"] + " " + files["values"]
        sizes = files["height"].astype(str) + " x " + files["width"].astype(str)
        found = {"path": str(self.found.path), "kind": self.found.kind, "name": self.found.name}
        found |= {"fault": self.fault, "hint": self.found.hint}
        return found | {
            "files": len(files),
            "images": images,
            "patients": _distinct(of_patients),
            "studies": _distinct(files["study"]),
            "series": _distinct(files["series"]),
            "formats": _counts(types),
            "sizes": _counts(sizes[files["height"] != ""]),
            "spacings": _counts(files["spacing"]),
            "windows": _counts(files["window"]),
            "modalities": _counts(files["modality"]),
            "masks": _counts(self.masks["format"] + " " + self.masks["values"]),
            "splits": self._splits(),
            "labels": _counts(labels["label"]) if self.found.has_labels else {},
            "labels by split": {
                str(split): _counts(part) for split, part in labels.groupby("split")["label"]
            },
            "repeated names": self._repeated_names(),
            "ignored": _counts(self.ignored["reason"]),
            "notes": list(self.notes),
        }

    def _splits(self) -> dict[str, int]:
        splits = self.dataset.splits if self.dataset else {}
        return {split: len(part) for split, part in splits.items() if split != "all"}

    def _repeated_names(self) -> dict[str, int]:
        """Return the file names that occur in several folders; slices of studies always do."""
        if self.found.kind == "dicom":
            return {}
        counts = Counter(Path(path).name for path in self.files["path"])
        return {name: count for name, count in counts.most_common() if count > 1}

    def __repr__(self) -> str:
        name = self.found.name or KINDS[self.found.kind]
        return f"Inspection({name!r}, {len(self.files)} files, {len(self.ignored)} ignored)"

    def __str__(self) -> str:
        facts = self.facts()
        kind = f"{self.found.path}: {KINDS[self.found.kind]}"
        lines = [
            kind + (f"; its name is {shlex.quote(self.found.name)}" if self.found.name else "")
        ]
        if facts["images"]:
            files = f"{facts['files']:,} file{'s' if facts['files'] > 1 else ''}"
            lines.append(f"  {'images':10} {facts['images']:,} in {files}")
        for key in ("patients", "studies", "series"):
            if facts[key]:
                lines.append(f"  {key:10} {facts[key]:,}")
        for key in ("formats", "sizes", "spacings", "windows", "modalities", "masks", "splits"):
            if facts[key]:
                lines.append(f"  {key:10} {_listed(facts[key])}")
        for label, count in list(facts["labels"].items())[:20]:
            parts = {
                split: facts["labels by split"][split].get(label, 0) for split in facts["splits"]
            }
            shares = f" ({', '.join(f'{split} {n:,}' for split, n in parts.items())})"
            lines.append(f"  {'label':10} {label}: {count:,}{shares if len(parts) > 1 else ''}")
        if len(facts["labels"]) > 20:
            lines.append(f"  {'label':10} and {len(facts['labels']) - 20:,} more")
        if repeated := facts["repeated names"]:
            lines.append(f"  {'names':10} in several folders: {_listed(repeated)}")
        if facts["ignored"]:
            lines.append(f"  {'ignored':10} {_listed(facts['ignored'], shown=20)}")
        lines += [f"  {'note':10} {note}" for note in self.notes]
        if self.fault:
            lines.append(f"cannot be loaded: {self.fault}")
        if self.found.hint:
            lines.append(self.found.hint)
        return "\n".join([*lines, *self._next()])

    def _next(self) -> list[str]:
        """Return what to run then."""
        if not self.is_usable:
            return []
        if self.found.has_masks:
            return [f'next: rd.load_segmentation_dataset("{self.found.name}")']
        if self.found.has_labels:
            return [f"next: radiodino audit {shlex.quote(self.found.name)} --out audit"]
        path = shlex.quote(str(self.found.path))
        return [f"next: radiodino embed {path} --backbone radiodino-mini --out features.csv"]


def inspect(path: str | Path, *, progress: bool = True) -> Inspection:
    """Find out what would be read of a file or folder, by headers only.

    Args:
        path: An image, list, npz file or archive, or a folder of any layout in docs/own-data.md.
        progress: Whether progress bars are shown.

    Returns:
        The inspection; print it, or look at its tables.

    Raises:
        InputError: If there is no such file or folder.
    """
    found = detect(path)
    root = found.path if found.path.is_dir() else found.path.parent
    if found.path.is_dir():
        headers = read_headers(root, visible_files(root), progress=progress)
        files, ignored = headers.files, headers.ignored
        dataset, fault, notes = _load(found, headers.dicom)
    else:
        dataset, fault, notes = _load(found, None)
        files, ignored = _of_file(found, dataset, progress=progress)
    labels = _labels(dataset)
    if unreadable := set(labels["path"]) & set(ignored["path"]):
        notes.append(f"{len(unreadable)} labelled files hold no image, first '{min(unreadable)}'")
    files, masks, unused = _sorted_out(found, files, labels)
    ignored = pd.concat([ignored, unused], ignore_index=True)
    return Inspection(found, dataset, fault, files, masks, labels, ignored, tuple(notes))


def _load(
    found: Detected, index: DicomIndex | None
) -> tuple[ImageDataset | SegmentationDataset | None, str, list[str]]:
    """Return the dataset, or why it cannot be loaded, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            dataset, fault = _loaded(found, index), ""
        except InputError as error:
            dataset, fault = None, str(error)
    return dataset, fault, [str(one.message) for one in caught if one.category is UserWarning]


def _loaded(found: Detected, index: DicomIndex | None) -> ImageDataset | SegmentationDataset | None:
    if found.kind == "dicom":
        labels = found.path / LABELS if found.has_labels else None
        return read_studies(found.path, found.name, labels=labels, slices="all", index=index)
    if found.kind == "volumes" and found.images and found.masks:
        # any window: the percentiles of volumes need their pixels
        return volume_segmentation(found.images, found.masks, window=(0.0, 1.0))
    if found.has_masks:
        return load_segmentation_dataset(found.name, on_error="raise")[0]
    return load_dataset(found.name, on_error="raise") if found.name else None


def _of_file(
    found: Detected, dataset: ImageDataset | SegmentationDataset | None, *, progress: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the image files, and the ignored ones, that a single file stands for."""
    if found.kind == "archive":
        return member_headers(archive_members(found.path))
    if found.kind == "npz":
        return array_headers(dataset if isinstance(dataset, ImageDataset) else None)
    names = _labels(dataset)["path"] if found.kind == "list" else [found.path.name]
    root = found.path.parent
    headers = read_headers(root, [root / name for name in names], progress=progress)
    return headers.files, headers.ignored


def _labels(dataset: ImageDataset | SegmentationDataset | None) -> pd.DataFrame:
    """Return one row per image of a labelled dataset; see `Inspection`."""
    columns = ["path", "label", "split", "group"]
    if not isinstance(dataset, ImageDataset):
        return pd.DataFrame(columns=columns)
    parts = []
    for split, part in dataset.splits.items():
        labels = [dataset.classes[label] for label in part.labels]
        paths = getattr(part.images, "names", part.ids)  # of frames the ids are longer
        groups = part.groups or [""] * len(part)
        values = zip(paths, labels, [split] * len(part), groups, strict=True)
        parts.append(pd.DataFrame(values, columns=columns))
    return pd.concat(parts)


def _sorted_out(
    found: Detected, files: pd.DataFrame, labels: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Separate images, masks, and images that are not part of the dataset."""
    paths = files["path"]
    if found.images and found.masks:
        folders = (f"{found.images.name}/", f"{found.masks.name}/")
        is_image_, is_mask = map(paths.str.startswith, folders)
        reason = f"neither in {folders[0]} nor in {folders[1]}"
    else:
        beside = masks_beside(map(Path, paths))
        is_mask = paths.map(lambda path: Path(path) in beside).astype(bool)
        used = set(labels["path"]) if len(labels) else set(paths)
        is_image_ = ~is_mask & (paths.isin(used) if found.kind in _UNUSED else True)
        reason = _UNUSED.get(found.kind, "")
    unused = pd.DataFrame({"path": paths[~is_image_ & ~is_mask], "reason": reason})
    return files[is_image_], files[is_mask], unused


def _counts(values: pd.Series) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first; empty ones do not count."""
    counts = values.astype(str).str.strip().value_counts()
    return {str(value): int(count) for value, count in counts.items() if value}


def _distinct(values: pd.Series) -> int:
    return len(set(values) - {""})


def _listed(counts: dict[str, int], *, shown: int = _SHOWN) -> str:
    parts = [f"{value} ({count:,})" for value, count in list(counts.items())[:shown]]
    more = f" and {len(counts) - shown:,} more" if len(counts) > shown else ""
    return ", ".join(parts) + more
