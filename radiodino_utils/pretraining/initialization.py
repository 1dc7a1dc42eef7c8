"""Initialization of a vision transformer by selecting the weights of a larger one."""

import torch
from torch import nn

from ..core.errors import InputError

Weights = dict[str, torch.Tensor]


def selected_weights(large: nn.Module, small: nn.Module) -> Weights:
    """Return weights for a vision transformer, selected from a larger one.

    Blocks, heads and channels are taken at even distances. The patch embedding and the positions
    are resampled. Layer scale is folded into the projections before it.

    Args:
        large: timm's vision transformer, of at least the depth and the width.
        small: timm's vision transformer with the same width per head.

    Returns:
        A state dict for `small`.

    Raises:
        InputError: If the two do not fit.

    Source:
        Xu et al., "Initializing Models with Larger Ones", ICLR 2024.
    """
    _require_fit(large, small)
    state = _state_without_layer_scale(large)
    channels = _evenly(large.embed_dim, small.embed_dim)
    selected = {
        "cls_token": state["cls_token"][..., channels],
        "pos_embed": _resampled_positions(large, small, state)[..., channels],
        "patch_embed.proj.weight": _resampled_patches(
            state["patch_embed.proj.weight"][channels], small.patch_embed.patch_size
        ),
        "patch_embed.proj.bias": state["patch_embed.proj.bias"][channels],
        "norm.weight": state["norm.weight"][channels],
        "norm.bias": state["norm.bias"][channels],
    }
    rows_and_columns = _rows_and_columns(large, small)
    for target, source in enumerate(_evenly(len(large.blocks), len(small.blocks)).tolist()):
        to, of = f"blocks.{target}", f"blocks.{source}"
        for layer, (rows, columns) in rows_and_columns.items():
            weight = state[f"{of}.{layer}.weight"]
            selected[f"{to}.{layer}.weight"] = weight[rows][:, columns]
            selected[f"{to}.{layer}.bias"] = state[f"{of}.{layer}.bias"][rows]
        for norm in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            selected[f"{to}.{norm}"] = state[f"{of}.{norm}"][channels]
    return selected


def _require_fit(large: nn.Module, small: nn.Module) -> None:
    if not hasattr(large, "patch_embed") or not hasattr(small, "patch_embed"):
        raise InputError(
            "start: weights are selected from a vision transformer; name one, or timm."
        )
    heads, small_heads = large.blocks[0].attn.num_heads, small.blocks[0].attn.num_heads
    if (
        large.embed_dim // heads != small.embed_dim // small_heads
        or large.embed_dim < small.embed_dim
        or len(large.blocks) < len(small.blocks)
        or _hidden_width(large) < _hidden_width(small)
    ):
        raise InputError(
            f"start: a width of {large.embed_dim} in {heads} heads and {len(large.blocks)} blocks "
            f"does not hold one of {small.embed_dim} in {small_heads} heads and "
            f"{len(small.blocks)} blocks; name a larger one of the family."
        )


def _state_without_layer_scale(vit: nn.Module) -> Weights:
    """Return the weights in float32, each layer scale folded into the projection before it."""
    state = {name: tensor.detach().float().clone() for name, tensor in vit.state_dict().items()}
    for number, block in enumerate(vit.blocks):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            if isinstance(getattr(block, scale), nn.Identity):
                continue
            gamma = state.pop(f"blocks.{number}.{scale}.gamma")
            state[f"blocks.{number}.{layer}.weight"] *= gamma[:, None]
            state[f"blocks.{number}.{layer}.bias"] *= gamma
    return state


def _rows_and_columns(
    large: nn.Module, small: nn.Module
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the rows and columns of each layer's weight that a block keeps."""
    heads, small_heads = large.blocks[0].attn.num_heads, small.blocks[0].attn.num_heads
    head_width = small.embed_dim // small_heads
    channels = _evenly(large.embed_dim, small.embed_dim)
    in_heads = torch.cat(
        [torch.arange(head_width) + head_width * int(head) for head in _evenly(heads, small_heads)]
    )
    qkv = torch.cat([in_heads + part * large.embed_dim for part in range(3)])
    hidden = _evenly(_hidden_width(large), _hidden_width(small))
    return {
        "attn.qkv": (qkv, channels),
        "attn.proj": (channels, in_heads),
        "mlp.fc1": (hidden, channels),
        "mlp.fc2": (channels, hidden),
    }


def _hidden_width(vit: nn.Module) -> int:
    return vit.blocks[0].mlp.fc1.out_features


def _evenly(large: int, small: int) -> torch.Tensor:
    return torch.arange(small) * large // small


def _resampled_positions(large: nn.Module, small: nn.Module, state: Weights) -> torch.Tensor:
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(
        state["pos_embed"],
        list(small.patch_embed.grid_size),
        old_size=list(large.patch_embed.grid_size),
        num_prefix_tokens=1,
    )


def _resampled_patches(weight: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    from timm.layers import resample_patch_embed

    if tuple(weight.shape[-2:]) == tuple(size):
        return weight
    return resample_patch_embed(weight, list(size))
