"""Backbone weights of any usual checkpoint layout, by timm's names."""

import argparse
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from ..core.errors import InputError

# what to take from a training checkpoint, the best first
_PARTS = ("teacher", "student", "model", "state_dict", "backbone")
_NETWORK = re.compile(r"^(?:module\.|_orig_mod\.)*(teacher|student)\.")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|backbone\.|teacher\.|student\.)+")
_DROPPED = re.compile(r"^(head|dino_head|ibot_head|dino_loss|ibot_patch_loss)\.|^mask_token$")
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")  # DINOv2 with FSDP chunks: blocks.CHUNK.BLOCK.


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a backbone from a weights file.

    Known layouts: safetensors; a timm state dict; the checkpoints of DINO and DINOv2 (`teacher`
    before `student`, prefixes `module.` and `backbone.`, chunked blocks). Projection and
    classification heads and the mask token are left out. Files of `torch.save` are read with
    `weights_only=True`.

    Args:
        path: `.safetensors`, or anything that `torch.save` wrote.

    Returns:
        Tensors by timm's names.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors.
    """
    state = read_tensors(path)
    networks = {name: match[1] for name in state if (match := _NETWORK.match(name))}
    if "teacher" in networks.values():  # DINOv2 keeps both networks in one flat dict
        state = {name: state[name] for name, network in networks.items() if network == "teacher"}
    renamed = {
        _CHUNKED.sub(r"blocks.\1.", _WRAPPERS.sub("", name)): value for name, value in state.items()
    }
    return {name: value for name, value in renamed.items() if not _DROPPED.match(name)}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file by the names that they have in it.

    Args:
        path: `.safetensors`, or anything that `torch.save` wrote, read with `weights_only=True`;
            of a training checkpoint the network is taken.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file.")
    state = _innermost(_loaded(path))
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise InputError(
            f"{path}: holds no state dict of tensors (looked for {', '.join(_PARTS)})."
        )
    return state


def _loaded(path: Path) -> Any:
    damages = (
        safetensors.SafetensorError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
    )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # DINO keeps its arguments in the checkpoint
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except damages as error:
        raise InputError(
            f"{path}: the weights file is damaged or truncated ({error}); copy or download it "
            "again."
        ) from error
    except Exception as error:  # pickle.UnpicklingError and, for odd bytes, KeyError or IndexError
        held = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {held[1]}, which could run code" if held else "of another format"
        raise InputError(
            f"{path}: not a weights file that can be read safely: {reason}; save the state dict "
            "alone, best as .safetensors."
        ) from error


def _innermost(state: Any) -> Any:
    """Return the network inside the dicts of a training checkpoint."""
    while isinstance(state, dict):
        part = next((part for part in _PARTS if isinstance(state.get(part), dict)), None)
        if part is None:
            break
        state = state[part]
    return state


def saved_facts(path: Path) -> dict[str, str]:
    """Return what the metadata of a file say: `num_heads`, and `interpolation` of an adapted one.

    Raises:
        InputError: If they are damaged.
    """
    if path.suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, "pt") as file:
        facts = file.metadata() or {}
    if "backbone" not in facts:
        return facts
    try:
        return {name: str(value) for name, value in json.loads(facts["backbone"]).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: its metadata are damaged ({error}); copy it again.") from error


def saved_num_heads(path: Path) -> int | None:
    """Return the number of attention heads in the metadata of a safetensors file.

    Raises:
        InputError: If it is no whole number.
    """
    value = saved_facts(path).get("num_heads")
    if value is not None and not value.isdecimal():
        raise InputError(
            f"{path}: its metadata has num_heads = {value!r}; a whole number is needed."
        )
    return None if value is None else int(value)
