"""How many DICOM files are read, refused, or differ from pydicom, by transfer syntax.

The files are pydicom's own: those that its wheel carries, and those of the package `pydicom-data`
where it is installed. Writes `input_formats.csv` beside this file.
"""

import logging
import warnings
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dicom import read_dicom

TOLERANCE = 3  # grey levels


def main() -> None:
    """Read each file and write the table."""
    warnings.simplefilter("ignore")
    logging.disable()
    rows = [row for path in _files() if (row := _row(path))]
    table = pd.DataFrame(rows).groupby("transfer syntax").sum()
    table.loc["all"] = table.sum()
    table.to_csv(Path(__file__).with_suffix(".csv"))
    print(table.to_string())


def _files() -> list[Path]:
    roots = [Path(pydicom.__file__).parent / "data" / "test_files"]
    if (data := util.find_spec("data_store")) and data.origin:
        roots.append(Path(data.origin).parent / "data")
    return [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]


def _row(path: Path) -> dict[str, Any] | None:
    """Return what becomes of a file with pixel data; `None` for other files."""
    try:
        header = pydicom.dcmread(path, force=True)
    except Exception:
        return None
    if "PixelData" not in header or header.get("Modality") == "SEG":
        return None
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID") or "missing"
    counts = dict.fromkeys(("files", "read", "refused", "tracebacks", "differ"), 0) | {"files": 1}
    try:
        image = read_dicom(path)
        counts["read"] = 1
        counts["differ"] = int(_difference(image, header) > TOLERANCE)
    except InputError:
        counts["refused"] = 1
    except Exception:
        counts["tracebacks"] = 1
    return {"transfer syntax": getattr(syntax, "name", syntax)} | counts


def _difference(image: np.ndarray, header: pydicom.Dataset) -> float:
    """Return the greatest difference to pydicom's functions, in grey levels; 0 if they fail."""
    try:
        pixels = header.pixel_array
        if int(header.get("NumberOfFrames") or 1) > 1:
            pixels = pixels[len(pixels) // 2]
        if header.PhotometricInterpretation == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, header)
        elif pixels.ndim == 2:
            pixels = apply_voi_lut(apply_rescale(pixels, header), header)
    except Exception:
        return 0.0
    if pixels.ndim == 3:
        return float(np.abs(image - pixels / np.iinfo(pixels.dtype).max * 255).max())
    if not header.get("WindowWidth"):
        return 0.0
    signed, bits = header.PixelRepresentation, header.BitsStored
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = sorted(apply_rescale(ends, header))
    levels = (pixels - low) / (high - low) * 255
    levels = 255 - levels if header.PhotometricInterpretation == "MONOCHROME1" else levels
    return float(np.abs(image - levels).max())


if __name__ == "__main__":
    main()
