"""What would be read of a file or folder: formats, sizes, patients, series, and what is ignored."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..core.errors import InputError
from .dicom import is_dicom, read_header
from .dicom.index import DicomIndex, index_dicom
from .folder_layout import visible_files
from .images import as_grey
from .reading import SUFFIXES, read_image

_COLUMNS = ["path", "format", "height", "width", "images", "values", "spacing mm", "window"]
TILE = 128  # edge of an image on a contact sheet, in pixels


@dataclass(frozen=True, repr=False)
class Inspection:
    """Headers of the files of a folder; pixels are not read.

    Attributes:
        root: The folder.
        files: One row per image file: path, format, height, width, images (frames, slices or
            pages), values (type or colour mode), spacing in mm and the file's own window, both
            empty if unknown.
        dicom: Index of the DICOM files: patients, studies, series.
        ignored: Path and reason of each other file.
    """

    root: Path
    files: pd.DataFrame
    dicom: DicomIndex
    ignored: pd.DataFrame

    def __repr__(self) -> str:
        return (
            f"Inspection({str(self.root)!r}, {len(self.files)} files, {len(self.ignored)} ignored)"
        )

    def __str__(self) -> str:
        images = self.dicom.images
        counts = {name: images[name].nunique() for name in ("patient", "study", "series")}
        lines = [f"{self.root}: {len(self.files)} image files, {len(self.ignored)} others"]
        if len(images):
            lines.append(", ".join(f"{name}: {count}" for name, count in counts.items()))
        lines.append(self.summary().to_string(index=False))
        if len(self.ignored):
            lines.append("ignored: " + self.ignored["reason"].value_counts().to_string())
        return "\n".join(lines)

    def summary(self) -> pd.DataFrame:
        """Return one row per format, size and type of values: number of files and of images."""
        keys = ["format", "height", "width", "values", "spacing mm", "window"]
        grouped = self.files.groupby(keys, sort=False)["images"]
        table = grouped.agg(files="count", images="sum").reset_index()
        return table.sort_values("files", ascending=False, kind="stable").reset_index(drop=True)


def inspect_folder(path: str | Path, *, progress: bool = True) -> Inspection:
    """Read the headers of a file, or of all files in a folder, whatever their names.

    Args:
        path: The file or folder.
        progress: Whether progress bars are shown.

    Returns:
        The inspection; print it, or look at its tables.

    Raises:
        InputError: If there is no such file or folder.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    root = path if path.is_dir() else path.parent
    files = list(visible_files(path)) if path.is_dir() else [path]
    of_dicom = [file for file in files if is_dicom(file)]
    index = index_dicom(root, of_dicom, progress=progress)
    rows = [_dicom_row(root, row) for row in index.images.to_dict("records")]
    ignored = index.ignored.to_dict("records")
    others = sorted(set(files) - set(of_dicom))
    for file in tqdm(others, desc="reading files", unit="file", disable=not progress):
        name = file.relative_to(root).as_posix()
        if not file.name.lower().endswith(SUFFIXES):
            ignored.append({"path": name, "reason": f"no image ({file.suffix or 'no suffix'})"})
            continue
        try:
            rows.append({"path": name} | _row(file))
        except Exception as error:  # decoders of damaged files raise anything
            ignored.append({"path": name, "reason": f"damaged ({type(error).__name__})"})
    return Inspection(
        root,
        pd.DataFrame(rows, columns=_COLUMNS),
        index,
        pd.DataFrame(ignored, columns=["path", "reason"]),
    )


def contact_sheet(inspection: Inspection, *, count: int = 48, columns: int = 8) -> Image.Image:
    """Return small images of files, evenly from the first to the last; unreadable ones are black.

    Args:
        inspection: Result of `inspect_folder`.
        count: Greatest number of images.
        columns: Images in a row.

    Raises:
        InputError: If there is no image.
    """
    paths = inspection.files["path"].tolist()
    if not paths:
        raise InputError(f"{inspection.root}: holds no images to show.")
    rows = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
    sheet = Image.new("L", (columns * TILE, -(-len(rows) // columns) * TILE))
    for place, tile in enumerate(_tiles(inspection.root / paths[row] for row in rows)):
        left, top = place % columns * TILE, place // columns * TILE
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
    return sheet


def _tiles(paths: Iterable[Path]) -> Iterable[Image.Image]:
    for path in paths:
        try:
            tile = Image.fromarray(as_grey(read_image(path)))
        except InputError:
            tile = Image.new("L", (TILE, TILE))
        tile.thumbnail((TILE, TILE))
        yield tile


def _dicom_row(root: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a DICOM file from its row of the index."""
    header = read_header(root / row["path"])
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or []
    ends = [header.get(keyword) for keyword in ("WindowCenter", "WindowWidth")]
    window = "" if None in ends else " / ".join(str(np.atleast_1d(end)[0]) for end in ends)
    return {
        "path": row["path"],
        "format": f"DICOM {row['modality']}".strip(),
        "height": row["height"],
        "width": row["width"],
        "images": row["frames"],
        "values": f"{header.get('PhotometricInterpretation', '')} {header.get('BitsStored', '')}",
        "spacing mm": " x ".join(f"{float(step):g}" for step in spacing),
        "window": window,
    }


def _row(path: Path) -> dict[str, Any]:
    """Return the row of a NIfTI file or of a photographic format."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        import nibabel

        image: Any = nibabel.as_closest_canonical(nibabel.load(path))
        width, height, slices = (*image.shape[:3], 1)[:3]
        spacing = " x ".join(f"{float(step):g}" for step in image.header.get_zooms()[:3])
        values = str(image.get_data_dtype())
        facts = {"format": "NIfTI", "images": slices, "values": values, "spacing mm": spacing}
        return facts | {"height": height, "width": width, "window": ""}
    with Image.open(path) as opened:
        facts = {"format": opened.format, "images": getattr(opened, "n_frames", 1)}
        facts |= {"height": opened.height, "width": opened.width, "values": opened.mode}
        opened.verify()
    return facts | {"spacing mm": "", "window": ""}
