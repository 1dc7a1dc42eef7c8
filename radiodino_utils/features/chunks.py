"""Chunks of an extraction, so that it can be resumed and shared by several processes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..core.cache import read_sidecar, write_sidecar
from ..core.errors import InputError
from ..core.files import atomic, make_folder
from ..core.prefetch import prefetched
from ..data.dataset import ImageDataset, Split
from ..data.images import reading_threads, stacked
from .engines import TorchEngine
from .openvino_engine import OpenVinoEngine

CHUNK = 1024  # images that an interruption can lose
AHEAD = 2  # batches that are read while the engine computes


@dataclass(frozen=True)
class Chunk:
    """Rows of a split that are extracted together.

    Attributes:
        split: Name of the split.
        start: First row.
        stop: Row behind the last one.
    """

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def file(self, folder: Path) -> Path:
        """Return the file of the chunk in a folder."""
        return folder / f"{self.split}-{self.start:09d}-{self.stop:09d}.safetensors"


def chunks_of(dataset: ImageDataset) -> list[Chunk]:
    """Cut every split of a dataset into chunks, in dataset order."""
    return [
        Chunk(name, start, min(start + CHUNK, len(split)))
        for name, split in dataset.splits.items()
        for start in range(0, len(split), CHUNK)
    ]


def extract_chunks(
    engine: TorchEngine | OpenVinoEngine,
    backbone: Backbone,
    dataset: ImageDataset,
    chunks: Sequence[Chunk],
    folder: Path,
    *,
    batch_size: int,
) -> None:
    """Write the features of chunks, and the SHA-256 of their images; intact files are kept.

    Args:
        engine: Runs the backbone.
        backbone: Backbone of the engine.
        dataset: Dataset of the chunks.
        chunks: Chunks to extract.
        folder: Folder of the chunk files; created if it is missing.
        batch_size: Images per forward pass.

    Raises:
        InputError: If an image cannot be read, or a feature is NaN or infinite.
    """
    make_folder(folder)
    title = f"{short_name(dataset.name)} × {short_name(backbone.name)}"
    with tqdm(total=sum(map(len, chunks)), desc=title, unit="image") as bar:
        for chunk in chunks:
            file = chunk.file(folder)
            if read_sidecar(file.with_suffix(".json"), file, declared={}) is not None:
                bar.update(len(chunk))
                continue
            hashes: list[np.ndarray] = []
            batches = _batches(dataset.splits[chunk.split], chunk, backbone, batch_size, hashes)
            outputs = []
            for batch_outputs in engine.map(batches):
                outputs.append(batch_outputs)
                bar.update(len(batch_outputs[0]))
            joined = map(np.concatenate, zip(*outputs, strict=True))
            arrays = dict(zip(backbone.outputs, joined, strict=True))
            for name, array in arrays.items():
                _require_finite(array, name, dataset, chunk, backbone)
            with atomic(file) as temporary:
                save_file({**arrays, "sha256": np.array(hashes)}, temporary)
            write_sidecar(file.with_suffix(".json"), file, facts={})


def _batches(
    split: Split, chunk: Chunk, backbone: Backbone, batch_size: int, hashes: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield resized images, uint8 [n, size, size, channels]; append their hashes to `hashes`."""

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.asarray(split.images[row])
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        return np.frombuffer(digest, np.uint8), backbone.preprocessing.fitted(image)

    rows = prefetched(
        read,
        range(chunk.start, chunk.stop),
        ahead=AHEAD * batch_size,
        workers=reading_threads(split.images),
    )
    while batch := list(islice(rows, batch_size)):
        hashes += [digest for digest, _ in batch]
        yield stacked([image for _, image in batch])


def _require_finite(
    array: np.ndarray, output: str, dataset: ImageDataset, chunk: Chunk, backbone: Backbone
) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        first = dataset.splits[chunk.split].ids[chunk.start + bad[0]]
        raise InputError(
            f"{backbone.name} on {dataset.name}: {output} of {len(bad)} images is NaN or infinite, "
            f"first of '{first}'; check the weights, or extract with precision fp32."
        )


def join_chunks(
    chunks: Sequence[Chunk], folder: Path, dataset: ImageDataset, backbone: Backbone
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Read all chunks of a dataset.

    Args:
        chunks: All chunks, see `chunks_of`.
        folder: Folder of their files.
        dataset: Dataset of the chunks.
        backbone: Backbone of the chunks.

    Returns:
        By "SPLIT/OUTPUT" the features, float32 [n, width]; and by split the SHA-256 of the images,
        hexadecimal.
    """
    arrays = {
        f"{name}/{output}": np.empty((len(split), backbone.embedding_dim), np.float32)
        for name, split in dataset.splits.items()
        for output in backbone.outputs
    }
    hashes: dict[str, list[str]] = {name: [] for name in dataset.splits}
    for chunk in chunks:
        part = load_file(chunk.file(folder))
        hashes[chunk.split] += [bytes(digest).hex() for digest in part["sha256"]]
        for output in backbone.outputs:
            arrays[f"{chunk.split}/{output}"][chunk.start : chunk.stop] = part[output]
    return arrays, hashes


def short_name(name: str) -> str:
    """Shorten `file:PATH` to the file's stem and `hub:ORG/NAME` to `NAME`; others stay."""
    kind, _, rest = name.partition(":")
    if kind in ("hub", "timm"):
        return f"{kind}-{Path(rest).name}"
    return f"{kind}-{Path(rest).stem}" if rest else name
