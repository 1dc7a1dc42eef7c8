import subprocess
import sys

import numpy as np
import pytest
import torch
from timm import create_model

from radiodino_utils.backbones import loading
from radiodino_utils.backbones import registry as models
from radiodino_utils.backbones.registry import (
    REGISTRY,
    backbone_names,
    known_sha256,
    missing_weights,
)
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.attention import attention_maps

from ..conftest import REPOSITORY, tiny_transformer


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_backbone_is_listed_with_source_size_patch_licence_and_presence():
    lines = models.list_models().splitlines()
    assert [line.split()[0] for line in lines] == ["name", *backbone_names()]
    by_name = {line.split()[0]: line for line in lines}
    for words in (
        ("radiodino-s16", "Snarcy/RadioDino-s16", "87 MB", "16 px", "CC BY 4.0", "not present"),
        ("pixels", "present"),
    ):
        assert all(word in by_name[words[0]] for word in words)
    assert by_name["radiodino-mini"].endswith("  present")


@pytest.mark.parametrize(
    "name", [name for name, model in REGISTRY.items() if model.model.startswith("timm/")]
)
def test_sizes_are_those_of_the_architecture(name):
    with torch.device("meta"):
        model = create_model(
            REGISTRY[name].model.removeprefix("timm/"), pretrained=False, num_classes=0
        )
    assert REGISTRY[name].size_mb == pytest.approx(
        sum(one.numel() for one in model.parameters()) * 4e-6, abs=1
    )


def test_missing_weights(monkeypatch):
    assert missing_weights("random-t16") is None
    assert missing_weights("organct-axial") is None
    assert missing_weights("dino-s16").url.endswith("/timm/vit_small_patch16_224.dino")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert missing_weights("dino-s16").url == ""


def test_the_checksum_file_is_read():
    assert known_sha256("Snarcy/RadioDino-s16", "c0ffee") is None


def test_neither_help_nor_the_list_needs_torch():
    code = "import sys; from radiodino_utils.backbones.registry import list_models; "
    code += "list_models(); print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "False"


def test_a_backbone_of_your_own_takes_one_registration(monkeypatch):
    monkeypatch.setattr(models, "REGISTRY", dict(REGISTRY))
    monkeypatch.setattr(loading, "REGISTRY", models.REGISTRY)
    models.register_backbone("tiny", lambda: tiny_transformer(seed=3), source="this test")
    backbone = loading.load_backbone("tiny")
    assert (backbone.name, backbone.source, backbone.embedding_dim) == ("tiny", "this test", 128)
    image = np.zeros((40, 40), np.uint8)
    assert attention_maps("tiny", image).maps.shape == (1, 2, 2, 2)
    assert "this test" in models.list_models()
    with pytest.raises(InputError, match="^tiny: choose another name"):
        models.register_backbone("tiny", tiny_transformer, source="again")
