"""Weights files of any usual layout as timm vision transformers, loaded strictly."""

import argparse
import hashlib
import math
import re
import zipfile
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..core.errors import InputError

_PARTS = (
    "teacher",
    "student",
    "model",
    "state_dict",
    "backbone",
)  # what to take from a training checkpoint, the best first
_NETWORK = re.compile(r"^(?:module\.|_orig_mod\.)*(teacher|student)\.")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|backbone\.|teacher\.|student\.)+")
_DROPPED = re.compile(r"^(head|dino_head|ibot_head|dino_loss|ibot_patch_loss)\.|^mask_token$")
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")  # DINOv2 with FSDP chunks: blocks.CHUNK.BLOCK.


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Reads a backbone's tensors from a weights file.

    Known layouts: safetensors; a timm state dict; the checkpoints of DINO and DINOv2 (`teacher`
        before `student`,
    prefixes `module.` and `backbone.`, chunked blocks). Projection and classification heads and the
    mask token are left out. Files of `torch.save` are read with `weights_only=True`.

    Args:
        path: `.safetensors`, or anything that `torch.save` wrote.

    Returns:
        Tensors by timm's names.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with torch.serialization.safe_globals(
                [argparse.Namespace]
            ):  # DINO keeps its arguments in the checkpoint
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(
            f"{path}: the weights file is damaged or truncated ({error}); copy or download it again."
        ) from error
    except Exception as error:  # torch.load raises pickle.UnpicklingError and, for odd bytes, KeyError or IndexError
        raise InputError(
            f"{path}: not a weights file that can be read safely ({str(error).splitlines()[0]})."
        ) from error
    while part := next(
        (part for part in _PARTS if isinstance(state, dict) and isinstance(state.get(part), dict)),
        None,
    ):
        state = state[part]
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise InputError(
            f"{path}: holds no state dict of tensors (looked for {', '.join(_PARTS)})."
        )
    networks = {match[1] for name in state if (match := _NETWORK.match(name))}
    if "teacher" in networks:  # DINOv2 keeps both networks in one flat dict
        state = {
            name: value
            for name, value in state.items()
            if (match := _NETWORK.match(name)) and match[1] == "teacher"
        }
    named = {
        _CHUNKED.sub(r"blocks.\1.", _WRAPPERS.sub("", name)): value for name, value in state.items()
    }
    return {name: value for name, value in named.items() if not _DROPPED.match(name)}


def saved_num_heads(path: Path) -> int | None:
    """Return the number of attention heads that a safetensors file names in its metadata, as this package writes it."""
    if path.suffix != ".safetensors":
        return None
    with safetensors.safe_open(path, "pt") as file:
        value = (file.metadata() or {}).get("num_heads")
    if value is not None and not value.isdecimal():
        raise InputError(
            f"{path}: its metadata has num_heads = {value!r}; a whole number is needed."
        )
    return None if value is None else int(value)


def vision_transformer(
    state: dict[str, torch.Tensor], source: str, *, num_heads: int | None
) -> VisionTransformer:
    """Builds the timm vision transformer that a state dict belongs to and loads it strictly.

    Width, depth, patch, grid, registers and layer scale are read from the tensors. The number of
    attention heads stands
    in no tensor: with another one a model loads as strictly and computes something else, so it is
        never guessed.

    Args:
        state: Tensors by timm's names.
        source: The file's name, for error messages.
        num_heads: Attention heads of a block; `None` where it is not known, which is refused.

    Returns:
        The model in evaluation mode, float32, without a head.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape; all of them are listed.
            If the number of heads is not known, or does not divide the width.
    """
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    if absent := [name for name in needed if name not in state]:
        raise InputError(
            f"{source}: not a vision transformer that timm knows: missing {', '.join(absent)}."
        )
    if (
        state["patch_embed.proj.weight"].ndim != 4
        or state["pos_embed"].ndim != 3
        or state["blocks.0.mlp.fc1.weight"].ndim != 2
    ):
        shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in needed)
        raise InputError(
            f"{source}: not a vision transformer that timm knows: the shapes are {shapes}."
        )
    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    if channels != 3:
        raise InputError(f"{source}: {channels} input channels; 3 are needed.")
    if num_heads is None:
        raise InputError(
            f"{source}: nothing says how many attention heads its blocks of width {width} have, and a wrong number gives wrong "
            "features without an error; add it to the name, as in file:PATH?heads=6 (published ViT-Ti: 3, S: 6, B: 12, L: 16), "
            "or save num_heads in the safetensors metadata."
        )
    if num_heads < 1 or width % num_heads:
        raise InputError(
            f"{source}: {num_heads} heads do not divide the width {width}; give the number it was trained with."
        )
    if (
        "register_tokens" in state
    ):  # DINOv2's own layout; timm's has the class token's position inside the token
        state = {
            **state,
            "reg_token": state["register_tokens"],
            "cls_token": state["cls_token"] + state["pos_embed"][:, :1],
        }
        state["pos_embed"] = state["pos_embed"][:, 1:]
        del state["register_tokens"]
    class_token, register_count = (
        "cls_token" in state,
        state["reg_token"].shape[1] if "reg_token" in state else 0,
    )
    positions = state["pos_embed"].shape[1]
    prefix_positions = next(
        (n for n in (class_token, 0, class_token + register_count) if _is_square(positions - n)),
        None,
    )
    if prefix_positions is None:
        raise InputError(f"{source}: pos_embed has {positions} positions, which is no square grid.")
    depth = 1 + max(
        int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))
    )
    model = VisionTransformer(
        img_size=math.isqrt(positions - prefix_positions) * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        init_values=1.0 if "blocks.0.ls1.gamma" in state else None,
        class_token=class_token,
        reg_tokens=register_count,
        no_embed_class=prefix_positions == 0,
        global_pool="token" if class_token else "avg",
        fc_norm=False,
        num_classes=0,
    )
    load_strictly(model, state, source)
    return model.eval()


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Loads a state dict, every tensor of it and of the model.

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


def fingerprint(model: nn.Module) -> str:
    """The first 12 hexadecimal digits of a SHA-256 over the names, types, shapes and bytes of a model's tensors."""
    return _hashed(model.state_dict()).hexdigest()[:12]


def structure(model: nn.Module) -> str:
    """Identify what a model computes beside its saved tensors: layers, their options (heads, pooling), other buffers."""
    saved = model.state_dict()
    digest = _hashed({name: tensor for name, tensor in model.named_buffers() if name not in saved})
    for name, layer in model.named_modules():
        options = {
            key: value
            for key, value in sorted(vars(layer).items())
            if isinstance(value, bool | int | float | str)
        }
        options = {
            key: value for key, value in options.items() if key not in ("training", "fused_attn")
        }
        digest.update(f"{name} {type(layer).__qualname__} {options}".encode())
    return digest.hexdigest()[:12]


def _hashed(tensors: dict[str, torch.Tensor]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
