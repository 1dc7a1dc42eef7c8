import pytest
import timm
import torch

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.initialization import selected_weights

from ..conftest import tiny_transformer


def test_weights_of_every_second_channel_and_head():
    large = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
    with torch.no_grad():
        for block in large.blocks:
            block.ls1.gamma.uniform_(0.5, 2)
    small = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = selected_weights(large, small)
    small.load_state_dict(state)
    qkv = large.blocks[3].attn.qkv.weight
    assert torch.equal(state["blocks.3.attn.qkv.weight"][:64, :5], qkv[:64, 0:10:2])
    assert torch.equal(state["blocks.3.attn.qkv.weight"][64:128, 0], qkv[128:192, 0])
    wanted = large.blocks[3].attn.proj.weight[::2] * large.blocks[3].ls1.gamma[::2, None]
    assert torch.allclose(state["blocks.3.attn.proj.weight"][:, :64], wanted[:, :64])
    assert state["pos_embed"].shape == (1, 197, 192) and state["patch_embed.proj.weight"].shape[
        -2:
    ] == (16, 16)


def test_the_weights_of_an_equal_transformer_are_its_own():
    large, small = (tiny_transformer(seed=seed) for seed in (0, 1))
    small.load_state_dict(selected_weights(large, small))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(small(images), large(images), atol=1e-6)


@pytest.mark.parametrize(
    ("large", "message"),
    [
        (
            lambda: timm.create_model("resnet10t", num_classes=0),
            "weights are selected from a vision transformer",
        ),
        (
            tiny_transformer,
            "does not hold one of 192 in 3 heads and 12 blocks; name a larger one of the family",
        ),
    ],
)
def test_starts_of_another_architecture(large, message):
    with pytest.raises(InputError, match=message):
        selected_weights(large(), timm.create_model("vit_tiny_patch16_224", num_classes=0))
