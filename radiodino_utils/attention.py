"""Attention of the class token, for any timm vision transformer."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .backbones import Backbone
from .engines import FeatureModel
from .errors import InputError
from .pictures import resized


@dataclass(frozen=True)
class Attention:
    """Class-token attention of one picture.

    Attributes:
        rows: Attention of the class token to every token, float32, [blocks, heads, tokens]; each row sums to 1.
        maps: Its part on the patches, [blocks, heads, grid height, grid width].
        picture: The picture as the backbone saw it, uint8, [size, size] or [size, size, 3].
        embedding: The class token behind the last norm, float32, [width].
    """

    rows: np.ndarray
    maps: np.ndarray
    picture: np.ndarray
    embedding: np.ndarray


def attention_maps(backbone: Backbone, picture: np.ndarray, *, blocks: tuple[int, ...] = (-1,)) -> Attention:
    """Computes the attention of the class token in chosen blocks, head by head, as DINO shows it.

    Fused attention, which never forms the matrix, is switched off in those blocks only and as it was afterwards.

    Args:
        backbone: Any vision transformer with a class token.
        picture: uint8, [height, width] or [height, width, 3].
        blocks: Numbers of the blocks; negative ones count from the last.

    Returns:
        Rows, maps and the embedding of the same pass.

    Raises:
        InputError: If the backbone has no attention or no class token, or a block does not exist.
    """
    layers = getattr(backbone.model, "blocks", None)
    if layers is None or "class_token" not in backbone.outputs:
        raise InputError(f"{backbone.name}: has no class-token attention; choose a vision transformer such as random-t16.")
    if wrong := [block for block in blocks if not -len(layers) <= block < len(layers)]:
        raise InputError(f"{backbone.name}: has {len(layers)} blocks, no block {wrong[0]}.")
    how = backbone.preprocessing
    seen = resized(picture, how.size, how.interpolation)
    batch = torch.from_numpy(np.array(seen if seen.ndim == 3 else seen[..., None]))[None]
    with ExitStack() as stack, torch.inference_mode():
        caught = [stack.enter_context(_attention_of(layers[block].attn)) for block in blocks]
        embedding = FeatureModel(backbone)(batch)[0][0]
    rows = torch.stack([matrices[0][0, :, 0] for matrices in caught]).float().numpy()
    height, width = backbone.model.patch_embed.grid_size
    maps = rows[..., backbone.num_prefix_tokens :].reshape(*rows.shape[:2], height, width)
    return Attention(rows, maps, seen, embedding.numpy())


@contextmanager
def _attention_of(layer: nn.Module):  # noqa: ANN202
    """Collects the attention matrices [n, heads, tokens, tokens] of a layer while the block runs."""
    matrices, fused = [], layer.fused_attn
    hook = layer.attn_drop.register_forward_hook(lambda module, inputs, output: matrices.append(output))
    layer.fused_attn = False
    try:
        yield matrices
    finally:
        layer.fused_attn = fused
        hook.remove()
