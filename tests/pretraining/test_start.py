from dataclasses import replace

import pytest
import timm
import torch

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.random_weights import redraw
from radiodino_utils.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.start import start_transformer


def made(name, **options):
    with torch.random.fork_rng():
        return redraw(timm.create_model(name, num_classes=0, **options), seed=0)


def tiny(name="test_vit", **options):
    return from_model("mine", made(name, **options), "a test")


def test_the_start_computes_what_the_backbone_does_under_its_own_preprocessing():
    own = tiny()
    own = replace(own, preprocessing=replace(own.preprocessing, mean=(0.3,) * 3, std=(0.5,) * 3))
    start, pixels = start_transformer(own), torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        wanted = own.model((pixels - 0.3) / 0.5)
        assert torch.allclose(start((pixels - mean) / std), wanted, atol=1e-4)
        assert start(torch.rand(1, 3, 64, 64)).shape == (1, 64)


def test_backbones_without_tokens_to_continue_from():
    network = from_model("network", made("resnet10t"), "a test")
    eva = from_model("eva", made("eva02_tiny_patch14_224", global_pool="token"), "a test")
    for backbone, hint in (
        (network, "^network: has no class and patch tokens"),
        (load_backbone("pixels"), "^pixels: has no class and patch tokens"),
        (tiny(global_pool="avg", class_token=False), "^mine: has no class token"),
        (tiny("test_vit", pre_norm=True), "^mine: is no plain vision transformer.*norm_pre"),
        (tiny("test_vit", act_layer="relu"), "^mine: is no plain vision .*do not tell what it"),
        (eva, "^eva: is no plain vision transformer"),
    ):
        with pytest.raises(InputError, match=hint) as caught:
            start_transformer(backbone)
        assert len(str(caught.value)) < 3000
