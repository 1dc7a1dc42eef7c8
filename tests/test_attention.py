import numpy as np
import pytest
import torch

from radiodino_utils.attention import attention_maps
from radiodino_utils.backbones import load_backbone
from radiodino_utils.errors import InputError

from .conftest import tiny_transformer


def naive(model, backbone, picture, block):
    """softmax(QK^T / sqrt(d)) of the class token in one block, written out, and the class token behind the last norm."""
    how = backbone.preprocessing
    colour = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
    batch = torch.tensor((colour / 255 - how.mean) / how.std, dtype=torch.float32).permute(2, 0, 1)[None]
    inputs = []
    hook = model.blocks[block].norm1.register_forward_hook(lambda module, args, output: inputs.append(output))
    with torch.inference_mode():
        tokens = model.forward_features(batch)
        hook.remove()
        attention = model.blocks[block].attn
        query, key, _ = attention.qkv(inputs[0])[0].reshape(-1, 3, attention.num_heads, attention.head_dim).unbind(1)
        scores = torch.einsum("hd,nhd->hn", query[0], key) / attention.head_dim**0.5
    return scores.softmax(-1).numpy(), tokens[0, 0].numpy()


@pytest.mark.parametrize(("registers", "size", "patch"), [(0, 32, 16), (4, 48, 16), (4, 56, 14), (0, 40, 8)])
@pytest.mark.parametrize("colour", [False, True])
def test_rows_equal_the_definition(weights_file, registers, size, patch, colour):
    model = tiny_transformer(img_size=size, patch_size=patch, reg_tokens=registers)
    backbone = load_backbone(f"file:{weights_file(model)}")
    picture = np.random.default_rng(0).integers(0, 256, (size, size, *([3] if colour else [])), np.uint8)
    attention = attention_maps(backbone, picture, blocks=(0, -1))
    grid = size // patch
    assert attention.rows.shape == (2, 2, 1 + registers + grid**2)
    assert attention.maps.shape == (2, 2, grid, grid)
    np.testing.assert_allclose(attention.rows.sum(-1), 1, atol=1e-5)
    for rows, block in zip(attention.rows, (0, 1), strict=True):
        expected, token = naive(model, backbone, picture, block)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(attention.embedding, token, atol=1e-4)
    np.testing.assert_array_equal(attention.maps, attention.rows[..., 1 + registers :].reshape(2, 2, grid, grid))
    assert attention.rows.std() > 1e-4


def test_maps_lie_the_way_the_picture_lies(weights_file):
    model = tiny_transformer(img_size=64)
    with torch.no_grad():  # attention that follows brightness: positions silent, keys equal to the bright patch's token
        model.pos_embed.zero_()
    backbone = load_backbone(f"file:{weights_file(model)}")
    picture = np.zeros((64, 64), np.uint8)
    picture[16:32, 48:64] = 255  # second row, last column
    maps = attention_maps(backbone, picture, blocks=(0,)).maps[0]
    for head in maps:
        others = np.delete(head.ravel(), 1 * 4 + 3)
        assert others.std() < 1e-6
        assert abs(head[1, 3] - others[0]) > 1e-5


def test_fused_attention_is_as_it_was(tiny_backbone):
    layers = [block.attn for block in tiny_backbone.model.blocks]
    layers[0].fused_attn, layers[1].fused_attn = True, False
    attention_maps(tiny_backbone, np.zeros((32, 32), np.uint8), blocks=(0, 1, -1, 0))
    assert [layer.fused_attn for layer in layers] == [True, False]
    assert not any(layer.attn_drop._forward_hooks for layer in layers)


def test_fused_attention_is_as_it_was_after_an_error(tiny_backbone, monkeypatch):
    layer = tiny_backbone.model.blocks[-1].attn
    layer.fused_attn = True
    monkeypatch.setattr(layer, "proj", torch.nn.Linear(1, 1))
    with pytest.raises(RuntimeError):
        attention_maps(tiny_backbone, np.zeros((32, 32), np.uint8))
    assert layer.fused_attn
    assert not layer.attn_drop._forward_hooks


def test_the_picture_is_resized_as_for_the_features(tiny_backbone):
    attention = attention_maps(tiny_backbone, np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8))
    assert attention.picture.shape == (32, 32)


def test_what_has_no_class_token_has_no_map(weights_file):
    without = load_backbone(f"file:{weights_file(tiny_transformer(class_token=False, global_pool='avg', fc_norm=False))}")
    for backbone in (without, load_backbone("pixels")):
        with pytest.raises(InputError, match=f"{backbone.name}: has no class-token attention"):
            attention_maps(backbone, np.zeros((32, 32), np.uint8))


@pytest.mark.parametrize("block", [2, -3])
def test_blocks_that_are_not_there(tiny_backbone, block):
    with pytest.raises(InputError, match=f"has 2 blocks, no block {block}"):
        attention_maps(tiny_backbone, np.zeros((32, 32), np.uint8), blocks=(0, block))
