"""Fingerprints of models: of their weights, and of what they compute beside them."""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """Return 12 hexadecimal digits of a SHA-256 over all saved tensors of a model.

    Names, types, shapes and bytes of the tensors are hashed.
    """
    return _hashed(model.state_dict()).hexdigest()[:12]


def structure(model: nn.Module) -> str:
    """Return 12 hexadecimal digits that identify what a model computes beside its saved tensors.

    Layers, their options (such as heads and pooling) and buffers that are not saved are hashed.
    """
    saved = model.state_dict()
    digest = _hashed({name: tensor for name, tensor in model.named_buffers() if name not in saved})
    for name, layer in model.named_modules():
        options = {
            key: value
            for key, value in sorted(vars(layer).items())
            if isinstance(value, bool | int | float | str) and key not in ("training", "fused_attn")
        }
        digest.update(f"{name} {type(layer).__qualname__} {options}".encode())
    return digest.hexdigest()[:12]


def _hashed(tensors: dict[str, torch.Tensor]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest
