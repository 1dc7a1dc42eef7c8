"""Segmentation with a frozen backbone: probes on patch maps, and a U-Net for comparison."""

from collections.abc import Sequence

import numpy as np
import torch

from ...core.errors import InputError, unknown_name, wrong_type
from ...data.images import resized
from ...data.segmentation import SegmentationDataset
from ...features.patch_maps import DenseFeatures
from .networks import conv_decoder, linear_probe, unet
from .prediction import Segmentation
from .training import LEARNING_RATES, Training, fit, predicted_scores
from .voting import segment_by_votes

PROBES = ("linear", "decoder", "knn")
CELLS_PER_PATCH = 4  # cells along the edge of a patch in which masks are compared in training
KS = (5, 15, 45)


def segment(
    features: DenseFeatures,
    *,
    probe: str = "linear",
    dataset: SegmentationDataset | None = None,
    training: Training | None = None,
    ks: Sequence[int] = KS,
    memory: int = 20_000,
    seed: int = 0,
) -> Segmentation:
    """Segment the test split with a probe on frozen patch maps.

    "linear" takes the last of the extracted blocks, "decoder" all of them; both learn by
    class-weighted cross entropy plus Dice, with the learning rate and the epoch of the best mean
    foreground Dice on validation. "knn" learns nothing: a memory of training patches with the share
    of each class in them votes, weighted by exp(similarity / 0.07), as in Balazevic et al. (NeurIPS
    2023, "Towards in-context scene understanding"), with k chosen on validation; it takes the last
    block.

    Args:
        features: Patch maps returned by `extract_patch_maps`.
        probe: One of `PROBES`.
        dataset: Another split of the same images (a fold, fewer labelled images); by default that
            of the features.
        training: Budget of "linear" and "decoder".
        ks: Candidate numbers of neighbours of "knn".
        memory: Training patches that "knn" keeps, drawn at random.
        seed: Seed of the initial weights, the order of the images, and the memory.

    Returns:
        The segmentation; `choice` names learning rate and epoch, or k.

    Raises:
        InputError: If the probe is unknown, train or val holds no foreground, or a mask does not
            fit its image.
    """
    if not isinstance(features, DenseFeatures):
        raise wrong_type("features", features, "the result of extract_patch_maps")
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    dataset = dataset or features.dataset
    edge = features.maps.shape[-1] * CELLS_PER_PATCH
    _require_foreground(dataset, edge)
    if probe == "knn":
        scores, choice = segment_by_votes(
            features.only(1), dataset, edge=edge, ks=ks, memory=memory, seed=seed
        )
    else:
        scores, choice = _learnt_scores(
            features, probe, dataset, edge=edge, training=training or Training(), seed=seed
        )
    return Segmentation(
        dataset,
        backbone=features.backbone,
        probe=probe,
        rows=dataset.splits["test"],
        scores=scores,
        weights=features.weights,
        seed=seed,
        choice=choice,
        labelled=len(dataset.splits["train"]),
        engine=features.engine,
        precision=features.precision,
        seen_in_pretraining=features.seen_in_pretraining,
    )


def _learnt_scores(
    features: DenseFeatures,
    probe: str,
    dataset: SegmentationDataset,
    *,
    edge: int,
    training: Training,
    seed: int,
) -> tuple[np.ndarray, dict[str, object]]:
    """Train "linear" or "decoder"; return the scores of the test split and what was chosen."""
    maps = features.only(1) if probe == "linear" else features.maps
    make = linear_probe if probe == "linear" else conv_decoder

    def fetch(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(maps[rows], np.float32))

    network, choice = fit(
        lambda: make(maps.shape[1], len(dataset.classes)),
        fetch,
        dataset,
        edge=edge,
        learning_rates=training.learning_rates or LEARNING_RATES[probe],
        training=training,
        seed=seed,
    )
    return predicted_scores(network, fetch, dataset.splits["test"]), choice


def segment_unet(
    dataset: SegmentationDataset,
    *,
    size: int = 128,
    channels: Sequence[int] = (16, 32, 64, 128),
    training: Training | None = None,
    seed: int = 0,
) -> Segmentation:
    """Segment the test split with a small U-Net, trained from scratch on the same split.

    Args:
        dataset: Dataset returned by `load_segmentation_dataset`.
        size: Edge of the square that images are resized to, a multiple of 2 to the power of the
            number of levels less one.
        channels: Channels of each level of MONAI's residual U-Net.
        training: Budget, as for the probes.
        seed: Seed of the initial weights and the order of the images.

    Returns:
        The segmentation; `choice` names learning rate and epoch.

    Raises:
        InputError: If the size does not fit, or see `segment`.
    """
    if size % 2 ** (len(channels) - 1):
        raise InputError(
            f"size {size}: is not a multiple of {2 ** (len(channels) - 1)}, which the U-Net needs."
        )
    _require_foreground(dataset, size)
    training = training or Training()
    wanted = np.concatenate([dataset.splits[split] for split in ("train", "val", "test")])
    images = np.stack([_grey(np.asarray(dataset.images[row]), size) for row in wanted])
    positions = {row: position for position, row in enumerate(wanted)}

    def fetch(rows: np.ndarray) -> torch.Tensor:
        batch = images[[positions[row] for row in rows]]
        return torch.from_numpy(batch)[:, None].float() / 127.5 - 1

    network, choice = fit(
        lambda: unet(len(dataset.classes), channels=channels),
        fetch,
        dataset,
        edge=size,
        learning_rates=training.learning_rates or LEARNING_RATES["unet"],
        training=training,
        seed=seed,
    )
    return Segmentation(
        dataset,
        backbone="none",
        probe="unet",
        rows=dataset.splits["test"],
        scores=predicted_scores(network, fetch, dataset.splits["test"]),
        weights="",
        seed=seed,
        choice=choice,
        labelled=len(dataset.splits["train"]),
        engine="torch",
        precision="fp32",
        seen_in_pretraining="none",
    )


def _grey(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image as uint8, [size, size]."""
    image = resized(image, size, "bilinear")
    return (image if image.ndim == 2 else image.mean(-1)).astype(np.uint8)


def _require_foreground(dataset: SegmentationDataset, edge: int) -> None:
    for split in ("train", "val"):
        if not dataset.small_masks(dataset.splits[split], edge).any():
            raise InputError(
                f"{dataset.name}: the masks of the {split} split are all background, "
                "so nothing can be learnt or chosen; check the masks or take another split."
            )
