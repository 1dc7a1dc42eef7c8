"""Files in MedMNIST's layout: whole, faulty, damaged and hostile."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash
from radiodino_utils.data import npz as module
from radiodino_utils.data.dataset import summary
from radiodino_utils.data.registry import load_dataset

from ..conftest import flip, synthetic_arrays

FLIPS = 50


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


def test_arrays_without_splits_are_one_split(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([0, 1, 0, 1, 1]))
    dataset = load_dataset(f"own=npz:{tmp_path / 'a.npz'}")
    assert list(dataset.splits) == ["all"] and dataset.splits["all"].labels.tolist() == [
        *(0, 1, 0, 1, 1)
    ]
    np.savez(tmp_path / "b.npz", images=IMAGES)
    assert load_dataset(f"npz:{tmp_path / 'b.npz'}").classes == ("unlabelled",)


def test_a_short_name_needs_no_more_splits_than_a_path(npz):
    absent = dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels"))
    assert list(load_dataset(f"own=npz:{npz(**absent)}").splits) == ["train"]


FAULTS = {
    "a missing key": (
        {"test_labels": None},
        r"the keys test_labels are missing \(it holds train_images, .*; save `images` and `labels`",
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
        r"train_labels is uint8 \(5, 14\); one whole number per image",
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


def test_summary(npz):
    table = summary([load_dataset(f"npz:{npz()}")])
    assert table.loc[0, ["train", "val", "test", "classes"]].tolist() == [5, 3, 4, 3]


def test_no_disk_space_to_unpack(npz, monkeypatch):
    from types import SimpleNamespace

    path = npz()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(InputError, match="no disk space"):
        load_dataset(f"npz:{path}")


def test_flipped_unpacked_arrays_are_unpacked_again(synthetic_dataset, data_folder, capsys):
    dataset, generator = synthetic_dataset(), np.random.default_rng(2)
    before = {
        name: (np.array(split.images), split.labels) for name, split in dataset.splits.items()
    }
    arrays = sorted(data_folder.glob("unpacked/*/*.npy"))
    assert len(arrays) == 6
    for _ in range(FLIPS):
        path = arrays[generator.integers(6)]
        flip(path, generator)
        for name, split in load_dataset(dataset.name).splits.items():
            assert np.array_equal(split.images, before[name][0]) and np.array_equal(
                split.labels, before[name][1]
            )
        assert f"{path}: damaged; unpacked again." in capsys.readouterr().out


def test_a_flipped_npz_of_unknown_md5_is_never_a_traceback(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **synthetic_arrays())
    whole, generator = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(3)
    for number in range(FLIPS):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(whole)
        place = (
            len(whole) - 1 - int(generator.integers(900))
            if number % 2
            else int(generator.integers(len(whole)))
        )  # directory
        path.write_bytes(
            whole[:place]
            + bytes([whole[place] ^ 1 << int(generator.integers(8))])
            + whole[place + 1 :]
        )
        try:
            load_dataset(f"npz:{path}")
        except InputError as error:
            assert str(path) in str(error)


def test_members_that_unpack_to_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGE", 1 << 16)
    np.savez_compressed(
        tmp_path / "bomb.npz",
        **synthetic_arrays() | {"train_images": np.zeros((400, 32, 32), np.uint8)},
    )
    with pytest.raises(
        InputError,
        match=r"bomb\.npz: train_images\.npy would unpack from 0 to 0 MB, which no images do",
    ):
        load_dataset(f"npz:{tmp_path / 'bomb.npz'}")


def test_pickles_and_other_folders_in_an_npz(tmp_path, data_folder):
    np.savez(tmp_path / "pickle.npz", **synthetic_arrays() | {"train_ids": np.array([{}], object)})
    with pytest.raises(InputError, match=r"pickle\.npz: the npz file is damaged .*Python objects"):
        load_dataset(f"npz:{tmp_path / 'pickle.npz'}")
    np.savez(tmp_path / "out.npz", **synthetic_arrays() | {"../../../out": np.zeros(3)})
    load_dataset(f"npz:{tmp_path / 'out.npz'}")
    assert not list(tmp_path.rglob("out.npy"))
