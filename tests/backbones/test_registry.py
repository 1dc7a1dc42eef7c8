import numpy as np
import pytest
import torch
from timm import create_model

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.presence import (
    COLUMNS,
    backbone_table,
    is_present,
    list_models,
    missing_weights,
    weights_files,
)
from radiodino_utils.backbones.registry import (
    REGISTRY,
    backbone_names,
    bundled_file,
    known_sha256,
    register_backbone,
)
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.attention import attention_maps

from ..conftest import tiny_transformer


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_table_says_of_every_backbone_what_it_is_and_whether_it_is_here():
    rows = {row["name"]: row for row in backbone_table()}
    assert list(rows) == backbone_names()
    assert all(tuple(row) == COLUMNS and all(row.values()) for row in rows.values())
    assert rows["radiodino-s16"] == {
        "name": "radiodino-s16",
        "source": "Snarcy/RadioDino-s16 (Hub)",
        "parameters": "21.7 M",
        "size": "87 MB",
        "patch": "16 px",
        "licence": "CC BY 4.0",
        "here": "not present",
    }
    assert (
        rows["omnirad-b14"]["licence"] == "CC BY-NC 4.0" and rows["omnirad-b14"]["patch"] == "14 px"
    )
    assert rows["radiodino-mini"]["here"] == rows["pixels"]["here"] == "present"
    assert (rows["pixels"]["parameters"], rows["pixels"]["size"]) == ("-", "-")
    lines = list_models().splitlines()
    assert [line.split()[0] for line in lines] == ["name", *backbone_names()]


ARCHITECTURES = {
    name: model.architecture or model.model.removeprefix("timm/")
    for name, model in REGISTRY.items()
    if model.architecture or model.kind == "random" or model.model.startswith("timm/")
} | {"omnirad-s14": "vit_small_patch14_dinov2", "omnirad-b14": "vit_base_patch14_dinov2"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_patch_are_those_of_the_architecture(name):
    with torch.device("meta"):
        model = create_model(ARCHITECTURES[name], num_classes=0, **dict(REGISTRY[name].options))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert REGISTRY[name].parameters == pytest.approx(count / 1e6, abs=0.06)
    assert REGISTRY[name].patch == model.patch_embed.patch_size[0]


def test_the_bundled_weights_are_of_the_stated_size():
    entry = REGISTRY["radiodino-mini"]
    bytes_of_float16 = bundled_file(entry.model).stat().st_size
    assert entry.parameters == pytest.approx(bytes_of_float16 / 2e6, rel=0.02)


def test_missing_weights(monkeypatch):
    assert missing_weights("random-t16") is None
    assert missing_weights("organct-axial") is None
    assert missing_weights("dino-s16").url.endswith("/timm/vit_small_patch16_224.dino")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert missing_weights("dino-s16").url == ""


def test_the_checksum_file_is_read():
    assert known_sha256("Snarcy/RadioDino-s16", "c0ffee") is None


def test_the_table_needs_no_torch(run_python):
    code = (
        "import sys; from radiodino_utils.backbones.presence import list_models; list_models(); "
        "print('torch' in sys.modules)"
    )
    assert run_python(code).stdout.split() == ["False"]


def test_other_texts_name_no_weights():
    assert weights_files("random-t16") is weights_files("some text") is None
    assert not is_present("some text")
    assert weights_files("hub:lab/model") == ()


def test_a_backbone_of_your_own_takes_one_registration(monkeypatch):
    monkeypatch.setitem(REGISTRY, "tiny", REGISTRY["pixels"])  # so that it is removed at the end
    del REGISTRY["tiny"]
    register_backbone("tiny", lambda: tiny_transformer(seed=3), source="this test")
    backbone = load_backbone("tiny")
    assert (backbone.name, backbone.source, backbone.embedding_dim) == ("tiny", "this test", 128)
    image = np.zeros((40, 40), np.uint8)
    assert attention_maps("tiny", image).maps.shape == (1, 2, 2, 2)
    assert "this test" in list_models()
    with pytest.raises(InputError, match="^tiny: choose another name"):
        register_backbone("tiny", tiny_transformer, source="again")
