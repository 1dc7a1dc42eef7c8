from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from timm.layers import set_fused_attn, use_fused_attn
from timm.utils import AttentionExtract

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.sizes import at_size
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.attention import (
    attention_maps,
    attention_rollout,
    head_diversity,
    mass_masks,
    with_attention,
)

from ..conftest import tiny_transformer


def naive(model, backbone, image, block):
    """Return softmax(QK^T / sqrt(d)) of the class token in one block, and the class token."""
    how = backbone.preprocessing
    colour = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image
    batch = torch.tensor((colour / 255 - how.mean) / how.std, dtype=torch.float32).permute(2, 0, 1)[
        None
    ]
    inputs = []
    hook = model.blocks[block].norm1.register_forward_hook(
        lambda module, args, output: inputs.append(output)
    )
    with torch.inference_mode():
        tokens = model.forward_features(batch)
        hook.remove()
        attention = model.blocks[block].attn
        query, key, _ = (
            attention.qkv(inputs[0])[0]
            .reshape(-1, 3, attention.num_heads, attention.head_dim)
            .unbind(1)
        )
        scores = torch.einsum("hd,nhd->hn", query[0], key) / attention.head_dim**0.5
    return scores.softmax(-1).numpy(), tokens[0, 0].numpy()


@pytest.mark.parametrize(
    ("registers", "size", "patch"), [(0, 32, 16), (4, 48, 16), (4, 56, 14), (0, 40, 8)]
)
@pytest.mark.parametrize("colour", [False, True])
def test_rows_equal_the_definition(weights_file, registers, size, patch, colour):
    model = tiny_transformer(img_size=size, patch_size=patch, reg_tokens=registers)
    backbone = load_backbone(f"file:{weights_file(model)}")
    image = np.random.default_rng(0).integers(
        0, 256, (size, size, *([3] if colour else [])), np.uint8
    )
    attention = attention_maps(backbone, image, blocks=(0, -1))
    grid = size // patch
    assert attention.rows.shape == (2, 2, 1 + registers + grid**2)
    assert attention.maps.shape == (2, 2, grid, grid)
    np.testing.assert_allclose(attention.rows.sum(-1), 1, atol=1e-5)
    for rows, block in zip(attention.rows, (0, 1), strict=True):
        expected, token = naive(model, backbone, image, block)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(attention.embedding, token, atol=1e-4)
    np.testing.assert_array_equal(
        attention.maps, attention.rows[..., 1 + registers :].reshape(2, 2, grid, grid)
    )
    assert attention.rows.std() > 1e-4


def test_maps_lie_the_way_the_image_lies(weights_file):
    model = tiny_transformer(img_size=64)
    with torch.no_grad():
        model.pos_embed.zero_()  # so that attention depends on the brightness alone
    backbone = load_backbone(f"file:{weights_file(model)}")
    image = np.zeros((64, 64), np.uint8)
    image[16:32, 48:64] = 255  # second row, last column
    maps = attention_maps(backbone, image, blocks=(0,)).maps[0]
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


def test_the_image_is_resized_as_for_the_features(tiny_backbone):
    attention = attention_maps(
        tiny_backbone, np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    )
    assert attention.image.shape == (32, 32)


PREFIXES = {
    0: {"class_token": False, "global_pool": "avg", "fc_norm": False},
    1: {},
    5: {"reg_tokens": 4},
}


@pytest.fixture
def unfused():
    """Models built meanwhile have no fused attention."""
    before = use_fused_attn()
    set_fused_attn(False)
    yield
    set_fused_attn(bool(before))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("size", "patch"), [((32, 48), 8), ((56, 28), 14), ((48, 48), 16)])
def test_rows_equal_what_timm_extracts(prefix, size, patch, unfused):
    model = tiny_transformer(img_size=size, patch_size=patch, **PREFIXES[prefix])
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    set_fused_attn(True)
    backbone = from_model(
        "fused", tiny_transformer(img_size=size, patch_size=patch, **PREFIXES[prefix]), "made"
    )
    assert backbone.model.blocks[0].attn.fused_attn and backbone.num_prefix_tokens == prefix
    attention = attention_maps(backbone, image, blocks=(0, 1))
    how = backbone.preprocessing
    batch = torch.tensor((image / 255 - how.mean) / how.std, dtype=torch.float32).permute(2, 0, 1)[
        None
    ]
    with torch.inference_mode():
        matrices = list(AttentionExtract(model, method="hook")(batch).values())
    for rows, matrix in zip(attention.rows, matrices, strict=True):
        expected = matrix[0, :, 0] if prefix else matrix[0].mean(1)
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(attention.rows.sum(-1), 1, atol=1e-5)
    assert attention.maps.shape[2:] == (size[0] // patch, size[1] // patch)


@pytest.mark.parametrize(
    ("architecture", "prefix"),
    [
        ("test_vit", 1),
        ("test_vit2", 1),
        ("vit_small_patch16_dinov3", 5),
        ("deit_tiny_distilled_patch16_224", 2),
    ]
    + [("vit_relpos_small_patch16_224", 0)],
)
def test_architectures_of_timm_on_a_size_that_is_not_square(architecture, prefix):
    backbone = from_model(
        architecture, timm.create_model(architecture, num_classes=0, img_size=(64, 96)), "random"
    )
    assert (backbone.num_prefix_tokens, backbone.preprocessing.size) == (prefix, (64, 96))
    attention = attention_maps(
        backbone, np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
    )
    assert attention.maps.shape[2:] == (4, 6) and attention.rows.shape[2] == prefix + 24
    np.testing.assert_allclose(attention.rows.sum(-1), 1, atol=1e-5)


def test_another_size_leaves_the_backbone_as_it_was(tiny_backbone):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.model.state_dict().items()}
    wide = at_size(tiny_backbone, (48, 80))
    attention = attention_maps(wide, np.zeros((60, 60), np.uint8))
    assert attention.maps.shape[2:] == (3, 5) and attention.image.shape == (48, 80)
    assert all(
        torch.equal(before[name], tensor)
        for name, tensor in tiny_backbone.model.state_dict().items()
    )
    assert attention_maps(tiny_backbone, np.zeros((60, 60), np.uint8)).maps.shape[2:] == (2, 2)
    assert at_size(tiny_backbone, (32, 32)) is tiny_backbone


def test_rollout_equals_the_product_of_the_blocks(tiny_backbone, unfused):
    image = np.random.default_rng(1).integers(0, 256, (32, 32), np.uint8)
    batch = torch.tensor(
        (image[..., None] / 255 - tiny_backbone.preprocessing.mean)
        / tiny_backbone.preprocessing.std
    )
    model = tiny_transformer()
    with torch.inference_mode():
        matrices = AttentionExtract(model, method="hook")(
            batch.float().permute(2, 0, 1)[None]
        ).values()
    product = torch.eye(5)
    for matrix in matrices:
        product = (matrix[0].mean(0) + torch.eye(5)) / 2 @ product
    np.testing.assert_allclose(
        attention_rollout(tiny_backbone, image).ravel(), product[0, 1:], atol=1e-5
    )


MAPS = arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32))


@given(maps=MAPS, share=st.floats(0.05, 1))
def test_mass_masks_are_the_smallest_sets_that_hold_the_share(maps, share):
    for one, mask in zip(maps.astype(float), mass_masks(maps, share), strict=True):
        total, held = one.sum(), one[mask]
        assert held.sum() >= share * total - 1e-6
        if held.size and total > 0:
            assert held.sum() - held.min() < share * total + 1e-6
            assert mask.all() or held.min() >= one[~mask].max()


def test_mass_masks_are_those_of_dino():
    one = np.random.default_rng(0).random((6, 6))
    values, order = torch.sort(
        torch.from_numpy(one.ravel())
    )  # from here: facebookresearch/dino, visualize_attention.py
    values /= values.sum()
    expected = (values.cumsum(0) > 1 - 0.6)[order.argsort()].reshape(6, 6)
    np.testing.assert_array_equal(mass_masks(one), expected)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_that_is_none(share):
    with pytest.raises(
        InputError, match=f"share {share}: choose a share of the mass above 0 and up to 1"
    ):
        mass_masks(np.ones((2, 2)), share)


def test_head_diversity_lies_between_equal_and_disjoint_heads():
    equal, disjoint = np.full((1, 3, 4), 0.25), np.eye(4)[None, :3]
    assert head_diversity(equal) == pytest.approx([0]) and head_diversity(
        disjoint
    ) == pytest.approx([1])
    assert 0 < head_diversity(np.random.default_rng(0).dirichlet(np.ones(4), (1, 3)))[0] < 1
    assert np.isnan(head_diversity(equal[:, :1]))


def test_what_has_no_attention_has_no_map(tiny_backbone, capsys):
    cnn = replace(tiny_backbone, name="resnet", model=timm.create_model("resnet10t", num_classes=0))
    blocks_without = replace(
        tiny_backbone,
        name="efficientnet",
        model=timm.create_model("test_efficientnet", num_classes=0),
    )
    for backbone in (load_backbone("pixels"), cnn, blocks_without):
        for function in (attention_maps, attention_rollout):
            with pytest.raises(
                InputError,
                match=f"^{backbone.name}: has no attention to show; choose a vision transformer",
            ):
                function(backbone, np.zeros((32, 32), np.uint8))
    assert with_attention([cnn, tiny_backbone]) == [tiny_backbone]
    assert capsys.readouterr().out.startswith("left out: resnet: has no attention to show")


def test_an_image_smaller_than_a_patch(tiny_backbone):
    with pytest.raises(
        InputError,
        match="an image of 40 x 9 pixels is smaller than a patch of file:.* give a larger image",
    ):
        attention_maps(tiny_backbone, np.zeros((40, 9), np.uint8))


@pytest.mark.parametrize("block", [2, -3])
def test_blocks_that_are_not_there(tiny_backbone, block):
    with pytest.raises(InputError, match=f"has 2 blocks, no block {block}"):
        attention_maps(tiny_backbone, np.zeros((32, 32), np.uint8), blocks=(0, block))
