import numpy as np
import pytest
from medmnist import INFO
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data.registry import dataset_names, load_dataset, summary

from ..conftest import synthetic_arrays


@pytest.fixture
def npz(tmp_path):
    """Writes arrays as an npz file; `None` leaves a key out."""

    def write(name="made.npz", compressed=False, **changes):
        arrays = {
            key: value for key, value in (synthetic_arrays() | changes).items() if value is not None
        }
        (np.savez_compressed if compressed else np.savez)(tmp_path / name, **arrays)
        return tmp_path / name

    return write


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_is_read_as_it_is(npz, compressed, data_folder):
    path, expected = npz(compressed=compressed), synthetic_arrays()
    dataset = load_dataset(f"npz:{path}")
    assert dataset.digest == file_hash(path, "md5")
    assert dataset.classes == ("0", "1", "2")
    for name, split in dataset.splits.items():
        np.testing.assert_array_equal(split.images, expected[f"{name}_images"])
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == expected[f"{name}_labels"].ravel().tolist()
        assert list(split.ids) == [f"{name}/{row:06d}" for row in range(len(split))]
        assert isinstance(split.images, np.memmap)
    before = {file: file.stat().st_mtime_ns for file in data_folder.rglob("*.npy")}
    assert len(before) == 6
    load_dataset(f"npz:{path}")
    assert before == {file: file.stat().st_mtime_ns for file in data_folder.rglob("*.npy")}


def test_a_half_unpacked_array_is_unpacked_again(npz, data_folder):
    path = npz()
    load_dataset(f"npz:{path}")
    half = next(data_folder.rglob("train_images.npy"))
    half.write_bytes(half.read_bytes()[:100])
    np.testing.assert_array_equal(
        load_dataset(f"npz:{path}").splits["train"].images, synthetic_arrays()["train_images"]
    )


def test_ids_come_from_the_file(npz):
    ids = {
        f"{split}_ids": np.array([f"{split}-{row}" for row in range(count)])
        for split, count in (("train", 5), ("val", 3), ("test", 4))
    }
    assert list(load_dataset(f"npz:{npz(**ids)}").splits["val"].ids) == ["val-0", "val-1", "val-2"]
    with pytest.raises(InputError, match=r"made\.npz: val_ids holds 2 names for 3 images"):
        load_dataset(f"npz:{npz(**ids | {'val_ids': ids['val_ids'][:2]})}")


def test_val_may_be_absent_from_a_file_of_ones_own(npz):
    assert list(load_dataset(f"npz:{npz(val_images=None, val_labels=None)}").splits) == [
        "train",
        "test",
    ]


IMAGES = np.zeros((5, 8, 8), np.uint8)
FAULTS = {
    "a missing key": (
        {"test_labels": None},
        r"the keys test_labels are missing; MedMNIST's layout is needed",
    ),
    "missing keys": (
        {"train_images": None, "train_labels": None},
        r"the keys train_images, train_labels are missing",
    ),
    "an empty split": (
        {"test_images": IMAGES[:0], "test_labels": IMAGES[:0, 0, :1]},
        r"the split 'test' is empty",
    ),
    "several labels": (
        {"train_labels": np.zeros((5, 14), np.uint8)},
        r"train_labels is uint8 \(5, 14\); one whole number a image",
    ),
    "too few labels": (
        {"train_labels": np.zeros((4, 1), np.uint8)},
        r"train_labels is uint8 \(4, 1\).*\(5, 1\)",
    ),
    "broken labels": ({"train_labels": np.zeros((5, 1))}, r"train_labels is float64 \(5, 1\)"),
    "negative labels": (
        {"train_labels": np.full((5, 1), -1)},
        r"train_labels holds -1; labels count from 0",
    ),
    "16-bit images": (
        {"train_images": IMAGES.astype(np.uint16)},
        r"train_images is uint16 \(5, 8, 8\); uint8",
    ),
    "volumes": (
        {"train_images": np.zeros((5, 8, 8, 8), np.uint8)},
        r"train_images is uint8 \(5, 8, 8, 8\)",
    ),
    "one number": ({"train_images": np.uint8(3)}, r"train_images is uint8 \(\)"),
    "objects": (
        {"train_labels": np.array([{}] * 5, object)},
        r"damaged or truncated .*Python objects",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_layouts(npz, fault):
    changes, message = FAULTS[fault]
    path = npz(**changes)
    with pytest.raises(InputError, match=rf"made\.npz: .*{message}"):
        load_dataset(f"npz:{path}")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text"])
def test_damaged_npz_files(npz, damage, compressed, data_folder):
    path = npz(compressed=compressed)
    content = path.read_bytes()
    middle = len(content) // 4
    path.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "flipped": content[:middle]
            + bytes(byte ^ 255 for byte in content[middle : middle + 40])
            + content[middle + 40 :],
            "text": b"no zip",
        }[damage]
    )
    with pytest.raises(InputError, match=r"made\.npz: the npz file is damaged or truncated"):
        load_dataset(f"npz:{path}")
    assert not [file for file in data_folder.rglob("*") if file.name.startswith(".")]


def test_an_official_name_checks_the_md5(npz, tmp_path, monkeypatch):
    npz("breastmnist_224.npz")
    for options in ({"folder": tmp_path}, {}):
        monkeypatch.setenv("MEDMNIST", "/nowhere" if options else str(tmp_path))
        with pytest.raises(
            InputError,
            match=rf"breastmnist_224\.npz: wrong MD5: \w+ instead of {INFO['breastmnist']['MD5_224']}",
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


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("organct-axal", "organct-axial"),
        ("brestmnist-224", "breastmnist-224"),
        ("organamnist_64", "organamnist-64"),
        ("OrganCT-axial", "organct-axial"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, nearest):
    with pytest.raises(InputError, match=rf"unknown dataset '{name}'; did you mean .*{nearest}"):
        load_dataset(name)


def test_the_registry():
    names = dataset_names()
    assert {
        "organct-axial",
        "organct-coronal",
        "organct-sagittal",
        "breastmnist-224",
        "organsmnist-28",
    } < set(names)
    assert not [name for name in names if "3d" in name or name.startswith("chestmnist")]
    with pytest.raises(InputError, match="nowhere"):
        load_dataset("npz:nowhere.npz")


@pytest.fixture
def folder(tmp_path):
    """Writes images of one grey value each into a folder."""

    def write(images):
        for value, name in enumerate(images):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)
        return tmp_path / "set"

    return write


def test_a_folder_of_classes(folder):
    names = [
        "liver/b.png",
        "liver/a.PNG",
        "heart/deep/er/c.bmp",
        ".ipynb_checkpoints/x.png",
        "liver/.hidden.png",
    ]
    root = folder(names)
    (root / "liver" / "notes.txt").write_text("no image")
    (root / "readme.txt").write_text("no class")
    dataset = load_dataset(f"folder:{root}")
    assert dataset.classes == ("heart", "liver")
    split = dataset.splits["all"]
    assert split.ids == ["heart/deep/er/c.bmp", "liver/a.PNG", "liver/b.png"]
    assert split.labels.tolist() == [0, 1, 1]
    assert [int(image[0, 0]) for image in split.images[:]] == [
        names.index(id_) for id_ in split.ids
    ]
    assert split.images[1].shape == (4, 6)


def test_a_folder_of_splits(folder):
    dataset = load_dataset(
        f"folder:{folder(['train/b/1.png', 'train/a/1.png', 'test/b/1.png', 'test/a/2.png'])}"
    )
    assert dataset.classes == ("a", "b")
    assert {name: split.labels.tolist() for name, split in dataset.splits.items()} == {
        "train": [0, 1],
        "test": [0, 1],
    }
    assert dataset.splits["test"].ids == ["test/a/2.png", "test/b/1.png"]


def test_the_digest_of_a_folder_changes_with_its_files(folder):
    root = folder(["a/1.png", "b/1.png"])
    before = load_dataset(f"folder:{root}").digest
    assert load_dataset(f"folder:{root}").digest == before
    folder(["a/1.png", "b/1.png", "b/2.png"])
    assert load_dataset(f"folder:{root}").digest != before


def test_folders_that_are_wrong(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="holds no class folders"):
        load_dataset(f"folder:{folder(['a.png'])}")
    root = folder(["train/a/1.png"])
    (root / "test" / "a").mkdir(parents=True)
    with pytest.raises(
        InputError, match="test: the split 'test' is empty: it holds no image files"
    ):
        load_dataset(f"folder:{root}")


def test_summary(npz):
    table = summary([load_dataset(f"npz:{npz()}")])
    assert table.loc[0, ["train", "val", "test", "classes"]].tolist() == [5, 3, 4, 3]


def test_no_disk_space_to_unpack(npz, monkeypatch):
    from types import SimpleNamespace

    path = npz()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(InputError, match="no disk space"):
        load_dataset(f"npz:{path}")
