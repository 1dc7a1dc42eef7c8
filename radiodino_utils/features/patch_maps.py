"""Patch maps of a segmentation dataset, computed once and kept in a checked file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import cached, entry_path
from ..core.checks import checked_count
from ..core.environment import git_revision, versions
from ..core.errors import InputError
from ..core.files import atomic, features_folder, require_space
from ..core.prefetch import prefetched
from ..data.dataset import images_digest
from ..data.images import reading_threads, stacked
from ..data.segmentation import SegmentationDataset, as_segmentation_datasets
from .chunks import AHEAD
from .dense import dense_backbone
from .engines import TorchEngine, choose_engine, make_engine
from .openvino_engine import OpenVinoEngine

FORMAT = 2


@dataclass(frozen=True, repr=False)
class DenseFeatures:
    """Patch maps of every image of a segmentation dataset.

    Attributes:
        dataset: The dataset.
        backbone: Name of the backbone.
        weights: Fingerprint of the backbone's weights.
        blocks: Numbers of the blocks, from 0.
        size: Edge of the images that the backbone saw, in pixels.
        maps: float16, [n, blocks x width, grid, grid], a memory map.
        path: The file.
        engine: Engine that ran the backbone: torch or openvino.
        precision: Precision of the backbone: fp32, bf16 or fp16; the maps are rounded to float16.
        seen_in_pretraining: See `Prediction`.
    """

    dataset: SegmentationDataset
    backbone: str
    weights: str
    blocks: tuple[int, ...]
    size: int
    maps: np.ndarray
    path: Path
    engine: str = ""
    precision: str = ""
    seen_in_pretraining: str = "not known"

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.maps.shape))
        blocks = f"block{'' if len(self.blocks) == 1 else 's'} {', '.join(map(str, self.blocks))}"
        return f"DenseFeatures({self.dataset.name!r} x {self.backbone!r}, {blocks}, [{shape}])"

    def only(self, blocks: int) -> np.ndarray:
        """Return the maps of the last of the extracted blocks.

        Args:
            blocks: Number of blocks.

        Returns:
            float16, [n, blocks x width, grid, grid].
        """
        width = self.maps.shape[1] // len(self.blocks)
        return self.maps[:, -blocks * width :]


def extract_patch_maps(
    backbone: Backbone | str,
    dataset: SegmentationDataset | str,
    *,
    size: int = 448,
    blocks: tuple[int, ...] = (-1,),
    folder: Path | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 4,
    threads: int | None = None,
) -> DenseFeatures:
    """Compute the patch maps of every image, or map the file that keeps them.

    The file `NAME.npy` is written batch by batch, so that memory holds one batch; a sidecar
    `NAME.json` holds its SHA-256 and what the values depend on, which also names the file. A
    damaged file is recomputed.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`.
        dataset: Registered name (of folds the first one), or a dataset returned by
            `load_segmentation_dataset`; the folds of a dataset share the file.
        size: See `dense_backbone`.
        blocks: See `dense_backbone`.
        folder: Where the files are kept; the data folder's `features` by default.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images per forward pass.
        threads: See `make_engine`.

    Returns:
        The maps, in the order of the dataset.

    Raises:
        InputError: See `dense_backbone`; or if `batch_size` is below 1, an image is smaller than a
            patch, a value is not finite, or the disk is full.
    """
    batch_size = checked_count(batch_size, what="batch_size")
    backbone, dataset = as_backbone(backbone), as_segmentation_datasets(dataset)[0]
    dense = dense_backbone(backbone, size=size, blocks=tuple(blocks))
    engine, precision, device = choose_engine(dense, engine=engine, precision=precision)
    declared = _declared(dense, dataset, engine, precision)
    title = f"{dataset.name.split('-')[0]}_{backbone.name[-40:]}_dense"
    path = entry_path(Path(folder or features_folder()), title, declared=declared, suffix=".npy")

    def make() -> dict[str, Any]:
        runner = make_engine(
            dense, engine=engine, precision=precision, device=device, threads=threads
        )
        _write(path, runner, dense, dataset, batch_size)
        seen = seen_images(backbone.name, dataset.images)
        facts = {"dataset": dataset.name, "unreadable": dict(dataset.unreadable)}
        facts["intensity"] = dataset.intensity
        return facts | {"git": git_revision(), "seen": seen}

    facts = cached(path.with_suffix(".json"), path, declared=declared, make=make)
    return DenseFeatures(
        dataset=dataset,
        backbone=backbone.name,
        weights=backbone.fingerprint,
        blocks=tuple(int(output.rpartition("_")[2]) for output in dense.outputs),
        size=size,
        maps=np.load(path, mmap_mode="r", allow_pickle=False),
        path=path,
        engine=engine,
        precision=precision,
        seen_in_pretraining=_seen(facts["seen"], dataset),
    )


def _declared(
    dense: Backbone, dataset: SegmentationDataset, engine: str, precision: str
) -> dict[str, Any]:
    """Return all that the values depend on."""
    facts = dense.describe()
    names = ("name", "fingerprint", "structure", "preprocessing", "outputs")
    return {
        "format": FORMAT,
        "backbone": {name: facts[name] for name in names},
        "data": dataset.digest,
        "images": len(dataset),
        "held": images_digest(dataset.images),
        "engine": engine,
        "precision": precision,
        "versions": versions(("torch", "timm", "openvino", "pillow")),
    }


def _seen(seen: list[bool] | None, dataset: SegmentationDataset) -> str:
    return seen_in_pretraining(
        {split: seen and [seen[row] for row in rows] for split, rows in dataset.splits.items()}
    )


def _write(
    path: Path,
    engine: TorchEngine | OpenVinoEngine,
    dense: Backbone,
    dataset: SegmentationDataset,
    batch_size: int,
) -> None:
    height, width = (edge // dense.patch_size for edge in dense.preprocessing.shape)
    shape = (len(dataset), dense.embedding_dim, height, width)
    require_space(path.parent, 2 * int(np.prod(shape)))
    with (
        atomic(path) as temporary,
        tqdm(total=len(dataset), desc=f"{dataset.name} × {dense.name}", unit="image") as bar,
    ):
        maps, row = np.lib.format.open_memmap(temporary, "w+", np.float16, shape), 0
        for (batch,) in engine.map(_batches(dataset, dense, batch_size)):
            rows = slice(row, row + len(batch))
            maps[rows] = batch
            if bad := np.flatnonzero(~np.isfinite(maps[rows]).all((1, 2, 3))).tolist():
                raise InputError(
                    f"{dense.name} on {dataset.name}: the patch tokens of "
                    f"'{dataset.ids[row + bad[0]]}' are NaN or infinite; check the weights, or "
                    "extract with precision fp32."
                )
            row += len(batch)
            bar.update(len(batch))
        maps.flush()


def _batches(
    dataset: SegmentationDataset, dense: Backbone, batch_size: int
) -> Iterator[np.ndarray]:
    """Yield resized images, uint8 [n, size, size, 1 or 3]."""

    def read(row: int) -> np.ndarray:
        image = np.asarray(dataset.images[row])
        if min(image.shape[:2]) < dense.patch_size:
            edges = " x ".join(map(str, image.shape[:2]))
            raise InputError(
                f"{dataset.ids[row]}: {edges} pixels are smaller than a patch of "
                f"{dense.patch_size}; leave out the image."
            )
        return dense.preprocessing.fitted(image)

    images = prefetched(
        read,
        range(len(dataset)),
        ahead=AHEAD * batch_size,
        workers=reading_threads(dataset.images),
    )
    while batch := list(islice(images, batch_size)):
        yield stacked(batch)
