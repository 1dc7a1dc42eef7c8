"""MedMNIST's official layout end to end: synthetic files, a local server, the registry."""

import io

import numpy as np
import pytest
from medmnist import INFO

from radiodino_utils.core import downloads
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data.medmnist import FLAGS, NAMES, POSITIVE, SIZES
from radiodino_utils.data.registry import dataset_names, load_dataset, missing_dataset
from radiodino_utils.features.extraction import extract_features

from ..web_server import web_server

TESTED = ("breastmnist", "pneumoniamnist", "organamnist", "organcmnist", "organsmnist")


def official(flag, size, *, colour=False):
    """Return an npz as MedMNIST writes it; every class is in every split."""
    generator, classes = np.random.default_rng(len(flag) + size), len(INFO[flag]["label"])
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(
            0, 256, (classes, size, size, *([3] if colour else [])), np.uint8
        )
        arrays[f"{split}_labels"] = np.arange(classes, dtype=np.uint8)[:, None]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """Point MedMNIST's address at a local server, and its MD5 at the synthetic file."""

    def point(server, flag, size, content):
        import hashlib

        suffix = "" if size == 28 else f"_{size}"
        monkeypatch.setitem(
            INFO[flag], f"url{suffix}", f"{server.url}/files/{flag}{suffix}.npz?download=1"
        )
        monkeypatch.setitem(INFO[flag], f"MD5{suffix}", hashlib.md5(content).hexdigest())

    monkeypatch.setattr(downloads, "BACKOFF", 0.001)
    return point


def test_every_binary_dataset_declares_its_positive_class():
    binary = {flag for flag in FLAGS if len(INFO[flag]["label"]) == 2}
    assert POSITIVE.keys() == binary
    assert all(POSITIVE[flag] in INFO[flag]["label"].values() for flag in binary)


def test_flags_are_the_flat_datasets_with_one_label_per_image():
    tasks = ("binary-class", "multi-class")
    assert (
        tuple(flag for flag, info in INFO.items() if info["task"] in tasks and "3d" not in flag)
        == FLAGS
    )


def test_malignant_is_the_positive_class_of_breastmnist(shared_data, monkeypatch):
    monkeypatch.setenv("MEDMNIST", str(shared_data / "medmnist"))
    dataset = load_dataset("breastmnist-28")
    assert (dataset.positive, dataset.classes.index(dataset.positive)) == ("malignant", 0)


def test_every_size_is_registered():
    assert set(NAMES) < set(dataset_names())
    assert {"breastmnist-28", "organsmnist-224"} < set(NAMES)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flag", TESTED)
def test_a_dataset_is_downloaded_once_and_read(flag, size, serve, data_folder):
    content, suffix = official(flag, size), "" if size == 28 else f"_{size}"
    with web_server({f"{flag}{suffix}.npz": content}) as server:
        serve(server, flag, size, content)
        assert missing_dataset(f"{flag}-{size}").url.startswith(server.url)
        dataset = load_dataset(f"{flag}-{size}")
        load_dataset(f"{flag}-{size}")
    assert len(server.ranges) == 1
    assert missing_dataset(f"{flag}-{size}") is None
    assert len(dataset.classes) == {"breastmnist": 2, "pneumoniamnist": 2}.get(flag, 11)
    assert dataset.splits["test"].labels.tolist() == list(range(len(dataset.classes)))
    assert dataset.splits["train"].images.shape == (len(dataset.classes), size, size)
    assert (data_folder / "medmnist" / f"{flag}{suffix}.npz").read_bytes() == content


def test_features_of_a_downloaded_colour_dataset(serve, tiny_backbone):
    content = official("bloodmnist", 28, colour=True)
    with web_server({"bloodmnist.npz": content}, busy=1, cuts=1, cut_at=1000) as server:
        serve(server, "bloodmnist", 28, content)
        features = extract_features(
            tiny_backbone, load_dataset("bloodmnist-28"), engine="torch", precision="fp32"
        )
    assert features.embedding("test").shape == (8, 128)
    assert len(server.ranges) == 3


def test_a_named_folder_comes_before_the_download(serve, tmp_path, monkeypatch):
    content = official("organcmnist", 28)
    (tmp_path / "organcmnist.npz").write_bytes(content)
    with web_server({}) as server:
        serve(server, "organcmnist", 28, content)
        load_dataset("organcmnist-28", folder=tmp_path)
        monkeypatch.setenv("MEDMNIST", str(tmp_path))
        load_dataset("organcmnist-28")
        (tmp_path / "organcmnist.npz").write_bytes(content[:-1])
        with pytest.raises(InputError, match=r"organcmnist\.npz: wrong MD5"):
            load_dataset("organcmnist-28")
    assert server.ranges == []


def test_a_damaged_download_of_its_own_is_fetched_again(serve, data_folder, capsys):
    content = official("organcmnist", 28)
    own = data_folder / "medmnist" / "organcmnist.npz"
    with web_server({"organcmnist.npz": content}) as server:
        serve(server, "organcmnist", 28, content)
        load_dataset("organcmnist-28")
        own.write_bytes(content[:-100])
        load_dataset("organcmnist-28")
    assert own.read_bytes() == content
    assert f"{own}: damaged; downloaded again." in capsys.readouterr().out


def test_a_dataset_that_the_server_lacks(serve):
    with web_server({}) as server:
        serve(server, "organsmnist", 64, b"")
        with pytest.raises(
            InputError,
            match=r"HTTP 404\); name the folder that holds organsmnist_64\.npz .* MEDMNIST",
        ):
            load_dataset("organsmnist-64")


def test_an_official_name_checks_the_md5(npz, tmp_path, monkeypatch):
    npz("breastmnist_224.npz")
    md5 = INFO["breastmnist"]["MD5_224"]
    for options in ({"folder": tmp_path}, {}):
        monkeypatch.setenv("MEDMNIST", "/nowhere" if options else str(tmp_path))
        with pytest.raises(
            InputError,
            match=rf"breastmnist_224\.npz: wrong MD5: \w+ instead of {md5}",
        ):
            load_dataset("breastmnist-224", **options)


def test_an_official_name_with_the_right_file(npz, tmp_path, monkeypatch):
    path = npz(
        "pneumoniamnist.npz",
        classes=None,
        train_labels=np.array([[0], [1], [1], [0], [1]]),
        val_labels=np.zeros((3, 1), int),
        test_labels=np.ones((4, 1), int),
    )
    monkeypatch.setitem(INFO["pneumoniamnist"], "MD5", file_hash(path, "md5"))
    dataset = load_dataset("pneumoniamnist-28", folder=tmp_path)
    assert dataset.classes == ("normal", "pneumonia")
    path = npz("pneumoniamnist.npz")  # has a third label
    monkeypatch.setitem(INFO["pneumoniamnist"], "MD5", file_hash(path, "md5"))
    with pytest.raises(InputError, match="label 2 is outside the 2 classes of pneumoniamnist-28"):
        load_dataset("pneumoniamnist-28", folder=tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("size", SIZES)
def test_the_real_breastmnist(shared_data, size):
    dataset = load_dataset(f"breastmnist-{size}", folder=shared_data / "medmnist")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 546,
        "val": 78,
        "test": 156,
    }
    assert dataset.splits["train"].images[0].shape == (size, size)
