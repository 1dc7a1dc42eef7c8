"""Shared fixtures: folders of their own, tiny backbones and tiny datasets."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.data.registry import load_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
# machines may be busy: no deadline, and no failure because examples come slowly
settings.register_profile(
    "steady", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """Data folder of the test, so that nothing touches the user's own folders."""
    monkeypatch.setenv("RADIODINO_DATA", str(tmp_path / "data"))
    for name in ("MEDMNIST", "BUSI", "BUSI_LISTS", "MEDSEGBENCH", "RADIMAGENET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real files; skips and says where they are expected if they are missing."""
    folder = Path(os.environ.get("RADIODINO_SHARED") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "medmnist").is_dir():
        pytest.skip(f"no real data: neither RADIODINO_SHARED nor {folder} holds medmnist/")
    return folder


@pytest.fixture
def no_index(monkeypatch):
    """Let pip reach no package index."""
    closed = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
    }
    for name, value in closed.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run_python():
    """Run code in a process of its own, where environment variables are read again."""

    def run(code, *arguments, **environment):
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            **{name: str(value) for name, value in environment.items()},
        }
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def tiny_transformer(*, seed=0, **options):
    """Return a vision transformer of two blocks, all its tensors away from their initial values."""
    torch.manual_seed(seed)
    options = {
        "img_size": 32,
        "patch_size": 16,
        "embed_dim": 128,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 0,
    } | options
    model = VisionTransformer(**options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def weights_file(tmp_path):
    """Write the state dict of a model to a safetensors file."""

    def write(model, name="tiny.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        save_file(model.state_dict(), path, {"num_heads": str(model.blocks[0].attn.num_heads)})
        return path

    return write


@pytest.fixture
def tiny_backbone(weights_file):
    """A tiny backbone, loaded as `file:PATH`."""
    return load_backbone(f"file:{weights_file(tiny_transformer())}")


def synthetic_arrays(counts=(5, 3, 4), *, size=32, colour=False, seed=0, classes=3):
    """Return random images in MedMNIST's layout; the first of each split has the last class."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        images = generator.integers(0, 256, (count, size, size, *([3] if colour else [])), np.uint8)
        labels = generator.integers(0, classes, (count, 1)).astype(np.uint8)
        labels[0] = classes - 1
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays


@pytest.fixture
def synthetic_dataset(tmp_path):
    """Write random images as an npz file and load it."""

    def make(counts=(5, 3, 4), *, name="made.npz", **options):
        np.savez(tmp_path / name, **synthetic_arrays(counts, **options))
        return load_dataset(f"npz:{tmp_path / name}")

    return make


def flip(path, generator):
    """Flip one bit of a file and return the old bytes."""
    content = path.read_bytes()
    position = int(generator.integers(len(content)))
    flipped = bytearray(content)
    flipped[position] ^= 1 << int(generator.integers(8))
    put(path, bytes(flipped))
    return content


def put(path, content):
    """Replace a file by a new one, so that a mapping of the old one stays as it is."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)
