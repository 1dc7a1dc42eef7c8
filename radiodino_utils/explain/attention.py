"""Attention of vision transformers of timm: by block and head, rolled out, and across heads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

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
        maps: The part of `rows` on the patches, [blocks, heads, grid height, grid width].
        image: The image as the backbone saw it, uint8, [height, width] or [height, width, 3].
        embedding: Embedding of the same pass, float32, [width].
    """

    rows: np.ndarray
    maps: np.ndarray
    image: np.ndarray
    embedding: np.ndarray


def attention_maps(
    backbone: Backbone | str, image: np.ndarray, *, blocks: Sequence[int] = (-1,)
) -> Attention:
    """Return the attention of the class token in chosen blocks, per head, as DINO shows it.

    Where the embedding is the mean patch token, the rows are the mean over the rows of the patch
    tokens; a backbone that pools otherwise is refused. Fused attention, which never forms the
    matrix, is switched off in the chosen blocks for this pass only. For images of another size or
    aspect ratio see `at_size`.

    Source: Caron et al., ICCV 2021 (facebookresearch/dino, visualize_attention.py).

    Args:
        backbone: Any vision transformer of timm, or its registered name.
        image: uint8, [height, width] or [height, width, 3].
        blocks: Numbers of the blocks; negative ones count from the last.

    Returns:
        Rows, maps and the embedding.

    Raises:
        InputError: If the backbone has no attention, a block does not exist, or the image is
            smaller than a patch.
    """
    backbone = as_backbone(backbone)
    matrices, seen, embedding = _attention_matrices(backbone, image, blocks)
    rows = (_query(backbone, matrices.shape[-1]) @ matrices).numpy()
    return Attention(rows, on_grid(backbone, rows), seen, embedding.numpy())


def attention_rollout(backbone: Backbone | str, image: np.ndarray) -> np.ndarray:
    """Return how much of each patch reaches the class token through the attention of all blocks.

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
    """Return the smallest set of patches that holds a share of the mass of each map.

    Source: facebookresearch/dino, visualize_attention.py, option `threshold`.

    Args:
        maps: Maps without negative values, [..., grid height, grid width].
        share: Share of the mass, 0 to 1.

    Returns:
        Masks of the same shape, bool.

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
    """Return how much the heads of each block attend to different tokens.

    Source: the distance between heads of Clark et al., "What Does BERT Look At?", 2019
    (arXiv:1906.04341).

    Args:
        rows: Attention rows, [blocks, heads, tokens].

    Returns:
        Mean Jensen-Shannon divergence over the pairs of heads, bits, float64, [blocks]: 0 for equal
        heads, 1 for heads that share no token, NaN for a single head.
    """
    with extra("evaluation"):
        from scipy.spatial.distance import jensenshannon

    diversity = np.full(len(rows), np.nan)
    for block, heads in enumerate(rows):
        pairs = combinations(heads, 2)
        divergences = [jensenshannon(*pair, base=2) ** 2 for pair in pairs]
        if divergences:
            diversity[block] = np.mean(divergences)
    return diversity


def require_attention(backbone: Backbone) -> None:
    """Check that attention can be read from a backbone.

    Args:
        backbone: Any backbone.

    Raises:
        InputError: If the backbone is no vision transformer of timm.
    """
    layers = [getattr(block, "attn", None) for block in getattr(backbone.model, "blocks", ())]
    if not layers or not all(
        hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop") for layer in layers
    ):
        raise InputError(
            f"{backbone.name}: has no attention to show; "
            "choose a vision transformer such as random-t16."
        )


def _require_token(backbone: Backbone) -> None:
    """Check that a backbone has attention, and that of a token is that of the embedding."""
    require_attention(backbone)
    if "pooled_token" in backbone.outputs:
        raise InputError(
            f"{backbone.name}: its embedding is pooled by '{backbone.model.global_pool}', so that "
            "the attention of no token is that of the embedding; use Grad-CAM."
        )


def has_token_attention(backbone: Backbone) -> bool:
    """Return whether a backbone has attention, and that of a token is that of the embedding."""
    try:
        _require_token(backbone)
    except InputError:
        return False
    return True


def with_attention(backbones: Iterable[Backbone]) -> list[Backbone]:
    """Return the backbones whose attention can be read, and print a sentence for each other."""
    return accepted(backbones, _require_token)


def accepted(backbones: Iterable[Backbone], require: Callable[[Backbone], None]) -> list[Backbone]:
    """Return the backbones that meet a requirement, and print a sentence for each other.

    Args:
        backbones: Any backbones.
        require: Raises `InputError` for a backbone that does not meet it.
    """
    kept = []
    for backbone in backbones:
        try:
            require(backbone)
            kept.append(backbone)
        except InputError as reason:
            print(f"left out: {reason}")
    return kept


def on_grid(backbone: Backbone, rows: np.ndarray) -> np.ndarray:
    """Drop the prefix tokens and reshape the patches to their grid.

    Args:
        backbone: Vision transformer of timm.
        rows: One value per token, [..., tokens].

    Returns:
        One value per patch, [..., grid height, grid width].
    """
    patches = rows[..., backbone.num_prefix_tokens :]
    return patches.reshape(*rows.shape[:-1], *backbone.model.patch_embed.grid_size)


def _attention_matrices(
    backbone: Backbone, image: np.ndarray, blocks: Sequence[int]
) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Return attention [blocks, heads, tokens, tokens], the image as seen, embedding [width]."""
    _require_token(backbone)
    layers = backbone.model.blocks
    for block in blocks:
        if not -len(layers) <= block < len(layers):
            raise InputError(f"{backbone.name}: has {len(layers)} blocks, no block {block}.")
    seen = backbone.seen(image)
    batch = torch.from_numpy(np.array(seen if seen.ndim == 3 else seen[..., None]))[None]
    with ExitStack() as stack, torch.inference_mode():
        recorded = [stack.enter_context(_recorded(layers[block].attn)) for block in blocks]
        embedding = FeatureModel(backbone)(batch)[0][0]
    return torch.stack([matrices[0][0] for matrices in recorded]).float(), seen, embedding


@contextmanager
def _recorded(layer: Any) -> Iterator[list[torch.Tensor]]:
    """Record the attention matrices [n, heads, tokens, tokens] of a layer within the context."""
    matrices: list[torch.Tensor] = []
    fused = layer.fused_attn
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
    """Return the share of each token in the embedding, [tokens]."""
    query = torch.zeros(tokens)
    if "class_token" in backbone.outputs:
        # half of DeiT's embedding is its distillation token
        tokens_read = 2 if hasattr(backbone.model, "head_dist") else 1
        query[:tokens_read] = 1 / tokens_read
    else:
        query[backbone.num_prefix_tokens :] = 1 / (tokens - backbone.num_prefix_tokens)
    return query
