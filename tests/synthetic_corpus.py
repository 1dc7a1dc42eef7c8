"""Synthetic radiology: discs, bars and rings, and the smallest configuration that trains."""

import io

import numpy as np
from PIL import Image

from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source

SMALLEST = {
    "global_size": 32, "local_size": 16, "local_count": 2, "batch_size": 8, "hidden_dim": 32,
    "bottleneck_dim": 16, "output_dim": 64, "steps": 6, "warmup": 0.2,
}  # fmt: skip


def synthetic_images(count, *, size=48, seed=0):
    """Return images of three kinds, uint8 [count, size, size], and the kind of each."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    kinds = np.arange(count) % 3
    images = []
    for kind in kinds:
        y, x, r = (
            generator.uniform(0.35, 0.65) * size,
            generator.uniform(0.35, 0.65) * size,
            generator.uniform(0.15, 0.3) * size,
        )
        distance = np.hypot(rows - y, columns - x)
        shape = (distance < r, np.abs(columns - x) < r / 2, np.abs(distance - r) < r / 4)[kind]
        images.append(
            np.clip(60 + 120 * shape + generator.normal(0, 12, (size, size)), 0, 255).astype(
                np.uint8
            )
        )
    return np.stack(images), kinds


def synthetic_folder(folder, count=12, **options):
    """Write images as PNG files in two subfolders."""
    for row, image in enumerate(synthetic_images(count, **options)[0]):
        path = folder / ("even", "odd")[row % 2] / f"{row:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def synthetic_corpus(folder, count=12, **options):
    """Return a corpus of a `synthetic_folder`."""
    return load_corpus([Source(synthetic_folder(folder / "images", count, **options))])


def smallest(**changes):
    """Return the smallest configuration that trains."""
    method = changes.pop("method", "dino")
    return load_config("small", method=method, images=12, **SMALLEST | changes)


def synthetic_npz(path, counts=(30, 12, 12), *, seed=7):
    """Write a labelled dataset in MedMNIST's layout."""
    arrays = {}
    for number, (split, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        images, kinds = synthetic_images(count, seed=seed + number)
        arrays |= {f"{split}_images": images, f"{split}_labels": kinds[:, None].astype(np.uint8)}
    np.savez(path, **arrays)
    return path


def as_bytes(image, kind="png"):
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()
