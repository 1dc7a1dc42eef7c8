"""Patch maps: the patch tokens of chosen blocks for every image, computed once and kept in a checked file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ..backbones.loading import (
    Backbone,
    Pixels,
    as_backbone,
    at_size,
    is_convolutional,
    require_multiple,
)
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import kept
from ..core.environment import git_revision, versions
from ..core.errors import InputError
from ..core.files import atomic, features_folder, require_space, value_hash
from ..data.dataset import images_digest
from ..data.images import stacked
from ..data.segmentation import SegmentationDataset
from .engines import OpenVinoEngine, TorchEngine, choose_engine, make_engine

FORMAT = 2
PIXELS_PATCH = 16  # edge of the patches that `pixels` is cut into


class PatchMaps(nn.Module):
    """The normalised patch tokens of chosen blocks on their grid, one block behind the other.

    Args:
        model: A timm vision transformer.
        blocks: Numbers of the blocks.
    """

    def __init__(self, model: nn.Module, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.blocks = model, list(blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turns [n, 3, size, size] into [n, blocks x width, grid, grid]."""
        return torch.cat(
            self.model.forward_intermediates(
                images, self.blocks, norm=True, intermediates_only=True
            ),
            1,
        )


class StageMaps(nn.Module):
    """The map of a stage of a convolutional network.

    Args:
        model: A convolutional network of timm.
        stage: Number of the stage.
    """

    def __init__(self, model: nn.Module, stage: int) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn [n, 3, size, size] into [n, channels, grid, grid]."""
        return self.model.forward_intermediates(images, [self.stage], intermediates_only=True)[0]


class PixelPatches(nn.Module):
    """The floor: a patch stands for its own grey values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turns [n, 3, size, size] into [n, 16 x 16, size / 16, size / 16]."""
        return nn.functional.pixel_unshuffle(images.mean(1, keepdim=True), PIXELS_PATCH)


@dataclass(frozen=True)
class DenseFeatures:
    """Patch maps of every image of a set.

    Attributes:
        dataset: The set.
        backbone: Its name.
        weights: Fingerprint of the backbone's weights.
        blocks: Numbers of the blocks, from 0.
        size: Edge of the images that the backbone saw, in pixels.
        maps: float16, [n, blocks x width, grid, grid], a memory map.
        path: The file.
        engine: What ran the backbone: torch or openvino.
        precision: Of the backbone: fp32, bf16 or fp16; the maps are rounded to float16.
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

    def only(self, blocks: int) -> np.ndarray:
        """The maps of the last of the chosen blocks, as many as wanted: [n, blocks x width, grid, grid]."""
        width = self.maps.shape[1] // len(self.blocks)
        return self.maps[:, -blocks * width :]


def dense_backbone(backbone: Backbone, *, size: int, blocks: tuple[int, ...] = (-1,)) -> Backbone:
    """Makes a backbone that gives patch maps of images of another size; the position embedding is
    interpolated.

    `pixels`, which has no patch tokens, is cut into patches of 16 x 16 grey values. A convolutional
    network gives its stage of stride 16.

    Args:
        backbone: What `load_backbone` gives; stays as it is.
        size: Edge of the square that a image is resized to, a multiple of the patch.
        blocks: Numbers of the blocks; negative ones count from the last.

    Raises:
        InputError: If the size does not fit the patch, a block does not exist, or the backbone has
            no patch tokens.
    """
    if isinstance(backbone.model, Pixels):
        require_multiple((size, size), PIXELS_PATCH, backbone.name)
        model, patch, width, blocks = PixelPatches(), PIXELS_PATCH, PIXELS_PATCH**2, (0,)
    elif is_convolutional(backbone.model):
        if len(blocks) > 1:
            raise InputError(
                f"{backbone.name}: has no blocks but one map, of stride 16; take one block."
            )
        require_multiple((size, size), backbone.patch_size, backbone.name)
        stages, patch = backbone.model.feature_info, 16
        blocks = ([one["reduction"] for one in stages].index(patch),)
        model, width = StageMaps(backbone.model, *blocks), stages[blocks[0]]["num_chs"]
    elif hasattr(backbone.model, "blocks") and hasattr(backbone.model, "forward_intermediates"):
        depth = len(backbone.model.blocks)
        if wrong := [block for block in blocks if not -depth <= block < depth]:
            raise InputError(f"{backbone.name}: has {depth} blocks, no block {wrong[0]}.")
        blocks = tuple(sorted({block % depth for block in blocks}))
        model = PatchMaps(at_size(backbone, (size, size)).model, blocks)
        patch, width = backbone.patch_size, backbone.embedding_dim
    else:
        raise InputError(
            f"{backbone.name}: has no patch tokens; choose a vision transformer such as random-t16, or pixels."
        )
    return replace(
        backbone,
        model=model.eval(),
        preprocessing=replace(backbone.preprocessing, size=size),
        patch_size=patch,
        embedding_dim=width * len(blocks),
        outputs=tuple(f"patch_tokens_{block}" for block in blocks),
    )


def extract_patch_maps(
    backbone: Backbone | str,
    dataset: SegmentationDataset,
    *,
    size: int = 448,
    blocks: tuple[int, ...] = (-1,),
    folder: Path | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 4,
    threads: int | None = None,
) -> DenseFeatures:
    """Computes the patch maps of every image, or maps the file that keeps them.

    The file `NAME.npy` is written batch by batch, so that memory holds one batch; a sidecar
    `NAME.json` holds its SHA-256 and what the values depend on, which also names the file. A
    damaged file is made anew.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`.
        dataset: What `load_segmentation_dataset` gives; folds of a set share the file.
        size: See `dense_backbone`.
        blocks: See `dense_backbone`.
        folder: Where the files are kept; the data folder's `features` by default.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images a forward pass.
        threads: See `make_engine`.

    Returns:
        The maps, in the order of the set.

    Raises:
        InputError: See `dense_backbone`; or if a image is smaller than a patch, a value is not
            finite, or the disk is full.
    """
    backbone = as_backbone(backbone)
    dense = dense_backbone(backbone, size=size, blocks=tuple(blocks))
    engine, precision, device = choose_engine(dense, engine=engine, precision=precision)
    about = dense.describe()
    declared = {
        "format": FORMAT,
        "backbone": {
            key: about[key]
            for key in ("name", "fingerprint", "structure", "preprocessing", "outputs")
        },
        "data": dataset.digest,
        "images": len(dataset),
        "held": images_digest(dataset.images),
        "engine": engine,
        "precision": precision,
        "versions": versions(("torch", "timm", "openvino", "pillow")),
    }
    plain = "".join(
        c if c.isalnum() or c in "-_" else "-"
        for c in f"{dataset.name.split('-')[0]}_{backbone.name[-40:]}"
    )
    path = Path(folder or features_folder()) / f"{plain}_dense_{value_hash(declared)}.npy"

    def make() -> dict[str, object]:
        runner = make_engine(
            dense, engine=engine, precision=precision, device=device, threads=threads
        )
        _write(path, runner, dense, dataset, batch_size)
        return {
            "dataset": dataset.name,
            "git": git_revision(),
            "seen": seen_images(backbone.name, dataset.images),
        }

    seen = kept(path.with_suffix(".json"), path, declared=declared, make=make)["seen"]
    numbers = tuple(int(output.rpartition("_")[2]) for output in dense.outputs)
    maps = np.load(path, mmap_mode="r", allow_pickle=False)
    seen = seen_in_pretraining(
        {name: seen and [seen[row] for row in rows] for name, rows in dataset.splits.items()}
    )
    return DenseFeatures(
        dataset,
        backbone.name,
        backbone.fingerprint,
        numbers,
        size,
        maps,
        path,
        engine,
        precision,
        seen,
    )


def _write(
    path: Path,
    runner: TorchEngine | OpenVinoEngine,
    dense: Backbone,
    dataset: SegmentationDataset,
    batch_size: int,
) -> None:
    grid = dense.preprocessing.size // dense.patch_size
    shape = (len(dataset), dense.embedding_dim, grid, grid)
    require_space(path.parent, 2 * int(np.prod(shape)))
    with (
        atomic(path) as temporary,
        tqdm(total=len(dataset), desc=f"{dataset.name} × {dense.name}", unit="image") as bar,
    ):
        maps, row = np.lib.format.open_memmap(temporary, "w+", np.float16, shape), 0
        for (batch,) in runner.map(_batches(dataset, dense, batch_size)):
            maps[row : row + len(batch)] = batch
            if bad := np.flatnonzero(
                ~np.isfinite(maps[row : row + len(batch)]).all((1, 2, 3))
            ).tolist():
                raise InputError(
                    f"{dense.name} on {dataset.name}: the patch tokens of '{dataset.ids[row + bad[0]]}' are NaN or infinite; "
                    "check the weights, or extract with precision fp32."
                )
            row += len(batch)
            bar.update(len(batch))
        maps.flush()


def _batches(dataset: SegmentationDataset, dense: Backbone, batch_size: int):  # noqa: ANN202
    """Batches of resized images, uint8 [n, size, size, 1 or 3]."""
    how = dense.preprocessing
    for start in range(0, len(dataset), batch_size):
        rows = range(start, min(start + batch_size, len(dataset)))
        images = [np.asarray(dataset.images[row]) for row in rows]
        for row, image in zip(rows, images, strict=True):
            if min(image.shape[:2]) < dense.patch_size:
                edges = " x ".join(map(str, image.shape[:2]))
                raise InputError(
                    f"{dataset.ids[row]}: {edges} pixels are smaller than a patch of {dense.patch_size}; leave out the image."
                )
        yield stacked([how.fitted(image) for image in images])
