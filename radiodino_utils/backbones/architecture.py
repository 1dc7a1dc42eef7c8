"""The timm vision transformer that a state dict belongs to, loaded strictly."""

import math
import re

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..core.errors import InputError

_NEEDED = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}  # ndim


def vision_transformer(
    state: dict[str, torch.Tensor],
    source: str,
    *,
    num_heads: int | None,
    dynamic_img_size: bool = False,
) -> VisionTransformer:
    """Build the timm vision transformer that a state dict belongs to and load it strictly.

    Width, depth, patch, grid, registers and layer scale are read from the tensors. No tensor tells
    the number of attention heads: with another number a model loads as strictly and computes
    something else, so it is never guessed.

    Args:
        state: Tensors by timm's names.
        source: Name of the file, for error messages.
        num_heads: Attention heads per block; `None`, if it is not known, is refused.
        dynamic_img_size: Accept images of any size.

    Returns:
        The model in evaluation mode, float32, without a head.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape; all of them are listed.
            If the number of heads is not known, or does not divide the width.
    """
    heads = _checked_heads(state, source, num_heads)
    if "register_tokens" in state:
        state = _with_timms_registers(state)
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    has_class_token = "cls_token" in state
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    positions = state["pos_embed"].shape[1]
    prefix_positions = next(
        (n for n in (has_class_token, 0, has_class_token + registers) if _is_square(positions - n)),
        None,
    )
    if prefix_positions is None:
        raise InputError(f"{source}: pos_embed has {positions} positions, which is no square grid.")
    blocks = [int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))]
    model = VisionTransformer(
        img_size=math.isqrt(positions - prefix_positions) * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=1 + max(blocks),
        num_heads=heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        init_values=1.0 if "blocks.0.ls1.gamma" in state else None,
        class_token=has_class_token,
        reg_tokens=registers,
        no_embed_class=prefix_positions == 0,
        global_pool="token" if has_class_token else "avg",
        fc_norm=False,
        num_classes=0,
        dynamic_img_size=dynamic_img_size,
    )
    load_strictly(model, state, source)
    return model.eval()


def _checked_heads(state: dict[str, torch.Tensor], source: str, num_heads: int | None) -> int:
    """Return the number of heads, if the tensors are those of a vision transformer."""
    if absent := [name for name in _NEEDED if name not in state]:
        raise InputError(
            f"{source}: not a vision transformer that timm knows: missing {', '.join(absent)}."
        )
    if any(state[name].ndim != ndim for name, ndim in _NEEDED.items()):
        shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in _NEEDED)
        raise InputError(
            f"{source}: not a vision transformer that timm knows: the shapes are {shapes}."
        )
    width, channels, *_ = state["patch_embed.proj.weight"].shape
    if channels != 3:
        raise InputError(f"{source}: {channels} input channels; 3 are needed.")
    if num_heads is None:
        raise InputError(
            f"{source}: nothing says how many attention heads its blocks of width {width} have, "
            "and a wrong number gives wrong features without an error; add it to the name, as in "
            "file:PATH?heads=6 (published ViT-Ti: 3, S: 6, B: 12, L: 16), or save num_heads in the "
            "safetensors metadata."
        )
    if num_heads < 1 or width % num_heads:
        raise InputError(
            f"{source}: {num_heads} heads do not divide the width {width}; give the number it was "
            "trained with."
        )
    return num_heads


def _with_timms_registers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename DINOv2's registers; timm adds the position of the class token to the token itself."""
    renamed = {name: value for name, value in state.items() if name != "register_tokens"}
    return renamed | {
        "reg_token": state["register_tokens"],
        "cls_token": state["cls_token"] + state["pos_embed"][:, :1],
        "pos_embed": state["pos_embed"][:, 1:],
    }


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load a state dict, every tensor of it and of the model.

    Args:
        model: Changed in place.
        state: Tensors by the model's own names.
        source: Name of the file, for error messages.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape; all of them are listed.
    """
    own = model.state_dict()
    faults = [f"missing {name}" for name in own if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in own]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        raise InputError(f"{source}: the tensors do not fit the architecture: {'; '.join(faults)}.")
    model.load_state_dict(state)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
