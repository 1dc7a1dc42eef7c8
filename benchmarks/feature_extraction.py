"""Time feature extraction beside the loop of the public example notebook and the bare engine.

    python benchmarks/feature_extraction.py [--images N] [--rounds N] [--backbones random-t16 ...]
                                            [--out FILE.csv]

Every round runs each way once on the same images, so that other load of the machine affects all of
them alike:

1. `public`: fp32 eager torch, a DataLoader, one torchvision transform per image (resize, ToTensor,
   Normalize).
2. `ours`: `extract_features` into a fresh folder, from call to return: hashes, resizing, engine,
   files and check.
3. `engine`: the engine of ours, on prepared uint8 batches, without reading and writing.

Models are built before the clock starts in all three. The set-up of the engine, done once per
process, has a column of its own.
"""

import argparse
import platform
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from radiodino_utils.backbones.backbone import Backbone
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.environment import cpu_count, git_revision, set_threads, versions
from radiodino_utils.data.registry import ImageDataset, Split, load_dataset
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.features.engines import make_engine
from radiodino_utils.features.extraction import extract_features

BATCH = 16


class TransformedImages(Dataset):
    """Images with the public example's transform, one at a time."""

    def __init__(self, images: np.ndarray, backbone: Backbone) -> None:
        how = backbone.preprocessing
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.Resize((how.size, how.size)),
                transforms.ToTensor(),
                transforms.Normalize(how.mean, how.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.fromarray(self.images[index]).convert("RGB"))


def public_loop(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """The loop of the public example notebook."""
    loader = DataLoader(TransformedImages(images, backbone), batch_size=BATCH, num_workers=0)
    with torch.no_grad():
        return np.concatenate([backbone.model(batch).numpy() for batch in loader])


def our_extraction(backbone: Backbone, dataset: ImageDataset) -> np.ndarray:
    """The package's extraction, nothing cached."""
    with tempfile.TemporaryDirectory() as folder:
        return extract_features(backbone, dataset, folder=Path(folder), batch_size=BATCH).embedding(
            "all"
        )


def bare_engine(engine, batches: list[np.ndarray]) -> np.ndarray:
    """The engine alone."""
    return np.concatenate([outputs[0] for outputs in engine.map(batches)])


def time_backbone(name: str, dataset: ImageDataset, rounds: int) -> dict:
    """Return images per second of each way and their ratios, medians over the rounds."""
    backbone, images = load_backbone(name), np.asarray(dataset.splits["all"].images)
    batches = [images[start : start + BATCH, ..., None] for start in range(0, len(images), BATCH)]
    start = time.perf_counter()
    engine = make_engine(backbone)
    set_up = time.perf_counter() - start
    ways = {
        "public": lambda: public_loop(backbone, images),
        "ours": lambda: our_extraction(backbone, dataset),
        "engine": lambda: bare_engine(engine, batches),
    }
    bare_engine(engine, batches[:2])
    speeds = []
    for round_ in range(rounds):
        speeds.append({})
        results = {}
        for way, run in ways.items():
            start = time.perf_counter()
            results[way] = run()
            speeds[-1][way] = len(images) / (time.perf_counter() - start)
        print(
            f"{name} round {round_ + 1}: "
            + ", ".join(f"{way} {speed:.1f}/s" for way, speed in speeds[-1].items()),
            flush=True,
        )
    cosine = {way: _least_cosine(results["public"], results[way]) for way in ("ours", "engine")}
    if min(cosine.values()) < 0.9995:
        raise SystemExit(f"{name}: the ways disagree with each other: {cosine}")
    speeds = pd.DataFrame(speeds)
    return {
        "backbone": name,
        "n": len(images),
        "rounds": rounds,
        **{f"{way}_images_per_s": value for way, value in speeds.median().items()},
        "ours_to_public": (speeds["ours"] / speeds["public"]).median(),
        "ours_to_engine": (speeds["ours"] / speeds["engine"]).median(),
        "engine": f"{engine.name} {engine.precision}",
        "engine_set_up_s": set_up,
        "cosine_to_public": cosine["ours"],
    }


def _least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(
        ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min()
    )


def machine() -> dict:
    """The processor, its flags that matter, versions and revision."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", facts)
    flags = sorted(
        set(re.findall(r"\b(?:avx2|avx512f|avx512_bf16|avx512_vnni|amx_bf16|amx_tile)\b", facts))
    )
    return {
        "processor": model[1] if model else platform.processor(),
        "flags": " ".join(flags),
        "threads": cpu_count(),
        **{
            name: version
            for name, version in versions(
                ("torch", "torchvision", "timm", "openvino", "numpy", "pillow")
            ).items()
        },
        "git": git_revision(),
    }


def main() -> None:
    """Runs the benchmark and writes its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=96, help="how many images of organct-axial (it has 1440)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--backbones", nargs="+", default=["random-t16", "random-s16", "random-b16"]
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    set_threads()
    source = load_dataset("organct-axial")
    images = np.concatenate([split.images for split in source.splits.values()])[: options.images]
    part = Split(images, np.zeros(len(images), np.int64), [str(row) for row in range(len(images))])
    dataset = ImageDataset("organct-axial", source.classes, {"all": part}, source.digest)
    facts = machine()
    rows = []
    for name in options.backbones:
        rows.append(time_backbone(name, dataset, options.rounds) | facts)
        write_table(
            table := pd.DataFrame(rows).round(3), options.out
        )  # what is done is kept if a later one is interrupted
    print(table[["backbone", "n", "ours_to_public", "ours_to_engine"]].to_string(index=False))


if __name__ == "__main__":
    main()
