"""Attention maps of any timm vision transformer: by block and head, rolled out, and how much the heads differ."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import nn

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..core.errors import InputError
from ..core.extras import extra
from ..features.feature_model import FeatureModel


@dataclass(frozen=True)
class Attention:
    """Class-token attention of one image.

    Attributes:
        rows: Attention of the class token to every token, float32, [blocks, heads, tokens]; each
            row sums to 1.
        maps: Its part on the patches, [blocks, heads, grid height, grid width].
        image: The image as the backbone saw it, uint8, [height, width] or [height, width, 3].
        embedding: The class token behind the last norm, float32, [width].
    """

    rows: np.ndarray
    maps: np.ndarray
    image: np.ndarray
    embedding: np.ndarray


def attention_maps(
    backbone: Backbone | str, image: np.ndarray, *, blocks: Sequence[int] = (-1,)
) -> Attention:
    """Computes the attention of the class token in chosen blocks, head by head, as DINO shows it.

    Where the embedding is the mean patch token, the rows are the mean over the patch tokens' own
    rows; a backbone that pools otherwise is refused. Fused attention, which never forms the matrix,
    is switched off in the chosen blocks only and is as it was afterwards. For images of another
    size or aspect see `backbones.at_size`.

    Source: Caron et al., ICCV 2021 (facebookresearch/dino, visualize_attention.py).

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        image: uint8, [height, width] or [height, width, 3].
        blocks: Numbers of the blocks; negative ones count from the last.

    Returns:
        Rows, maps and the embedding of the same pass.

    Raises:
        InputError: If the backbone has no attention, a block does not exist, or the image is
            smaller than a patch.
    """
    backbone = as_backbone(backbone)
    matrices, seen, embedding = _attention_matrices(backbone, image, blocks)
    rows = (_query(backbone, matrices.shape[-1]) @ matrices).numpy()
    return Attention(rows, on_grid(backbone, rows), seen, embedding.numpy())


def attention_rollout(backbone: Backbone | str, image: np.ndarray) -> np.ndarray:
    """Follows the attention through all blocks: how much of each patch reaches the class token.

    In each block the mean over the heads and the residual path count half each. What flows from the
    prefix tokens is left out of the map, so it sums to less than 1.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020
        (arXiv:2005.00928).

    Args:
        backbone: See `attention_maps`.
        image: See `attention_maps`.

    Returns:
        float32, [grid height, grid width].

    Raises:
        InputError: See `attention_maps`.
    """
    backbone = as_backbone(backbone)
    require_attention(backbone)
    matrices, *_ = _attention_matrices(backbone, image, range(len(backbone.model.blocks)))
    row = _query(backbone, matrices.shape[-1])
    for matrix in matrices.mean(1).flip(0):
        row = (row @ matrix + row) / 2
    return on_grid(backbone, row.numpy())


def mass_masks(maps: np.ndarray, share: float = 0.6) -> np.ndarray:
    """Marks the smallest set of patches that holds a share of each map's mass, as DINO draws it.

    Source: facebookresearch/dino, visualize_attention.py, option `threshold`.

    Args:
        maps: Not negative, [..., grid height, grid width].
        share: Of the mass, 0 to 1.

    Returns:
        bool, of the same shape.

    Raises:
        InputError: If the share is not between 0 and 1.
    """
    if not 0 < share <= 1:
        raise InputError(
            f"share {share:g}: choose a share of the mass above 0 and up to 1, such as 0.6."
        )
    mass = maps.reshape(*maps.shape[:-2], -1).astype(np.float64)
    order = np.argsort(-mass, axis=-1, kind="stable")
    ranked = np.take_along_axis(mass, order, -1)
    before = ranked.cumsum(-1) - ranked
    masks = np.zeros(mass.shape, bool)
    np.put_along_axis(masks, order, before < share * ranked.sum(-1, keepdims=True), -1)
    return masks.reshape(maps.shape)


def head_diversity(rows: np.ndarray) -> np.ndarray:
    """Measures how much the heads of a block look at different tokens.

    Source: the distance between heads of Clark et al., "What Does BERT Look At?", 2019
        (arXiv:1906.04341).

    Args:
        rows: Attention rows, [blocks, heads, tokens].

    Returns:
        For each block the mean Jensen-Shannon divergence over the pairs of heads, bits: 0 for equal
        heads, 1 for heads that share no token; NaN for a single head. float64, [blocks].
    """
    with extra("evaluation"):
        from scipy.spatial.distance import jensenshannon

    pairs = list(combinations(range(rows.shape[1]), 2))
    if not pairs:
        return np.full(len(rows), np.nan)
    return np.array(
        [
            np.mean([jensenshannon(block[i], block[j], base=2) ** 2 for i, j in pairs])
            for block in rows
        ]
    )


def require_attention(backbone: Backbone) -> None:
    """Checks that attention can be read from a backbone.

    Raises:
        InputError: If the backbone is no vision transformer of timm.
    """
    layers = [getattr(block, "attn", None) for block in getattr(backbone.model, "blocks", ())]
    if not layers or not all(
        hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop") for layer in layers
    ):
        raise InputError(
            f"{backbone.name}: has no attention to show; choose a vision transformer such as random-t16."
        )


def _require_token(backbone: Backbone) -> None:
    require_attention(backbone)
    if "pooled_token" in backbone.outputs:
        raise InputError(
            f"{backbone.name}: its embedding is pooled by '{backbone.model.global_pool}', so that the attention of no token is "
            "that of the embedding; use Grad-CAM."
        )


def with_attention(backbones: Iterable[Backbone]) -> list[Backbone]:
    """Keeps the backbones whose attention can be read and prints one sentence for each other."""
    kept = []
    for backbone in backbones:
        try:
            _require_token(backbone)
            kept.append(backbone)
        except InputError as reason:
            print(f"left out: {reason}")
    return kept


def on_grid(backbone: Backbone, rows: np.ndarray) -> np.ndarray:
    """Drops the prefix tokens and lays the patches on their grid: [..., tokens] to [..., grid height, grid width]."""
    return rows[..., backbone.num_prefix_tokens :].reshape(
        *rows.shape[:-1], *backbone.model.patch_embed.grid_size
    )


def _attention_matrices(
    backbone: Backbone, image: np.ndarray, blocks: Sequence[int]
) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Attention [blocks, heads, tokens, tokens], the image as seen, and its embedding [width]."""
    _require_token(backbone)
    layers = backbone.model.blocks
    if wrong := [block for block in blocks if not -len(layers) <= block < len(layers)]:
        raise InputError(f"{backbone.name}: has {len(layers)} blocks, no block {wrong[0]}.")
    seen = backbone.seen(image)
    batch = torch.from_numpy(np.array(seen if seen.ndim == 3 else seen[..., None]))[None]
    with ExitStack() as stack, torch.inference_mode():
        caught = [stack.enter_context(_attention_of(layers[block].attn)) for block in blocks]
        embedding = FeatureModel(backbone)(batch)[0][0]
    return torch.stack([matrices[0][0] for matrices in caught]).float(), seen, embedding


@contextmanager
def _attention_of(layer: nn.Module):  # noqa: ANN202
    """Collects the attention matrices [n, heads, tokens, tokens] of a layer while the block runs."""
    matrices, fused = [], layer.fused_attn
    hook = layer.attn_drop.register_forward_hook(
        lambda module, inputs, output: matrices.append(output)
    )
    layer.fused_attn = False
    try:
        yield matrices
    finally:
        layer.fused_attn = fused
        hook.remove()


def _query(backbone: Backbone, tokens: int) -> torch.Tensor:
    """The share of each token in the embedding, [tokens]: all of the class token, or the mean of the patch tokens."""
    query = torch.zeros(tokens)
    if "class_token" in backbone.outputs:
        tokens_read = (
            2 if hasattr(backbone.model, "head_dist") else 1
        )  # DeiT's embedding is also half its distillation token
        query[:tokens_read] = 1 / tokens_read
    else:
        query[backbone.num_prefix_tokens :] = 1 / (tokens - backbone.num_prefix_tokens)
    return query
