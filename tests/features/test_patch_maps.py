import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radiodino_utils.backbones.backbone import Backbone
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.preprocessing import Preprocessing
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.images import resized
from radiodino_utils.features import patch_maps as module
from radiodino_utils.features.dense import dense_backbone
from radiodino_utils.features.engines import TorchEngine
from radiodino_utils.features.openvino_engine import OpenVinoEngine
from radiodino_utils.features.patch_maps import extract_patch_maps

from ..conftest import tiny_transformer
from ..synthetic_segmentation import synthetic_segmentation

FP32 = {"engine": "torch", "precision": "fp32"}


def standardised(backbone, image, size):
    """What a model sees of a grey image: float32, [1, 3, size, size]."""
    mean, std = (
        torch.tensor(one)[:, None, None]
        for one in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    grey = torch.from_numpy(np.array(resized(image, size, "bilinear"))).float() / 255
    return ((grey - mean) / std)[None]


def test_maps_are_the_models_own_patch_tokens(tiny_backbone):
    dataset = synthetic_segmentation()
    features = extract_patch_maps(tiny_backbone, dataset, size=32, blocks=(0, -1), **FP32)
    assert features.maps.dtype == np.float16
    assert features.maps.shape == (13, 256, 2, 2)
    assert features.blocks == (0, 1)
    with torch.inference_mode():
        tokens = tiny_backbone.model.forward_features(
            standardised(tiny_backbone, dataset.images[5], 32)
        )
    last = tokens[0, tiny_backbone.num_prefix_tokens :].T.reshape(128, 2, 2)
    np.testing.assert_allclose(features.only(1)[5], last, atol=4e-3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4)
@given(cells=st.integers(1, 6))
def test_any_multiple_of_the_patch_with_timms_interpolation(tiny_backbone, cells):
    dense, image = (
        dense_backbone(tiny_backbone, size=16 * cells),
        np.arange(6400, dtype=np.uint8).reshape(80, 80),
    )
    with torch.inference_mode():
        ours = dense.model(standardised(tiny_backbone, image, 16 * cells))
        model = tiny_transformer(dynamic_img_size=True)  # timm interpolates at every call here
        theirs = model.forward_features(standardised(tiny_backbone, image, 16 * cells))[:, 1:]
    np.testing.assert_allclose(ours.flatten(2).transpose(1, 2), theirs, atol=1e-4)
    assert tiny_backbone.model.patch_embed.grid_size == (2, 2)


def test_pixels_are_the_grey_values_of_each_patch():
    dataset = synthetic_segmentation(shape=(32, 32))
    maps = extract_patch_maps(load_backbone("pixels"), dataset, size=32, **FP32).maps
    assert maps.shape == (13, 256, 2, 2)
    expected = dataset.images[3][16:, :16].ravel() / 255
    np.testing.assert_allclose(maps[3][:, 1, 0], expected, atol=1e-3)


def test_a_second_call_reads_and_a_damaged_file_is_made_again(tiny_backbone, monkeypatch):
    dataset, make = synthetic_segmentation(), module.make_engine
    first = extract_patch_maps(tiny_backbone, dataset, size=32, **FP32)
    before = np.array(first.maps)
    monkeypatch.setattr(module, "make_engine", lambda *_, **__: pytest.fail("computed again"))
    assert np.array_equal(extract_patch_maps(tiny_backbone, dataset, size=32, **FP32).maps, before)
    monkeypatch.setattr(module, "make_engine", make)
    content = first.path.read_bytes()
    damaged = first.path.with_suffix(
        ".damaged"
    )  # a mapped file that is cut short would end the process
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged.replace(first.path)
    again = extract_patch_maps(tiny_backbone, dataset, size=32, **FP32)
    assert np.array_equal(again.maps, before)
    assert extract_patch_maps(tiny_backbone, dataset, size=48, **FP32).path != first.path


def test_the_bf16_engine_agrees(tiny_backbone):
    dataset = synthetic_segmentation()
    exact, fast = (
        extract_patch_maps(tiny_backbone, dataset, size=32, **one).maps for one in (FP32, {})
    )
    cosine = (
        np.sum(exact * fast, 1, dtype=np.float32)
        / np.linalg.norm(exact, axis=1)
        / np.linalg.norm(fast, axis=1)
    )
    assert cosine.min() > 0.99


@pytest.mark.parametrize(
    ("size", "hint"),
    [(40, "no multiple of the patch of .*; take 32 x 32"), (10, "smaller than a patch of")],
)
def test_a_size_that_is_no_multiple_of_the_patch(tiny_backbone, size, hint):
    with pytest.raises(InputError, match=f"size {size} x {size}: {hint}"):
        dense_backbone(tiny_backbone, size=size)


def test_a_image_smaller_than_a_patch(tiny_backbone, data_folder):
    images = [np.zeros((12, 30), np.uint8)] * 13
    with pytest.raises(InputError, match="image 0: 12 x 30 pixels are smaller than a patch of 16"):
        extract_patch_maps(tiny_backbone, synthetic_segmentation(images=images), size=32, **FP32)
    assert not list(data_folder.rglob("*.npy"))


def test_a_block_that_does_not_exist(tiny_backbone):
    with pytest.raises(InputError, match="has 2 blocks, no block 2"):
        dense_backbone(tiny_backbone, size=32, blocks=(2,))


def test_a_backbone_without_patch_tokens():
    model, plain = torch.nn.Flatten(), Preprocessing(32, "bilinear", (0.0,) * 3, (1.0,) * 3)
    network = Backbone("flat", model, plain, 0, 0, 3072, "none", ("mean_patch_token",))
    with pytest.raises(
        InputError,
        match="flat: has no patch tokens; choose a vision transformer such as random-t16",
    ):
        dense_backbone(network, size=32)


def test_values_that_are_not_finite(tiny_backbone):
    torch.nn.init.constant_(tiny_backbone.model.norm.weight, float("nan"))
    with pytest.raises(InputError, match="the patch tokens of 'image 0' are NaN or infinite"):
        extract_patch_maps(tiny_backbone, synthetic_segmentation(), size=32, **FP32)


def test_openvino_gives_the_maps_of_several_blocks_as_torch_does():
    backbone = dense_backbone(load_backbone("radiodino-mini"), size=64, blocks=(3, 7, 11))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), np.uint8)
    (ours,) = OpenVinoEngine(backbone)(images)
    (theirs,) = TorchEngine(backbone)(images)
    assert ours.shape == (2, 3 * 192, 4, 4)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
