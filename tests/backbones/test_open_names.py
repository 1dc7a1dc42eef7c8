"""Any backbone by name: `hub:` and `timm:`, from a server on this machine."""

import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from timm.models import get_pretrained_cfg, save_for_hf

from radiodino_utils.backbones import registry
from radiodino_utils.backbones.fingerprints import fingerprint, structure
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.presence import missing_weights, weights_files
from radiodino_utils.core.errors import InputError
from radiodino_utils.features.feature_model import FeatureModel, as_tensor

from ..hub_server import COMMIT, OLDER, hub_server
from .test_families import FAMILIES, random_model

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 36), np.uint8)
TINY = "test_vit.r160_in1k"  # the smallest model that timm has weights for


def repository(model, folder):
    """Return the files that timm uploads for a model."""
    save_for_hf(model, folder, safe_serialization=True)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


def embedding(backbone):
    images = as_tensor(backbone, IMAGE).permute(0, 2, 3, 1)
    with torch.inference_mode():
        return FeatureModel(backbone).eval()(images)[0]


def expected(model, preprocessing, image):
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) * 255
        for values in (preprocessing.mean, preprocessing.std)
    )
    with torch.inference_mode():
        return model((image - mean) / std)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads_from_the_hub_with_its_own_preprocessing(name, use_hub, tmp_path):
    model = random_model(name)
    files = repository(model, tmp_path)
    with hub_server({"lab/model": {"main": files}}) as server:
        use_hub(server.url)
        backbone = load_backbone("hub:lab/model")
    config = get_pretrained_cfg(name)
    assert backbone.source == f"lab/model@{COMMIT[:10]}"
    assert backbone.preprocessing.shape == tuple(model.patch_embed.img_size)
    assert backbone.preprocessing.interpolation == config.interpolation
    assert backbone.preprocessing.mean == pytest.approx(config.mean)
    assert backbone.preprocessing.std == pytest.approx(config.std)
    assert fingerprint(backbone.model) == fingerprint(model)
    assert structure(backbone.model) == structure(model)
    torch.testing.assert_close(
        embedding(backbone), expected(model, backbone.preprocessing, as_tensor(backbone, IMAGE))
    )


@pytest.mark.parametrize(
    "name", ["test_vit", "deit_tiny_distilled_patch16_224", "resnet18", "test_convnext"]
)
def test_the_classifier_is_taken_off(name, use_hub, tmp_path):
    torch.manual_seed(0)
    options = {"depth": 1} if name.startswith("deit") else {}
    model = timm.create_model(name, num_classes=5, **options).eval()
    with hub_server({"lab/model": {"main": repository(model, tmp_path)}}) as server:
        use_hub(server.url)
        backbone = load_backbone("hub:lab/model")
    headless = timm.create_model(name, num_classes=0, **options).eval()
    headless.load_state_dict(model.state_dict(), strict=False)
    assert structure(backbone.model) == structure(headless)
    assert fingerprint(backbone.model) == fingerprint(headless)
    assert backbone.model.num_classes == 0
    assert embedding(backbone).shape == (1, backbone.embedding_dim)


@pytest.fixture(scope="module")
def tiny_models():
    torch.manual_seed(1)
    return [timm.create_model("test_vit", num_classes=1000) for _ in range(2)]


@pytest.fixture(scope="module")
def tiny_repository(tiny_models):
    """timm's own repository, without a configuration: timm knows it."""
    revisions = zip(("main", "older"), tiny_models, strict=True)
    return {
        f"timm/{TINY}": {
            revision: {"model.safetensors": save(model.state_dict())}
            for revision, model in revisions
        }
    }


def test_names_of_timm_load_and_are_pinned(tiny_models, tiny_repository, use_hub):
    with hub_server(tiny_repository) as server:
        use_hub(server.url)
        assert missing_weights(f"timm:{TINY}").url == f"{server.url}/timm/{TINY}"
        latest, default = load_backbone(f"timm:{TINY}"), load_backbone("timm:test_vit")
        pinned = load_backbone(f"timm:{TINY}@{OLDER}")
        again = load_backbone(f"timm:{TINY}", revision=OLDER)
        assert missing_weights(f"timm:{TINY}") is None
        assert [path.name for path in weights_files(f"timm:{TINY}")] == ["model.safetensors"]
    assert latest.source == f"timm/{TINY}@{COMMIT[:10]}"
    assert latest.preprocessing.size == 160
    assert latest.preprocessing.interpolation == "bicubic"
    assert latest.fingerprint == default.fingerprint != pinned.fingerprint
    assert pinned.source == again.source == f"timm/{TINY}@{OLDER[:10]}"
    assert again.name == pinned.name == f"timm:{TINY}@{OLDER}"
    bias = tiny_models[1].blocks[0].attn.qkv.bias
    assert torch.equal(pinned.model.blocks[0].attn.qkv.bias, bias)


def test_only_a_pickle_of_tensors_is_read(tiny_models, use_hub, tmp_path):
    config = repository(tiny_models[0], tmp_path)["config.json"]
    buffer = io.BytesIO()
    torch.save(tiny_models[0].state_dict(), buffer)
    files = {"config.json": config, "pytorch_model.bin": buffer.getvalue()}
    with hub_server({"lab/model": {"main": files}}) as server:
        use_hub(server.url)
        first = load_backbone("hub:lab/model")
    use_hub("http://127.0.0.1:9")
    assert load_backbone("hub:lab/model").fingerprint == first.fingerprint  # from the cache
    buffer = io.BytesIO()
    torch.save({"weights": time.sleep}, buffer)
    files["pytorch_model.bin"] = buffer.getvalue()
    with hub_server({"lab/other": {"main": files}}) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match="not a weights file that can be read safely"):
            load_backbone("hub:lab/other")


def test_weights_that_do_not_fit_are_listed(tiny_models, use_hub, tmp_path):
    files = repository(tiny_models[0], tmp_path)
    state = dict(tiny_models[0].state_dict())
    del state["blocks.0.mlp.fc1.bias"]
    state |= {"extra": torch.zeros(1), "norm.weight": torch.zeros(3)}
    files["model.safetensors"] = save(state)
    with hub_server({"lab/model": {"main": files}}) as server:
        use_hub(server.url)
        with pytest.raises(
            InputError,
            match=r"missing blocks\.0\.mlp\.fc1\.bias; unexpected extra; norm\.weight is \(3,\)",
        ):
            load_backbone("hub:lab/model")


NAMES = {
    "hub:RadioDino-s16": "write hub:ORG/NAME or hub:ORG/NAME@REVISION",
    "hub:a/b@": "write hub:ORG/NAME or hub:ORG/NAME@REVISION",
    "timm:": "write timm:NAME or timm:NAME@REVISION",
    "timm:vit_tiny_patch16_225": "unknown timm model 'vit_tiny_patch16_225'; did you mean .*224",
    "timm:vit_small_patch16_224.nobody": "has no weights .* write timm:vit_small_patch16_224.",
    "timm:vit_base_patch16_gap_224": "has no weights on the Hub for it; choose another model",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_wrong(name):
    with pytest.raises(InputError, match=NAMES[name]):
        load_backbone(name)


def test_two_revisions_are_refused():
    with pytest.raises(InputError, match="names another revision than revision=b; give only one"):
        load_backbone("hub:lab/model@a", revision="b")


def test_a_repository_that_is_not_timms(tiny_models, use_hub, tmp_path):
    files = repository(tiny_models[0], tmp_path)
    files["config.json"] = json.dumps({"model_type": "dinov2"}).encode()
    with hub_server({"lab/model": {"main": files}}) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match="config.json: not a configuration that timm can"):
            load_backbone("hub:lab/model")


def test_stages_of_attention_are_refused(use_hub, tmp_path):
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=48)
    with hub_server({"lab/model": {"main": repository(model, tmp_path)}}) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match="SwinTransformer is no vision transformer"):
            load_backbone("hub:lab/model")


@pytest.mark.parametrize("name", ["hub:lab/model", f"timm:{TINY}", "omnirad-s14", "biomedclip"])
def test_without_a_network_one_attempt_fails_fast(name, use_hub):
    use_hub("http://127.0.0.1:9")  # the port of `discard`: nobody listens
    start = time.monotonic()
    with pytest.raises(InputError, match="the Hub cannot be reached .no network") as caught:
        load_backbone(name)
    assert time.monotonic() - start < 3
    assert "\n" not in str(caught.value)


def test_a_busy_hub_is_asked_once(use_hub):
    with hub_server({}, busy=503) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match="the Hub is busy"):
            load_backbone("hub:lab/model")
    assert len(server.requests) == 1


def shallow(monkeypatch, name):
    """Register a backbone with one block, so that its weights are small."""
    entry = registry.REGISTRY[name]
    options = (*entry.options, ("depth", 1))
    monkeypatch.setitem(registry.REGISTRY, name, replace(entry, options=options))
    architecture = entry.architecture.partition(".")[0]
    return entry, timm.create_model(architecture, depth=1, num_classes=0).eval()


def test_the_image_encoder_of_biomedclip(use_hub, monkeypatch):
    entry, model = shallow(monkeypatch, "biomedclip")
    state = {f"visual.trunk.{name}": value for name, value in model.state_dict().items()}
    state |= {"visual.head.proj.weight": torch.zeros(512, 768), "text.x": torch.zeros(2)}
    buffer = io.BytesIO()
    torch.save(state | {"logit_scale": torch.tensor(1.0)}, buffer)
    with hub_server({entry.model: {"main": {entry.weights: buffer.getvalue()}}}) as server:
        use_hub(server.url)
        backbone = load_backbone("biomedclip")
    assert fingerprint(backbone.model) == fingerprint(model)
    assert backbone.preprocessing.size == 224
    assert backbone.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
    assert backbone.outputs == ("class_token", "mean_patch_token")


def test_rad_dino(use_hub, monkeypatch):
    entry, model = shallow(monkeypatch, "rad-dino")
    state = model.state_dict() | {"mask_token": torch.zeros(1, 768)}
    with hub_server({entry.model: {"main": {entry.weights: save(state)}}}) as server:
        use_hub(server.url)
        backbone = load_backbone("rad-dino")
    assert fingerprint(backbone.model) == fingerprint(model)
    assert (backbone.preprocessing.size, backbone.patch_size) == (518, 14)
    assert backbone.preprocessing.mean == (0.5307,) * 3
