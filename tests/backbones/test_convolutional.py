"""A convolutional network goes through everything that a backbone goes through, but attention."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.sizes import at_size
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.linear import classify_linear
from radiodino_utils.evaluation.logistic import classify_logistic
from radiodino_utils.explain.attention import attention_maps, with_attention
from radiodino_utils.explain.class_activation import (
    Scores,
    Similarity,
    grad_cam,
    with_grad_cam,
)
from radiodino_utils.explain.faithfulness import explanation_maps
from radiodino_utils.explain.patches import patch_tokens
from radiodino_utils.explain.tables import against_controls, explanation_scores
from radiodino_utils.features.dense import dense_backbone
from radiodino_utils.features.engines import make_engine
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.features.feature_model import as_tensor
from radiodino_utils.features.patch_maps import extract_patch_maps

from ..synthetic_segmentation import synthetic_segmentation

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)
FP32 = {"engine": "torch", "precision": "fp32"}


@pytest.fixture(scope="module", params=["resnet10t", "tf_efficientnet_lite0"])
def network(request):
    torch.manual_seed(0)
    backbone = from_model(request.param, timm.create_model(request.param, num_classes=0), "random")
    return at_size(backbone, (64, 64))


@pytest.fixture
def halves(tmp_path):
    """Two classes that a look at the brightness of the upper half tells apart."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 24), ("val", 12), ("test", 12)):
        labels = np.arange(n)[:, None] % 2
        images = generator.integers(0, 120, (n, 32, 32), np.uint8)
        images[:, :16] += (120 * labels[:, :, None]).astype(np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "halves.npz", **arrays)
    return load_dataset(f"npz:{tmp_path / 'halves.npz'}")


def test_features_are_the_global_average_pool_on_both_engines(network):
    batch = network.seen(IMAGE)[None, ..., None].copy()
    by_torch, by_openvino = (
        make_engine(network, engine=engine, precision="fp32")(batch)
        for engine in ("torch", "openvino")
    )
    with torch.inference_mode():
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (network.preprocessing.mean, network.preprocessing.std)
        )
        pooled = network.model((as_tensor(network, IMAGE) / 255 - mean) / std)
    assert len(by_torch) == len(by_openvino) == 1 and by_torch[0].shape == (
        1,
        network.embedding_dim,
    )
    np.testing.assert_allclose(by_torch[0], pooled, atol=1e-4)
    np.testing.assert_allclose(by_torch[0], by_openvino[0], atol=1e-3)


def test_probes_and_knn_read_its_features(network, halves):
    features = extract_features(network, halves, **FP32)
    for classify in (classify_knn, classify_logistic, classify_linear):
        assert classify(features).probabilities.shape == (12, 2)


def test_fine_tuning_lowers_its_loss(network, halves):
    quick = FinetuneConfig(
        lr=1e-3, batch_size=8, epochs=3, warmup_epochs=1, precision="fp32", dropout=0.0
    )
    losses = finetune(network, halves, config=quick).curve["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    with pytest.raises(
        InputError, match="has no attention for LoRA to adapt; use the protocol finetune"
    ):
        finetune(network, halves, config=FinetuneConfig.of("lora"))


def test_grad_cam_weighs_its_last_stage(network):
    reference = np.random.default_rng(1).normal(size=network.embedding_dim).astype(np.float32)
    probe = Similarity(reference)
    heat = grad_cam(network, probe, IMAGE, 0)
    caught = []
    stage = network.model.get_submodule(network.model.feature_info[-1]["module"])
    hook = stage.register_forward_hook(lambda module, inputs, output: caught.append(output))
    score = Scores(network, probe)(as_tensor(network, IMAGE).requires_grad_(True))[0, 0]
    hook.remove()
    weights = torch.autograd.grad(score, caught[0])[0].mean((2, 3), keepdim=True)
    wanted = nn.functional.relu((weights * caught[0]).sum(1))[0].detach()
    assert heat.shape == (2, 2)
    np.testing.assert_allclose(
        heat, (wanted - wanted.min()) / (wanted.max() - wanted.min() + 1e-7), atol=1e-3
    )


def test_dense_maps_are_its_stage_of_stride_16(network):
    dense = dense_backbone(network, size=96)
    width = next(
        stage["num_chs"] for stage in network.model.feature_info if stage["reduction"] == 16
    )
    features = extract_patch_maps(network, synthetic_segmentation(), size=96, **FP32)
    assert features.maps.shape == (13, width, 6, 6) and dense.patch_size == 16
    with torch.inference_mode():
        final, stages = network.model.forward_intermediates(torch.ones(1, 3, 96, 96))
        stage = next(stage for stage in stages if stage.shape[-1] == 6)
        np.testing.assert_allclose(dense.model(torch.ones(1, 3, 96, 96)), stage, atol=1e-5)
    assert dense_backbone(network, size=96, blocks=(3, 7, 11)).outputs == dense.outputs


def test_grad_cam_takes_it_and_attention_leaves_it_out(network, capsys):
    assert with_grad_cam([network, load_backbone("pixels")]) == [network]
    assert not with_attention([network])
    assert capsys.readouterr().out.count("has no attention to show") == 2


def test_it_has_every_map_but_attention_and_each_is_scored(network):
    probe = nn.Linear(network.embedding_dim, 3)
    maps = explanation_maps(network, {"probe": probe}, IMAGE)
    assert list(maps) == ["Grad-CAM probe", "centre", "even"]
    assert {map_.shape for map_ in maps.values()} == {(2, 2)}
    masks = np.ones((1, *IMAGE.shape[:2]), bool)
    probes = {network.name: {"probe": probe}, "transformer": {"probe": nn.Linear(192, 3)}}
    transformer = replace(load_backbone("random-t16"), name="transformer")
    scores = explanation_scores([transformer, network], probes, [IMAGE], masks, judge="probe")
    compared = against_controls(scores)
    pair = compared[compared["comparison"] == f"transformer against {network.name}"]
    assert set(pair["map"]) == {"Grad-CAM probe"} and not compared["n"].eq(0).any()


@pytest.mark.parametrize("read", [attention_maps, patch_tokens])
def test_what_needs_tokens_says_so(network, read):
    with pytest.raises(InputError, match="has no attention to show; choose a vision transformer"):
        read(network, IMAGE)


def test_a_size_that_is_no_multiple_of_its_stride(network):
    with pytest.raises(InputError, match=r"no multiple of the patch of .* \(32\); take 96 x 96"):
        at_size(network, (100, 100))
