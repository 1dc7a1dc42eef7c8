"""Random weights that are bit-equal on every processor: scaled integers of a counter."""

import hashlib
import math

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

# standard deviations, as in timm's vision transformers
_TOKENS = {"pos_embed": 0.02, "cls_token": 1e-6, "reg_token": 1e-6}


def draw(shape: tuple[int, ...], *, std: float, seed: int, name: str) -> torch.Tensor:
    """Draw a bell-shaped tensor with mean 0 whose bits are the same everywhere.

    They depend on neither processor, thread count nor library version. Each value is the sum of
    the four 16-bit parts of a 64-bit integer (Irwin-Hall: no value beyond 3.47 standard
    deviations), centred and scaled in float64 and rounded once to float32. The integers are those
    of numpy's Philox, keyed by seed and name, so that no value depends on what else is drawn.

    Args:
        shape: Shape of the tensor.
        std: Standard deviation.
        seed: Seed.
        name: Name of the tensor, such as that of a parameter.

    Returns:
        float32, of that shape.

    Source:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")
    integers = np.random.Philox(key=key).random_raw(math.prod(shape))
    parts = [(integers >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
    total = np.sum(parts, axis=0, dtype=np.uint64)
    # standard deviation of the total: 4 x (65536^2 - 1) / 12 under the root
    unit = math.sqrt((2**32 - 1) / 3)
    values = (total.astype(np.float64) - 2 * 65535) * (std / unit)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


@torch.no_grad()
def redraw(
    network: nn.Module, *, seed: int, linear_std: float | None = None, only: str = ""
) -> nn.Module:
    """Replace the random initial weights of a network, in place, by those of `draw`.

    Linear and convolution layers get the standard deviation of torch's own initialisation,
    1 / sqrt(3 x fan-in), for weights and biases; what torch sets to constants (norms) stays.

    Args:
        network: Newly built, of linear, convolution and norm layers, and the tokens of a timm
            vision transformer.
        seed: Seed.
        linear_std: Standard deviation of linear layers, whose biases are then 0, in place of
            torch's; timm's vision transformers have .02.
        only: Part of the name of the layers to redraw; all by default.

    Returns:
        The network.
    """
    for name, layer in network.named_modules():
        if not isinstance(layer, (nn.Linear, _ConvNd)) or only not in name:
            continue
        std, bias_std = (1 / math.sqrt(3 * layer.weight[0].numel()),) * 2
        if linear_std and isinstance(layer, nn.Linear):
            std, bias_std = linear_std, 0.0
        layer.weight.copy_(draw(layer.weight.shape, std=std, seed=seed, name=f"{name}.weight"))
        if layer.bias is not None:
            layer.bias.copy_(draw(layer.bias.shape, std=bias_std, seed=seed, name=f"{name}.bias"))
    for name, token in network.named_parameters():
        if name in _TOKENS and not only:
            token.copy_(draw(token.shape, std=_TOKENS[name], seed=seed, name=name))
    return network
