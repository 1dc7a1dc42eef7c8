import argparse
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from radiodino_utils.backbones.architecture import load_strictly, vision_transformer
from radiodino_utils.backbones.checkpoints import read_state_dict
from radiodino_utils.backbones.fingerprints import fingerprint
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError

from ..conftest import tiny_transformer

HEADS = {
    "head.weight": torch.zeros(9, 128),
    "dino_head.mlp.0.weight": torch.zeros(2, 2),
    "ibot_head.last_layer.weight_g": torch.zeros(2),
    "mask_token": torch.zeros(1, 128),
}


def wrapped(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def dino(state, other):
    """DINO: both networks, wrapped for parallel training, beside optimizer and arguments."""
    headed = state | {
        "head.mlp.0.weight": torch.zeros(2, 2),
        "head.last_layer.weight_v": torch.zeros(2, 2),
    }
    return {
        "student": wrapped(wrapped(other, "backbone."), "module."),
        "teacher": wrapped(headed, "backbone."),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 9)},
    }


def chunked(state):
    """DINOv2 under FSDP keeps blocks in chunks: blocks.CHUNK.BLOCK."""
    return {name.replace("blocks.", "blocks.0.", 1): tensor for name, tensor in state.items()}


LAYOUTS = {
    "timm": lambda state, other: state,
    "timm with heads": lambda state, other: state | HEADS,
    "timm training": lambda state, other: {"state_dict": wrapped(state, "module."), "epoch": 3},
    "dino": dino,
    "dino student": lambda state, other: {"student": wrapped(state, "module.backbone.")},
    "dinov2": lambda state, other: {
        "teacher": wrapped(state, "backbone.") | wrapped(HEADS, ""),
        "iteration": 9,
    },
    "dinov2 chunked": lambda state, other: {"teacher": wrapped(chunked(state), "backbone.")},
    "dinov2 flat": lambda state, other: {
        "model": wrapped(state, "teacher.backbone.")
        | wrapped(HEADS, "teacher.")
        | wrapped(other, "student.backbone.")
    },
    "nested": lambda state, other: {
        "teacher": {"backbone": state, "dino_head": {"weight": torch.zeros(2)}}
    },
    "ibot": lambda state, other: {"state_dict": wrapped(state | HEADS, "module.")},
    "compiled": lambda state, other: wrapped(state, "_orig_mod."),
    "half precision": lambda state, other: {name: tensor.half() for name, tensor in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, tmp_path):
    model, other = tiny_transformer(), tiny_transformer(seed=1)
    file = tmp_path / "checkpoint.pth"
    torch.save(LAYOUTS[layout](model.state_dict(), other.state_dict()), file)
    loaded = load_backbone(f"file:{file}?heads=2")
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tolerance = 0.02 if layout == "half precision" else 1e-5
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model.forward_features(image),
            model.forward_features(image),
            atol=tolerance,
            rtol=tolerance,
        )


def test_safetensors(tmp_path):
    model = tiny_transformer()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    assert load_backbone(
        f"file:{tmp_path / 'tiny.safetensors'}", num_heads=2
    ).fingerprint == fingerprint(model)


@pytest.mark.parametrize(
    "options",
    [
        {
            "patch_size": 14,
            "img_size": 56,
            "reg_tokens": 4,
            "no_embed_class": True,
            "init_values": 1e-5,
        },
        {"reg_tokens": 4, "img_size": 48},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"embed_dim": 192, "num_heads": 3, "mlp_ratio": 2.0, "patch_size": 8},
        {"qkv_bias": False, "depth": 1},
        {"embed_dim": 48, "num_heads": 1},
    ],
    ids=str,
)
def test_the_architecture_is_found_in_the_tensors(options):
    model = tiny_transformer(**options)
    loaded = vision_transformer(
        model.state_dict(), "this test", num_heads=options.get("num_heads", 2)
    )
    size = options.get("img_size", 32)
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.forward_features(image), model.forward_features(image))
    assert loaded.num_prefix_tokens == model.num_prefix_tokens
    assert not loaded.training


def test_registers_in_dinov2s_own_layout():
    model = tiny_transformer(
        patch_size=14, img_size=56, reg_tokens=4, no_embed_class=True, init_values=1e-5
    )
    state = model.state_dict()
    position = torch.randn(1, 1, 128)  # DINOv2 adds a position to its class token
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - position
    loaded = vision_transformer(state, "this test", num_heads=2)
    image = torch.randn(1, 3, 56, 56)
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.forward_features(image), model.forward_features(image), atol=1e-4, rtol=1e-4
        )


def test_all_faults_are_listed(tmp_path):
    state = tiny_transformer().state_dict()
    del state["blocks.1.norm2.weight"], state["norm.bias"]
    state |= {"decoder.weight": torch.zeros(3), "blocks.0.attn.proj.weight": torch.zeros(5, 6)}
    save_file(state, tmp_path / "faulty.safetensors")
    with pytest.raises(InputError) as caught:
        load_backbone(f"file:{tmp_path / 'faulty.safetensors'}?heads=2")
    for fault in (
        "faulty.safetensors: the tensors do not fit",
        "missing blocks.1.norm2.weight",
        "missing norm.bias",
        "unexpected decoder.weight",
        "blocks.0.attn.proj.weight is (5, 6), not (128, 128)",
    ):
        assert fault in str(caught.value)


def test_nothing_is_loaded_from_a_faulty_state_dict():
    model = tiny_transformer()
    before = fingerprint(model)
    with pytest.raises(InputError, match="unexpected more"):
        load_strictly(
            model, tiny_transformer(seed=1).state_dict() | {"more": torch.zeros(1)}, "this test"
        )
    assert fingerprint(model) == before


class Malicious:
    """Unpickled freely, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize(
    "write",
    [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))],
    ids=["torch", "pickle"],
)
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, suffix, write):
    mark, file = tmp_path / "executed", tmp_path / f"malicious{suffix}"
    write({"teacher": tiny_transformer().state_dict(), "extra": Malicious(mark)}, file)
    with pytest.raises(
        InputError, match=rf"malicious\{suffix}: not a weights file that can be read safely"
    ):
        read_state_dict(file)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 100, -1000, -1])
def test_truncated_files(tmp_path, name, keep):
    file = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(
        tiny_transformer().state_dict(), file
    )
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=name):
        read_state_dict(file)


@pytest.mark.parametrize(
    "value",
    [
        {"epoch": 3},
        [1, 2],
        torch.zeros(3),
        {"teacher": {"a": 1}},
        {},
        {"patch_embed.proj.weight": torch.zeros(3)},
    ],
    ids=["number", "list", "tensor", "nested", "empty", "other"],
)
def test_files_without_a_vision_transformer(tmp_path, value):
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(
        InputError, match=r"other\.pth: (holds no state dict|not a vision transformer)"
    ):
        load_backbone(f"file:{tmp_path / 'other.pth'}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.proj.weight", (128, 3)),
        ("patch_embed.proj.weight", (128, 1, 16, 16)),
        ("patch_embed.proj.weight", (200, 3, 16, 16)),
        ("pos_embed", (5, 128)),
        ("pos_embed", (1, 7, 128)),
        ("blocks.0.mlp.fc1.weight", (512,)),
    ],
)
def test_odd_shapes_are_input_errors(tmp_path, name, shape):
    torch.save(tiny_transformer().state_dict() | {name: torch.zeros(shape)}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd\.pth: "):
        load_backbone(f"file:{tmp_path / 'odd.pth'}")


def test_other_architectures_and_missing_files(tmp_path):
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(
        InputError,
        match=r"resnet\.pth: not a vision transformer that timm knows: missing patch_embed",
    ):
        load_backbone(f"file:{tmp_path / 'resnet.pth'}")
    with pytest.raises(InputError, match=r"nowhere\.pth: there is no such weights file"):
        load_backbone(f"file:{tmp_path / 'nowhere.pth'}")


def test_the_fingerprint_depends_on_every_bit():
    model = tiny_transformer()
    before = fingerprint(model)
    assert fingerprint(tiny_transformer()) == before
    with torch.no_grad():
        value = model.blocks[1].mlp.fc2.bias[5].clone()
        model.blocks[1].mlp.fc2.bias[5] = torch.nextafter(value, value + 1)
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("width", "heads"), [(1280, 16), (1152, 16), (192, 12), (192, 3), (128, 4)]
)
def test_the_number_of_heads_is_named_or_refused(tmp_path, width, heads):
    model = tiny_transformer(embed_dim=width, num_heads=heads, depth=1, mlp_ratio=1.0)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for file, metadata in (
        (tmp_path / "plain.safetensors", None),
        (tmp_path / "named.safetensors", {"num_heads": str(heads)}),
    ):
        save_file(model.state_dict(), file, metadata)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    for name in ("plain.safetensors", "plain.pth"):
        with pytest.raises(
            InputError,
            match=rf"{name}: nothing says how many attention heads .* file:PATH\?heads=6",
        ):
            load_backbone(f"file:{tmp_path / name}")
        by_name = load_backbone(f"file:{tmp_path / name}?heads={heads}")
        by_option = load_backbone(f"file:{tmp_path / name}", num_heads=heads)
        assert by_name.name == by_option.name == f"file:{tmp_path / name}?heads={heads}"
    by_metadata = load_backbone(f"file:{tmp_path / 'named.safetensors'}")
    with torch.inference_mode():
        for backbone in (by_name, by_option, by_metadata):
            torch.testing.assert_close(backbone.model(image), model(image))


def test_heads_that_cannot_be(tmp_path):
    save_file(tiny_transformer().state_dict(), tmp_path / "tiny.safetensors", {"num_heads": "2"})
    file = f"file:{tmp_path / 'tiny.safetensors'}"
    with pytest.raises(
        InputError, match="contradict each other .heads in the name 4, the metadata 2"
    ):
        load_backbone(f"{file}?heads=4")
    with pytest.raises(InputError, match="heads=two is no number"):
        load_backbone(f"{file}?heads=two")
    torch.save(tiny_transformer().state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(InputError, match="5 heads do not divide the width 128"):
        load_backbone(f"file:{tmp_path / 'tiny.pth'}?heads=5")
    with pytest.raises(
        InputError, match="num_heads 3: is an option of file:PATH; random-t16 has its own"
    ):
        load_backbone("random-t16", num_heads=3)


def test_the_bundled_weights_have_three_heads():
    assert load_backbone("radiodino-mini").model.blocks[0].attn.num_heads == 3
