import numpy as np
import pytest
import timm
import torch

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.registry import backbone_names
from radiodino_utils.backbones.sizes import at_size, fitting_size
from radiodino_utils.core.errors import InputError
from radiodino_utils.features.engines import make_engine

from ..conftest import tiny_transformer


@pytest.mark.parametrize(
    ("name", "width"), [("random-t16", 192), ("random-s16", 384), ("random-b16", 768)]
)
def test_random_weights(name, width):
    backbone = load_backbone(name)
    assert (backbone.patch_size, backbone.num_prefix_tokens, backbone.embedding_dim) == (
        16,
        1,
        width,
    )
    assert backbone.outputs == ("class_token", "mean_patch_token")
    assert (backbone.preprocessing.size, backbone.preprocessing.interpolation) == (224, "bilinear")
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert backbone.preprocessing.std == (0.229, 0.224, 0.225)
    assert not backbone.model.training
    assert backbone.model.num_classes == 0


def test_random_weights_are_seeded_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = load_backbone("random-t16"), load_backbone("random-t16")
    other = load_backbone("random-t16", seed=1)
    assert torch.rand(1) == expected
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert "seed 1" in other.source


def test_pixels():
    backbone = load_backbone("pixels")
    assert (backbone.patch_size, backbone.num_prefix_tokens, backbone.embedding_dim) == (0, 0, 1024)
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    (vectors,) = make_engine(backbone)(batch)
    np.testing.assert_allclose(vectors, batch.reshape(2, -1) / 255, atol=1e-6)


def test_offline_names_load_and_the_bundled_one_says_where_it_is():
    assert {"random-t16", "random-s16", "random-b16", "pixels", "radiodino-mini"} < set(
        backbone_names()
    )
    try:
        assert load_backbone("radiodino-mini").num_prefix_tokens >= 1
    except InputError as error:
        assert (
            "radiodino-mini: this version does not carry the checkpoint yet; use random-t16"
            in str(error)
        )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("radiodino-s61", "radiodino-s16"),
        ("radiodino_b16", "radiodino-b16"),
        ("random-t-16", "random-t16"),
        ("dino2-s14", "dinov2-s14"),
        ("pixel", "pixels"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, nearest):
    with pytest.raises(InputError, match=rf"unknown backbone '{name}'; did you mean .*{nearest}"):
        load_backbone(name)


def test_a_name_with_nothing_near_lists_all():
    with pytest.raises(
        InputError, match="unknown backbone 'xyz'; known: biomedclip, .*file:PATH.*random-t16"
    ):
        load_backbone("xyz")


def test_five_prefix_tokens_and_patch_14_from_a_file(weights_file):
    file = weights_file(
        timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, depth=2, num_classes=0)
    )
    backbone = load_backbone(f"file:{file}")
    assert (backbone.patch_size, backbone.num_prefix_tokens, backbone.embedding_dim) == (14, 5, 384)
    assert backbone.preprocessing.size == 56
    assert backbone.source == f"file {file.name}"


def test_a_model_without_a_class_token_gives_the_mean_only(weights_file):
    model = tiny_transformer(class_token=False, global_pool="avg", fc_norm=False)
    backbone = load_backbone(f"file:{weights_file(model)}")
    assert backbone.num_prefix_tokens == 0
    assert backbone.outputs == ("mean_patch_token",)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    (mean,) = make_engine(backbone, engine="torch", precision="fp32")(images)
    mean_grey, std_grey = (
        torch.tensor(values).view(3, 1, 1)
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    batch = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean_grey) / std_grey
    with torch.inference_mode():
        np.testing.assert_allclose(mean, model.forward_features(batch).mean(1), atol=1e-5)


def test_the_fingerprint_names_the_weights_not_the_file(weights_file):
    original, copy = (
        load_backbone(f"file:{weights_file(tiny_transformer(), name)}")
        for name in ("a.safetensors", "b.safetensors")
    )
    other = load_backbone(f"file:{weights_file(tiny_transformer(seed=1), 'c.safetensors')}")
    assert original.fingerprint == copy.fingerprint != other.fingerprint


def test_the_home_folder_is_known(weights_file, monkeypatch):
    file = weights_file(tiny_transformer())
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_backbone("file:~/tiny.safetensors").embedding_dim == 128


def test_describe_is_json(tiny_backbone):
    import json

    facts = json.loads(json.dumps(tiny_backbone.describe()))
    assert facts["fingerprint"] == tiny_backbone.fingerprint
    assert facts["preprocessing"]["size"] == 32
    assert "model" not in facts


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            (8, 32),
            r"^size 8 x 32: smaller than a patch of file:.*tiny.safetensors \(16 x 16 pixels\)\.$",
        ),
        (
            (100, 33),
            r"^size 100 x 33: no multiple of the patch of .*safetensors.*16\); take 96 x 32\.$",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_patch(tiny_backbone, size, message):
    with pytest.raises(InputError, match=message):
        at_size(tiny_backbone, size)


def test_pixels_have_one_size():
    with pytest.raises(
        InputError, match="^pixels: takes images of one size only; choose a vision transformer"
    ):
        at_size(load_backbone("pixels"), (64, 64))


def test_what_has_neither_tokens_nor_stages_is_no_backbone():
    with pytest.raises(InputError, match="^mine: Linear is no vision transformer"):
        from_model("mine", torch.nn.Linear(2, 2), "random")


def test_features_at_a_size_that_is_not_square(tiny_backbone):
    wide = at_size(tiny_backbone, (48, 80))
    image = wide.seen(np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8))
    assert image.shape == (48, 80) and wide.describe()["preprocessing"]["size"] == (48, 80)
    by_torch, by_openvino = (
        make_engine(wide, engine=engine, precision="fp32") for engine in ("torch", "openvino")
    )
    batch = image[None, ..., None].copy()
    np.testing.assert_allclose(by_torch(batch)[0], by_openvino(batch)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size"), [((32, 32), (32, 32)), ((500, 2000, 3), (16, 64)), ((9, 1000), (16, 336))]
)
def test_the_fitting_size_has_the_aspect_of_the_image(tiny_backbone, shape, size):
    assert fitting_size(tiny_backbone, shape) == size
