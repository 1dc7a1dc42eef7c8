"""DINOv2 weights out of an ONNX graph that was exported from Hugging Face's implementation."""

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import openvino

_LINEAR = {"attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def dinov2_state(graph: bytes) -> dict[str, torch.Tensor]:
    """Read the backbone of an ONNX graph.

    The positions are those that the graph itself interpolates for its input size.

    Args:
        graph: The ONNX file.

    Returns:
        Tensors by timm's names.
    """
    reader = _Graph(graph)
    state = {
        "cls_token": reader.named("embeddings.cls_token"),
        "pos_embed": reader.evaluated("/backbone/embeddings/Concat_6"),
        "patch_embed.proj.weight": reader.named("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": reader.named("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": reader.named("layernorm.weight"),
        "norm.bias": reader.named("layernorm.bias"),
    }
    for number in reader.layers:
        state |= _block(reader, number)
    return state


class _Graph:
    """The constants of an ONNX graph.

    Args:
        content: The ONNX file.
    """

    def __init__(self, content: bytes) -> None:
        import openvino

        self.model = openvino.Core().read_model(content)
        self.nodes = {node.get_friendly_name(): node for node in self.model.get_ordered_ops()}

    @property
    def layers(self) -> list[int]:
        """Numbers of the blocks."""
        matches = (re.match(r"backbone\.encoder\.layer\.(\d+)\.", name) for name in self.nodes)
        return sorted({int(match[1]) for match in matches if match})

    def named(self, name: str) -> torch.Tensor:
        """Return a parameter by Hugging Face's name."""
        return _constant(self.nodes[f"backbone.{name}"])

    def matrix(self, path: str) -> torch.Tensor:
        """Return the weight of a linear layer: MatMul takes x @ weight, which lost its name."""
        return _constant(self.nodes[f"/backbone/{path}/MatMul"].input_value(1).get_node()).T

    def evaluated(self, path: str) -> torch.Tensor:
        """Return the value of a node that depends on the input's size only."""
        import openvino

        target = self.nodes[path]
        inputs = [node for node in _ancestors(target) if node.get_type_name() == "Parameter"]
        model = openvino.Model([target.output(0)], inputs)
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        images = [np.zeros((1, 3, 224, 224), np.float32) for _ in inputs]
        return torch.from_numpy(compiled(images)[0].copy())


def _block(reader: _Graph, number: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a block, by timm's names."""
    layer, block = f"encoder.layer.{number}", f"blocks.{number}"
    attention, path = f"{layer}.attention.attention", f"encoder/layer.{number}"
    parts = ("query", "key", "value")
    weights = [reader.matrix(f"{path}/attention/attention/{part}") for part in parts]
    biases = [reader.named(f"{attention}.{part}.bias") for part in parts]
    state = {
        f"{block}.attn.qkv.weight": torch.cat(weights),
        f"{block}.attn.qkv.bias": torch.cat(biases),
    }
    for theirs, ours in _LINEAR.items():
        state[f"{block}.{ours}.weight"] = reader.matrix(f"{path}/{theirs.replace('.', '/')}")
        state[f"{block}.{ours}.bias"] = reader.named(f"{layer}.{theirs}.bias")
    for norm in ("norm1", "norm2"):
        for kind in ("weight", "bias"):
            state[f"{block}.{norm}.{kind}"] = reader.named(f"{layer}.{norm}.{kind}")
    for scale in ("1", "2"):
        state[f"{block}.ls{scale}.gamma"] = reader.named(f"{layer}.layer_scale{scale}.lambda1")
    return state


def _constant(node: "openvino.Node") -> torch.Tensor:
    return torch.from_numpy(np.array(node.get_data(), np.float32))


def _ancestors(node: "openvino.Node") -> list["openvino.Node"]:
    """Return a node and all nodes that it depends on."""
    visited, waiting = {}, [node]
    while waiting:
        current = waiting.pop()
        if current.get_friendly_name() not in visited:
            visited[current.get_friendly_name()] = current
            waiting += [value.get_node() for value in current.input_values()]
    return list(visited.values())
