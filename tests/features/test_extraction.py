import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.fingerprints import fingerprint
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.features import chunks
from radiodino_utils.features import extraction as module
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.features.feature_model import FeatureModel
from radiodino_utils.features.features import describe_features, feature_table, read_index

from ..conftest import REPOSITORY, synthetic_arrays, tiny_transformer

FP32 = {"engine": "torch", "precision": "fp32"}
FOUR_A_CHUNK = (
    "from radiodino_utils import cli; "
    "from radiodino_utils.features import chunks, extraction; chunks.CHUNK = 4; "
)


def reference(backbone, image):
    """Class token and mean patch token of one image, computed alone."""
    batch = torch.from_numpy(np.array(image if image.ndim == 3 else image[..., None]))[None]
    with torch.inference_mode():
        return [output[0].numpy() for output in FeatureModel(backbone)(batch)]


@pytest.fixture
def counted(monkeypatch):
    """Counts the images that go through an engine."""
    count = SimpleNamespace(images=0)
    make = module.make_engine

    def counting(*arguments, **options):
        engine = make(*arguments, **options)

        def map_(batches):
            for outputs in engine.map(batches):
                count.images += len(outputs[0])
                yield outputs

        return SimpleNamespace(map=map_)

    monkeypatch.setattr(module, "make_engine", counting)
    return count


@pytest.mark.parametrize("colour", [False, True])
def test_every_row_is_its_image(tiny_backbone, synthetic_dataset, colour, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    dataset = synthetic_dataset((9, 3, 4), colour=colour)
    features = extract_features(tiny_backbone, dataset, batch_size=3, **FP32)
    for name, split in dataset.splits.items():
        assert features.ids[name] == list(split.ids)
        assert features.labels[name].tolist() == split.labels.tolist()
        expected = [reference(tiny_backbone, image) for image in split.images]
        for position, output in enumerate(("class_token", "mean_patch_token")):
            assert features.arrays[name][output].dtype == np.float32
            np.testing.assert_allclose(
                features.arrays[name][output], [one[position] for one in expected], atol=2e-5
            )
        assert features.embedding(name) is features.arrays[name]["class_token"]


def test_shuffled_files_keep_their_features(tiny_backbone, tmp_path):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (20 + row, 31), np.uint8) for row in range(8)]
    names = [
        ["zebra", "ant", "mole", "bee", "yak", "cat", "dog", "eel"],
        ["bee", "eel", "ant", "yak", "dog", "zebra", "cat", "mole"],
    ]
    found = []
    for turn, order in enumerate(
        names
    ):  # the same images under other names: another order, other classes
        for row, name in enumerate(order):
            file = tmp_path / f"set{turn}" / ("even" if (row + turn) % 2 else "odd") / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(file)
        features = extract_features(
            tiny_backbone, load_dataset(f"folder:{tmp_path / f'set{turn}'}"), **FP32
        )
        by_row = {}
        for feature, id_, label in zip(
            features.embedding("all"), features.ids["all"], features.labels["all"], strict=True
        ):
            folder, name = id_.removesuffix(".png").split("/")
            assert features.classes[label] == folder
            by_row[order.index(name)] = feature
        found.append(np.array([by_row[row] for row in range(8)]))
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)
    assert min(np.linalg.norm(a - b) for i, a in enumerate(found[0]) for b in found[0][:i]) > 1e-2


def test_a_second_call_reads(tiny_backbone, synthetic_dataset, counted, monkeypatch):
    dataset = synthetic_dataset()
    first = extract_features(tiny_backbone, dataset, **FP32)
    assert counted.images == 12
    monkeypatch.setattr(
        module, "make_engine", lambda *_, **__: pytest.fail("an engine was built to read a file")
    )
    second = extract_features(tiny_backbone, dataset, **FP32)
    assert second.path == first.path
    for split in dataset.splits:
        assert np.array_equal(first.embedding(split), second.embedding(split))
        assert first.ids[split] == second.ids[split]
    assert first.sidecar == second.sidecar


def test_the_key_is_made_of_what_the_values_depend_on(weights_file, synthetic_dataset):
    files = [
        weights_file(tiny_transformer(seed=seed), f"{seed}/tiny.safetensors") for seed in (0, 1)
    ]
    one, other = (load_backbone(f"file:{file}") for file in files)
    dataset, changed = synthetic_dataset(), synthetic_dataset(seed=1)
    paths = {
        extract_features(one, dataset, **FP32).path,
        extract_features(other, dataset, **FP32).path,
    }
    paths |= {
        extract_features(one, changed, **FP32).path,
        extract_features(one, dataset, engine="torch", precision="bf16").path,
    }
    assert len(paths) == 4
    assert extract_features(one, dataset, batch_size=2, **FP32).path in paths


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-7] + bytes([path.read_bytes()[-7] ^ 1]) + path.read_bytes()[-6:]
    ),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet", ".json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_made_again(tiny_backbone, synthetic_dataset, counted, suffix, damage):
    if (suffix, damage) == (".json", "flipped"):
        pytest.skip("a sidecar is text that may be read with any letter changed")
    dataset = synthetic_dataset()
    first = extract_features(tiny_backbone, dataset, **FP32)
    DAMAGES[damage](first.path.with_suffix(suffix))
    again = extract_features(tiny_backbone, dataset, **FP32)
    assert counted.images == 24
    assert np.array_equal(first.embedding("test"), again.embedding("test"))
    assert again.sidecar["sha256"][again.path.name] == file_hash(again.path)


@pytest.mark.parametrize("sidecar", ["[]", "{}", '{"sha256": {}}', '{"sha256": null}', "null"])
def test_an_empty_sidecar_vouches_for_nothing(tiny_backbone, synthetic_dataset, counted, sidecar):
    dataset = synthetic_dataset()
    extract_features(tiny_backbone, dataset, **FP32).path.with_suffix(".json").write_text(sidecar)
    extract_features(tiny_backbone, dataset, **FP32)
    assert counted.images == 24


def test_sidecar_and_index(tiny_backbone, synthetic_dataset):
    import hashlib

    dataset = synthetic_dataset()
    features = extract_features(tiny_backbone, dataset, **FP32)
    sidecar = json.loads(features.path.with_suffix(".json").read_text())
    assert sidecar["backbone"]["fingerprint"] == tiny_backbone.fingerprint
    assert sidecar["backbone"]["preprocessing"]["interpolation"] == "bilinear"
    assert sidecar["data"] == dataset.digest
    assert (sidecar["engine"], sidecar["precision"]) == ("torch", "fp32")
    assert sidecar["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert sidecar["git"]
    assert abs(time.time() - pd.Timestamp(sidecar["time"]).timestamp()) < 600
    index = read_index(features)
    assert list(index.columns) == ["split", "row", "id", "label", "class", "sha256"]
    test = index[index["split"] == "test"]
    assert test["row"].tolist() == [0, 1, 2, 3]
    assert test["sha256"].tolist() == [
        hashlib.sha256(image.tobytes()).hexdigest() for image in dataset.splits["test"].images
    ]
    assert set(load_file(features.path)) == {
        f"{s}/{o}" for s in dataset.splits for o in tiny_backbone.outputs
    }
    assert describe_features(features)["weights"] == tiny_backbone.fingerprint
    assert (
        feature_table([features, features])["weights"].tolist() == [tiny_backbone.fingerprint] * 2
    )
    assert sorted(
        path.suffix for path in features.path.parent.iterdir() if path.suffix != ".lock"
    ) == [
        ".json",
        ".parquet",
        ".safetensors",
    ]


def test_an_interrupted_extraction_goes_on(tiny_backbone, synthetic_dataset, counted, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    dataset, whole = synthetic_dataset((11, 3, 4)), synthetic_dataset((11, 3, 4), name="whole.npz")
    batches = chunks._batches

    def interrupted(split, chunk, *rest):
        if (chunk.split, chunk.start) == ("train", 8):
            raise KeyboardInterrupt
        return batches(split, chunk, *rest)

    monkeypatch.setattr(chunks, "_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(tiny_backbone, dataset, batch_size=2, **FP32)
    assert counted.images == 8
    monkeypatch.setattr(chunks, "_batches", batches)
    resumed = extract_features(tiny_backbone, dataset, batch_size=2, **FP32)
    assert counted.images == 18
    expected = extract_features(
        tiny_backbone, whole, folder=resumed.path.parent / "whole", batch_size=2, **FP32
    )
    assert file_hash(expected.path) == file_hash(resumed.path)


def test_a_half_written_chunk_is_made_again(tiny_backbone, synthetic_dataset, counted, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    dataset = synthetic_dataset((8, 3, 4))
    monkeypatch.setattr(module, "join_chunks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extract_features(tiny_backbone, dataset, **FP32)
    chunk = sorted(next((dataset_folder := module.features_folder()).glob("*.partial")).iterdir())[
        0
    ]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    monkeypatch.undo()
    monkeypatch.setenv("RADIODINO_DATA", str(dataset_folder.parent))
    monkeypatch.setattr(chunks, "CHUNK", 4)
    features = extract_features(tiny_backbone, dataset, **FP32)
    np.testing.assert_allclose(
        features.embedding("test")[0],
        reference(tiny_backbone, dataset.splits["test"].images[0])[0],
        atol=2e-5,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_features_are_refused_and_nothing_is_kept(weights_file, synthetic_dataset, value):
    model = tiny_transformer()
    with torch.no_grad():
        model.norm.bias[3] = value
    backbone, dataset = load_backbone(f"file:{weights_file(model)}"), synthetic_dataset()
    with pytest.raises(
        InputError, match=r"class_token of 5 images is NaN or infinite, first of 'train/000000'"
    ):
        extract_features(backbone, dataset, **FP32)
    assert not list(module.features_folder().rglob("*.safetensors"))


def test_no_disk_space_is_said_before_any_work(
    tiny_backbone, synthetic_dataset, counted, monkeypatch
):
    dataset = synthetic_dataset()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        InputError, match=r"features: no disk space: .* MB are needed .* RADIODINO_DATA"
    ):
        extract_features(tiny_backbone, dataset, **FP32)
    assert counted.images == 0


def test_a_damaged_image_is_named_and_the_rest_is_kept(
    tiny_backbone, tmp_path, counted, monkeypatch
):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    for row in range(4):
        file = tmp_path / "set" / "one" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), row * 50, np.uint8)).save(file)
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"3\.png: the image is damaged or truncated"):
        extract_features(
            tiny_backbone,
            load_dataset(f"folder:{tmp_path / 'set'}", on_error="raise"),
            batch_size=1,
            **FP32,
        )
    assert len(list(module.features_folder().rglob("all-*.safetensors"))) == 1


def test_mixed_grey_and_colour_files(tiny_backbone, tmp_path):
    for name, shape in (("grey", (32, 32)), ("colour", (32, 32, 3))):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(np.full(shape, 100, np.uint8)).save(tmp_path / "set" / name / "a.png")
    features = extract_features(tiny_backbone, load_dataset(f"folder:{tmp_path / 'set'}"), **FP32)
    np.testing.assert_allclose(*features.embedding("all"), atol=2e-5)


def test_a_folder_in_a_file_is_an_input_error(tiny_backbone, synthetic_dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        extract_features(
            tiny_backbone, synthetic_dataset(), folder=tmp_path / "file" / "features", **FP32
        )


def command(weights, npz, folder):
    return [
        "extract",
        f"npz:{npz}",
        "--backbone",
        f"file:{weights}",
        "--folder",
        str(folder),
        "--engine",
        "torch",
    ]


@pytest.fixture
def inputs(weights_file, tmp_path):
    """A weights file and an npz file for processes of their own."""
    np.savez(tmp_path / "made.npz", **synthetic_arrays((21, 5, 6)))
    return weights_file(tiny_transformer()), tmp_path / "made.npz"


def environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def test_two_processes_at_once(inputs, tmp_path):
    arguments = command(*inputs, tmp_path / "features")
    start = [sys.executable, "-m", "radiodino_utils.cli", *arguments]
    processes = [
        subprocess.Popen(start, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(printed) == 1
    features = extract_features(
        load_backbone(f"file:{inputs[0]}"),
        load_dataset(f"npz:{inputs[1]}"),
        folder=tmp_path / "features",
        **FP32,
    )
    assert str(features.path) in printed
    assert features.sidecar["sha256"][features.path.name] == file_hash(features.path)
    assert not list(features.path.parent.glob("*.partial"))


def test_two_gloo_processes_write_what_one_writes(inputs, tmp_path):
    alone, together = (command(*inputs, tmp_path / name) for name in ("one", "two"))
    script = tmp_path / "extract.py"
    script.write_text(
        FOUR_A_CHUNK
        + "cli.app(standalone_mode=False); extraction.extract_chunks = None; "  # writes
        + "cli.app(standalone_mode=False)"  # reads
    )
    subprocess.run([sys.executable, script, *alone], env=environment(), check=True)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-endpoint",
        "127.0.0.1:0",
    ]
    torchrun += ["--rdzv-backend", "c10d", script, *together]
    done = subprocess.run(torchrun, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".safetensors") == 2
    one, two = (next((tmp_path / name).glob("*.safetensors")) for name in ("one", "two"))
    assert one.name == two.name
    assert file_hash(one) == file_hash(two)
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(path.with_suffix(".parquet")) for path in (one, two))
    )


def test_a_killed_process_leaves_what_the_next_one_can_use(inputs, tmp_path):
    code = FOUR_A_CHUNK + (
        "import os, signal; "
        "extraction.join_chunks = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "cli.app(standalone_mode=False)"
    )
    arguments = command(*inputs, tmp_path / "features")
    killed = subprocess.run([sys.executable, "-c", code, *arguments], env=environment())
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("features/*.partial/*.safetensors"))) == 6 + 2 + 2
    code = FOUR_A_CHUNK + "chunks._batches = None; cli.app(standalone_mode=False)"
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), check=True)


PEAK = """
import sys, threading
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.features.extraction import extract_features
import torch
torch.set_num_threads(1)

def anonymous():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) / 1e3

backbone, sets = load_backbone(sys.argv[1]), [load_dataset("npz:" + path) for path in sys.argv[2:]]
extract_features(backbone, sets[0], engine="torch", precision="fp32")
before, peak, stop = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not stop.wait(0.005):
        peak = max(peak, anonymous())

threading.Thread(target=watch).start()
features = extract_features(backbone, sets[1], engine="torch", precision="fp32")
stop.set()
held = sum(array.nbytes for split in features.arrays.values() for array in split.values())
print(peak - before, held / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc to see the memory"
)
def test_memory_grows_with_the_features_only(run_python, weights_file, tmp_path):
    small = weights_file(
        tiny_transformer(img_size=64, patch_size=32, embed_dim=32, num_heads=1, depth=1)
    )
    paths = [tmp_path / "small.npz", tmp_path / "large.npz"]
    for path, count in zip(paths, (2000, 20000), strict=True):
        np.savez(
            path, **synthetic_arrays((count, 2, 2), size=128)
        )  # the large one holds 328 MB of images
    done = run_python(PEAK, f"file:{small}", *paths)
    assert done.returncode == 0, done.stderr
    grown, features = map(float, done.stdout.split())
    assert features == pytest.approx(5.1, abs=0.1)
    assert grown < 60  # features thrice, the index of 20,000 rows, a chunk


@pytest.mark.data
@pytest.mark.slow
def test_the_official_breastmnist(shared_data, monkeypatch):
    monkeypatch.setenv("MEDMNIST", str(shared_data / "medmnist"))
    dataset = load_dataset("breastmnist-224")
    features = extract_features(load_backbone("random-t16"), dataset)
    assert {split: len(labels) for split, labels in features.labels.items()} == {
        "train": 546,
        "val": 78,
        "test": 156,
    }
    assert {split: array["class_token"].shape for split, array in features.arrays.items()} == {
        "train": (546, 192),
        "val": (78, 192),
        "test": (156, 192),
    }
    with np.load(shared_data / "medmnist" / "breastmnist_224.npz") as official:
        for split, labels in features.labels.items():
            assert labels.tolist() == official[f"{split}_labels"].ravel().tolist()
    assert [int((features.labels["test"] == label).sum()) for label in (0, 1)] == [42, 114]
    assert features.classes == ("malignant", "normal, benign")


def test_features_follow_the_weights_in_memory(tiny_backbone, synthetic_dataset):
    dataset, other = synthetic_dataset(), tiny_transformer(seed=1)
    first = extract_features(tiny_backbone, dataset, engine="openvino", precision="fp32")
    tiny_backbone.model.load_state_dict(other.state_dict())
    second = extract_features(tiny_backbone, dataset, engine="openvino", precision="fp32")
    assert second.path != first.path and second.sidecar["backbone"]["fingerprint"] == fingerprint(
        other
    )
    assert np.abs(second.embedding("test") - first.embedding("test")).max() > 0.1
    fresh = extract_features(
        from_model("fresh", other, "made"), dataset, engine="torch", precision="fp32"
    )
    np.testing.assert_allclose(second.embedding("test"), fresh.embedding("test"), atol=1e-4)
    with torch.no_grad():
        tiny_backbone.model.norm.bias += 1
    third = extract_features(tiny_backbone, dataset, engine="torch", precision="fp32")
    np.testing.assert_allclose(third.embedding("test"), second.embedding("test") + 1, atol=1e-3)


def test_the_same_tensors_with_other_heads_have_features_of_their_own(synthetic_dataset):
    dataset = synthetic_dataset()
    two, four = (from_model("tiny", tiny_transformer(num_heads=heads), "made") for heads in (2, 4))
    assert two.fingerprint == four.fingerprint and two.structure != four.structure
    first, second = (
        extract_features(one, dataset, engine="torch", precision="fp32") for one in (two, four)
    )
    assert (
        first.path != second.path
        and np.abs(first.embedding("test") - second.embedding("test")).max() > 1e-3
    )


def test_a_stray_rank_changes_nothing(tiny_backbone, synthetic_dataset, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "four")
    features = extract_features(tiny_backbone, synthetic_dataset(), **FP32)
    assert len(features.embedding("train")) == 5
