"""Segmentation by nearest neighbours: training patches vote with the classes in them.

Source: Balazevic et al., "Towards in-context scene understanding", NeurIPS 2023.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, one_hot

from ...core.checks import checked_ks
from ...data.segmentation import SegmentationDataset
from ..knn import TEMPERATURE
from ..neighbours import nearest
from .training import mean_dice

_BATCH = 16  # images that are searched at a time


def segment_by_votes(
    maps: np.ndarray,
    dataset: SegmentationDataset,
    *,
    edge: int,
    ks: Sequence[int],
    memory: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, object]]:
    """Let training patches vote on the patches of the test split, with k chosen on validation.

    A neighbour votes with the share of each class in its patch, weighted by exp(similarity /
    0.07).

    Args:
        maps: Patch maps of all images, [n, width, grid, grid].
        dataset: Dataset with the splits train, val and test.
        edge: Edge of the square masks, a multiple of the grid.
        ks: Candidate numbers of neighbours.
        memory: Training patches that are kept, drawn at random.
        seed: Seed of the draw.

    Returns:
        Votes of the test split, float16, [n, classes, grid, grid], and what was chosen: "k".
    """
    patches, shares = _memory(maps, dataset, edge=edge, size=memory, seed=seed)
    ks, splits = checked_ks(ks), dataset.splits
    masks, classes = dataset.small_masks(splits["val"], edge), len(dataset.classes)
    votes = _votes(maps, splits["val"], patches, shares, ks)
    dice = {k: mean_dice(scores, masks, classes) for k, scores in votes.items()}
    best = max(dice.values())
    # the smallest k of those that are equal except for rounding
    k = min(k for k, value in dice.items() if value > best - 1e-5)
    return _votes(maps, splits["test"], patches, shares, (k,))[k], {"k": k}


def _memory(
    maps: np.ndarray, dataset: SegmentationDataset, *, edge: int, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw training patches: their tokens [n, width] and their class shares [n, classes]."""
    rows, cells_per_image = dataset.splits["train"], maps.shape[-1] ** 2
    masks, classes = dataset.small_masks(rows, edge), len(dataset.classes)
    drawn = np.random.default_rng(seed).permutation(len(rows) * cells_per_image)[:size]
    drawn = np.sort(drawn)
    tokens, shares = [], []
    for position, row in enumerate(rows):
        cells = drawn[drawn // cells_per_image == position] % cells_per_image
        tokens.append(_tokens(maps[[row]])[cells])
        truth = one_hot(torch.from_numpy(masks[[position]]).long(), classes)
        share = avg_pool2d(truth.permute(0, 3, 1, 2).float(), edge // maps.shape[-1])
        shares.append(_tokens(share.numpy())[cells])
    return np.concatenate(tokens), np.concatenate(shares)


def _votes(
    maps: np.ndarray, rows: np.ndarray, patches: np.ndarray, shares: np.ndarray, ks: Sequence[int]
) -> dict[int, np.ndarray]:
    """Return for each k the votes of rows, float16, [n, classes, grid, grid]."""
    batches: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    for start in range(0, len(rows), _BATCH):
        batch = maps[rows[start : start + _BATCH]]
        similarities, neighbours = nearest(patches, _tokens(batch), max(ks))
        weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
        for k in ks:
            votes = np.einsum("nk,nkc->nc", weights[:, :k], shares[neighbours[:, :k]])
            votes /= weights[:, :k].sum(1, keepdims=True)
            votes = votes.reshape(len(batch), *maps.shape[2:], -1)
            batches[k].append(votes.transpose(0, 3, 1, 2).astype(np.float16))
    return {k: np.concatenate(parts) for k, parts in batches.items()}


def _tokens(maps: np.ndarray) -> np.ndarray:
    """Return the float32 tokens [n x height x width, channels] of maps [n, channels, ...]."""
    return np.moveaxis(np.asarray(maps, np.float32), 1, -1).reshape(-1, maps.shape[1])
