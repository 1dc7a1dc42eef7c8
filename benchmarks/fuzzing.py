"""Damaged files of every format: public functions read them or raise an `InputError`.

Run as a script it damages 2,000 files, prints a table, and fails on any other exception.
"""

import argparse
import gzip
import io
import logging
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import tifffile
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.archives import archive_readers
from radiodino_utils.data.inspection import inspect
from radiodino_utils.data.masks import read_mask
from radiodino_utils.data.reading import count_planes, read_image
from radiodino_utils.data.registry import load_dataset

HEADER = 600  # bytes at the beginning, where half of the damage is done
_DICOM = ("CT_small", "MR_small_RLE", "SC_rgb_jpeg_gdcm", "liver_1frame", "emri_small_jpeg_ls")
_LABELS = "path,label,split,group\n" + "".join(
    f"{n}.png,{'ab'[n % 2]},{('train', 'test')[n // 4]},p{n}\n" for n in range(8)
)


def main() -> None:
    """Damage files, print the table, and exit with 1 if anything but an `InputError` was raised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = fuzz(arguments.count, Path(folder), seed=arguments.seed)
    print(table.to_string(index=False))
    sys.exit(int(table["tracebacks"].sum() > 0))


def fuzz(count: int, folder: Path, *, seed: int = 0) -> pd.DataFrame:
    """Damage files of all formats in turn, and read each by what reads its format.

    Args:
        count: Number of files.
        folder: Empty folder.
        seed: Seed of the damage.

    Returns:
        One row per format, whose first file is whole: files, read (by all functions), refused,
        tracebacks, slowest (seconds) and the last traceback.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    generator = np.random.default_rng(seed)
    originals, rows = _originals(), []
    for number in range(count):
        name, content = originals[number % len(originals)]
        path = folder / f"{number}{name}"
        is_whole = number < len(originals)  # so that what is tried is known to be read
        path.write_bytes(content if is_whole else damaged(content, generator))
        rows.append(_row(path, name))
        path.unlink()
    table = pd.DataFrame(rows).groupby("format", sort=False)
    return table.agg(
        files=("read", "size"),
        read=("read", "sum"),
        refused=("refused", "sum"),
        tracebacks=("tracebacks", "sum"),
        slowest=("seconds", "max"),
        last=("last", "max"),
    ).reset_index()


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Return content that is cut, or has other bytes in its header or anywhere."""
    kind = generator.integers(4)
    if kind == 0:
        return content[: generator.integers(len(content))]
    result = bytearray(content)
    end = min(HEADER, len(content)) if kind < 3 else len(content)
    for position in generator.integers(0, end, generator.integers(1, 6)):
        result[position] = generator.integers(256)
    return bytes(result)


def _row(path: Path, name: str) -> dict[str, object]:
    """Return what becomes of a damaged file in all functions that read its format."""
    row = {"format": name, "read": 0, "refused": 0, "tracebacks": 0, "last": ""}
    start = time.perf_counter()
    for function in _READERS.get(path.suffix, (read_image, _mask, count_planes, _inspected)):
        try:
            function(path)
        except InputError:
            row["refused"] = 1
        except Exception:
            row["tracebacks"] = 1
            row["last"] = traceback.format_exc(limit=-3)
    row["read"] = int(not (row["refused"] or row["tracebacks"]))
    return row | {"seconds": time.perf_counter() - start}


def _mask(path: Path) -> None:
    read_mask(path, index=0)


def _inspected(path: Path) -> None:
    str(inspect(path, progress=False))


def _list(path: Path) -> None:
    for number in range(8):
        Image.new("L", (8, 8), number).save(path.with_name(f"{number}.png"))
    dataset = load_dataset(f"folder:{path}")
    _ = [image for split in dataset.splits.values() for image in split.images]


def _npz(path: Path) -> None:
    dataset = load_dataset(f"npz:{path}")
    _ = [np.asarray(image) for split in dataset.splits.values() for image in split.images]


def _archive(path: Path) -> None:
    for _, read in archive_readers(path):
        read()


_READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    ".csv": (_list,),
    ".npz": (_npz,),
    ".zip": (_archive,),
    ".tar": (_archive,),
    ".tgz": (_archive,),
}


def _originals() -> list[tuple[str, bytes]]:
    """Return suffix and content of whole files of every format."""
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (24, 20), np.uint8)
    files = [("-list.csv", _LABELS.encode())]
    for suffix in ("png", "jpg", "tif", "gif", "bmp", "webp"):
        files.append((f".{suffix}", _saved(grey, suffix)))
    for values in (grey.astype(np.float64), grey.astype(np.uint32), np.stack([grey] * 3, -1)):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values)
        files.append((f"-{values.dtype}.tif", buffer.getvalue()))
    volume = nibabel.Nifti1Image(generator.integers(0, 9, (9, 8, 7)).astype(np.int16), np.eye(4))
    files.append((".nii", volume.to_bytes()))
    packed = gzip.compress(volume.to_bytes(), mtime=0)
    files.append((".nii.gz", packed))
    data = Path(pydicom.__file__).parent / "data" / "test_files"
    for name in _DICOM:
        path = next(iter(sorted(data.glob(f"{name}*.dcm"))), None)
        if path is not None:
            files.append((f"-{name}.dcm", path.read_bytes()))
    members = [
        ("a/1.png", _saved(grey, "png")),
        ("b/2.nii.gz", gzip.compress(volume.to_bytes(), mtime=0)),
    ]
    files += [(".zip", _zipped(members)), (".tar", _tarred(members, "w"))]
    return [*files, (".tgz", _tarred(members, "w:gz")), (".npz", _arrays(grey))]


def _saved(values: np.ndarray, suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix))
    return buffer.getvalue()


def _zipped(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _tarred(members: list[tuple[str, bytes]], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _arrays(grey: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    arrays = {}
    for split in ("train", "val", "test"):
        arrays |= {f"{split}_images": np.stack([grey] * 3), f"{split}_labels": np.array([0, 1, 1])}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
