import json

import numpy as np
import pytest
import timm
import torch

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.core import files
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining import target_store
from radiodino_utils.pretraining.crops import SIZE
from radiodino_utils.pretraining.target_store import STORE, TargetStore
from radiodino_utils.pretraining.teachers import TeacherModel

from ..conftest import tiny_transformer
from ..synthetic_corpus import synthetic_corpus

NETWORK = "resnet10t"


@pytest.fixture(scope="module")
def teachers():
    torch.manual_seed(0)
    network = timm.create_model(NETWORK, num_classes=0)
    return [
        from_model("net", network, "random"),
        from_model("vit", tiny_transformer(img_size=224, patch_size=32), "random"),
    ]


@pytest.fixture
def store(tmp_path, teachers, monkeypatch):
    monkeypatch.setattr(target_store, "CHUNK", 8)
    corpus = synthetic_corpus(tmp_path)
    return lambda name="targets", **options: TargetStore(
        tmp_path / name, **{"corpus": corpus, "teachers": teachers, "capacity": 16} | options
    )


def test_targets_are_those_of_the_teachers_on_the_same_crops(store, teachers):
    made = store()
    crops, targets = made.read(4, 8)
    assert crops.shape == (8, SIZE, SIZE) and crops.dtype == np.uint8
    assert made.widths() == {"net": (512, 256), "vit": (256, 128)}
    for teacher in teachers:
        with torch.inference_mode():
            whole, maps = TeacherModel(teacher)(torch.from_numpy(crops))
        scale = np.load(made.folder / f"{teacher.name}-scale.npz")
        deviation = np.maximum(scale["map_std"], scale["map_std"].mean() / 10)[:, None, None]
        wanted = (maps.numpy() - scale["map_mean"][:, None, None]) / deviation
        np.testing.assert_allclose(targets[teacher.name].maps, wanted, atol=0.03)
        assert targets[teacher.name].whole.shape == whole.shape
    assert targets["net"].maps.shape[-1] == 14 and targets["vit"].maps.shape[-1] == 7


def test_the_first_chunk_is_standardised(store):
    _, targets = store().read(0, 8)
    maps = targets["net"].maps
    assert maps.mean((0, 2, 3)).abs().max() < 0.01 and maps.std((0, 2, 3)).max() < 1.01


def test_crops_depend_on_the_seed_and_their_number_only(store):
    first, _ = store("one").read(0, 16)
    later, _ = store("two").read(16, 8)  # the third chunk of two that fit: from the beginning again
    assert np.array_equal(first[:8], later) and len({crop.tobytes() for crop in first}) == 16
    assert not np.array_equal(first[:8], store("three", seed=1).read(0, 8)[0])


def test_an_interrupted_store_goes_on(store):
    whole, _ = store("whole").read(0, 16)
    store("halves").read(0, 8)
    again = store("halves")
    assert again.done == 8 and np.array_equal(again.read(0, 16)[0], whole)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: (folder / "net-map.npy").write_bytes(
                (folder / "net-map.npy").read_bytes()[:5000]
            ),
            "net-map.npy: .*cut short",
        ),
        (
            lambda folder: (folder / "vit-whole.npy").unlink(),
            "vit-whole.npy: the targets are missing or cut short",
        ),
        (lambda folder: (folder / STORE).write_text("{"), "the list of targets is damaged"),
        (
            lambda folder: (folder / "net-scale.npz").write_bytes(b"PK"),
            "net-scale.npz: is missing or damaged",
        ),
    ],
)
def test_damaged_files_are_named(store, break_it, message):
    folder = store().folder
    store().read(0, 8)
    break_it(folder)
    with pytest.raises(InputError, match=message):
        store().read(0, 8)


def test_targets_of_another_run_are_left_alone(store, teachers, tmp_path):
    folder = store().folder
    store().read(0, 8)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    other = synthetic_corpus(tmp_path / "other", seed=3)
    for options, what in (
        ({"corpus": other}, "corpus"),
        ({"seed": 1}, "seed"),
        ({"teachers": teachers[:1]}, "teachers"),
    ):
        with pytest.raises(
            InputError,
            match=rf"holds the targets of another run \({what} differ\); name another folder",
        ):
            store(**options)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(json.loads((folder / STORE).read_text())["chunks"]) == 1


def test_no_room_for_the_targets(store, monkeypatch):
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})()
    )
    with pytest.raises(InputError, match="no disk space: .* MB are needed and 0 MB are free"):
        store(capacity=10_000)


def test_a_corpus_of_one_image_and_no_teacher(store, tmp_path):
    with pytest.raises(
        InputError, match="^the corpus has one image; distillation compares images with each other"
    ):
        store(corpus=synthetic_corpus(tmp_path / "one", 1))
    with pytest.raises(InputError, match="^no teacher is named"):
        store(teachers=[])


def test_flipped_bits_are_found_and_computed_again(store):
    crops, targets = store().read(0, 16)
    folder = store().folder
    generator = np.random.default_rng(0)
    for path in sorted(folder.glob("*.npy")) * 4:
        content = bytearray(path.read_bytes())
        position = int(generator.integers(200, len(content)))
        content[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="are damaged and are computed again"):
            again, others = store().read(0, 16)
        assert np.array_equal(again, crops)
        for name, one in targets.items():
            assert torch.equal(others[name].whole, one.whole)
            assert torch.equal(others[name].maps, one.maps)


@pytest.mark.parametrize("name", [STORE, "net-scale.npz"])
def test_flipped_bits_of_small_files_are_named(store, name):
    folder = store().folder
    store().read(0, 8)
    path = folder / name
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(whole), 50):
        path.write_bytes(
            whole[:position]
            + bytes([whole[position] ^ 1 << int(generator.integers(8))])
            + whole[position + 1 :]
        )
        with pytest.raises(InputError, match=f"{name}|holds the targets of another run"):
            store().read(0, 8)
