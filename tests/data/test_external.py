from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.external import external_segmentation_test
from radiodino_utils.data.registry import load_dataset, with_test
from radiodino_utils.data.segmentation import load_segmentation_dataset


def images_of(name, sizes, *, classes=("benign", "malignant"), start=0, **changes):
    """Return a dataset whose images hold their number."""
    splits = {}
    for split, n in sizes.items():
        images = (
            np.arange(start, start + n, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
        )
        labels = np.arange(n) % len(classes)
        ids = [f"{name}/{i}" for i in range(start, start + n)]
        groups = [f"p{i}" for i in range(start, start + n)]
        splits[split], start = Split(images, labels, ids, groups), start + n
    options = {"digest": name, "unit": "patient", "groups_from": "PatientID"} | changes
    return ImageDataset(name, tuple(classes), splits, **options)


HOME = images_of("home", {"train": 20, "val": 10, "test": 10})
AWAY = images_of("away", {"all": 16}, start=100)


def test_the_test_split_is_the_external_one_and_the_rest_stays(capsys):
    dataset = with_test(HOME, AWAY)
    assert dataset.name == "home tested on away"
    assert dataset.splits["train"] is HOME.splits["train"]
    assert dataset.splits["val"] is HOME.splits["val"]
    assert dataset.splits["test"].ids == AWAY.splits["all"].ids
    assert dataset.caveat == "external test set away"
    assert dataset.digest not in (HOME.digest, AWAY.digest)
    assert capsys.readouterr().out == (
        "home: fitted on 20 images, 10 for validation; tested on 16 images of away (all).\n"
        "home: its own 10 test images are left out.\n"
    )


def test_images_without_splits_get_a_validation_split_of_other_patients():
    undivided = images_of("home", {"all": 50})
    groups = [f"p{i // 4 * 2 + i % 2}" for i in range(50)]
    split = replace(undivided.splits["all"], groups=groups)
    dataset = with_test(replace(undivided, splits={"all": split}), AWAY)
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert sorted([*train.ids, *val.ids]) == sorted(split.ids) and 8 <= len(val) <= 12
    assert not set(train.groups) & set(val.groups)
    assert not set(dataset.splits["test"].ids) & {*train.ids, *val.ids}


def test_labels_follow_the_names_of_the_classes():
    turned = images_of("away", {"train": 6, "test": 16}, classes=("malignant", "benign"), start=100)
    dataset = with_test(HOME, turned)
    names = [dataset.classes[label] for label in dataset.splits["test"].labels]
    assert names == ["malignant", "benign"] * 8
    assert dataset.positive == "malignant" and dataset.classes == HOME.classes


@pytest.mark.parametrize(
    ("dataset", "test", "message"),
    [
        (
            HOME,
            images_of("away", {"all": 9}, classes=("benign", "cancer")),
            r"away: an external test set needs the classes of home \(benign, malignant\), and has "
            "benign, cancer",
        ),
        (
            HOME,
            images_of("away", {"all": 9}, start=15),
            r"away: the patient 'p15' is in home too \(9 such\)",
        ),
        (HOME, images_of("away", {"train": 9}, start=100), "away: is no external test set"),
        (HOME, replace(AWAY, digest=HOME.digest), "away: holds the images of home; test it on"),
        (images_of("home", {"test": 9}), AWAY, "home: has no split 'train'"),
        (
            images_of("home", {"all": 9}),
            AWAY,
            "home: 5 parts need 5 patients of each class, and the class 'malignant' has 4",
        ),
    ],
)
def test_what_is_no_external_test_set_is_refused_in_a_sentence(dataset, test, message):
    with pytest.raises(InputError, match=message):
        with_test(dataset, test)


def test_an_open_name_may_name_a_test_set(images, tmp_path):
    images([f"home/{label}/{i}.png" for label in "ab" for i in range(6)])
    images([f"other site/{label}/{i}.png" for label in "ab" for i in range(3)])
    dataset = load_dataset(f"study=folder:{tmp_path / 'home'}?test={tmp_path / 'other site'}")
    assert dataset.name == "study" and len(dataset.splits["test"]) == 6
    assert len(dataset.splits["train"]) + len(dataset.splits["val"]) == 12
    again = load_dataset(f"folder:{tmp_path / 'home'}?test=away=folder:{tmp_path / 'other site'}")
    assert again.caveat == "external test set away"
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load_dataset(f"folder:{tmp_path / 'home'}?test={tmp_path / 'nowhere'}")


@pytest.fixture
def outlined(tmp_path):
    """Return a function that writes noisy images with masks and loads them."""

    def write(name, n, *, seed=0):
        generator = np.random.default_rng(seed)
        for i in range(n):
            pixels = generator.integers(0, 256, (32, 32), np.uint8)
            for part, values in (("images", pixels), ("masks", (pixels > 200).astype(np.uint8))):
                path = tmp_path / name / part / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
        return f"{name}=masks:{tmp_path / name}"

    return write


def test_a_segmentation_is_fitted_here_and_tested_there(outlined, tmp_path, capsys):
    (home,) = load_segmentation_dataset(outlined("home", 20))
    (away,) = load_segmentation_dataset(outlined("away", 8, seed=1))
    dataset = external_segmentation_test(home, away)
    train, val, test = dataset.splits.values()
    assert sorted([*train, *val]) == [*range(20)] and len(val) == 4
    assert [*test] == [*range(20, 28)] and len(dataset) == 28 and not dataset.drawn
    assert np.array_equal(dataset.images[21], away.images[1])
    assert np.array_equal(dataset.small_masks(test, 16), away.small_masks(np.arange(8), 16))
    assert dataset.ids[20:] == away.ids and dataset.digest not in (home.digest, away.digest)
    assert dataset.caveat == "external test set away"
    assert "home: fitted on 16 images, 4 for validation; tested on 8" in capsys.readouterr().out
    name = f"study=masks:{tmp_path / 'home'}?test={tmp_path / 'away'}"
    (named,) = load_segmentation_dataset(name)
    assert named.name == "study" and all(
        np.array_equal(named.splits[split], rows) for split, rows in dataset.splits.items()
    )


def test_images_of_the_external_test_are_not_fitted(outlined, capsys):
    (home,) = load_segmentation_dataset(outlined("home", 20))
    (away,) = load_segmentation_dataset(outlined("away", 6))  # the first six of home
    dataset = external_segmentation_test(home, away)
    fitted = {*dataset.splits["train"], *dataset.splits["val"]}
    assert fitted == {*range(6, 20)}
    assert "home: 6 images are in the test set too" in capsys.readouterr().out
    given = {"train": np.arange(9), "val": np.arange(9, 14), "test": np.arange(14, 20)}
    official = external_segmentation_test(replace(home, splits=given, drawn=False), away)
    assert {name: len(rows) for name, rows in official.splits.items()} == dict(
        train=3, val=5, test=6
    )


def test_groups_of_a_segmentation_stay_on_one_side_of_the_fit(outlined):
    (home,) = load_segmentation_dataset(outlined("home", 20))
    (away,) = load_segmentation_dataset(outlined("away", 6, seed=1))
    volumes = [f"v{i // 4}" for i in range(20)]
    home = replace(home, groups=volumes, unit="volume", groups_from="files")
    away = replace(away, groups=[*"aabbcc"], unit="volume", groups_from="files")
    dataset = external_segmentation_test(home, away)
    assert not {volumes[i] for i in dataset.splits["val"]} & {
        volumes[i] for i in dataset.splits["train"]
    }
    assert [dataset.groups[row] for row in dataset.splits["test"]] == [*"aabbcc"]
    assert (dataset.unit, dataset.groups_from) == ("volume", "files")


def test_an_external_test_set_needs_the_same_masks(outlined):
    (home,) = load_segmentation_dataset(outlined("home", 4))
    (away,) = load_segmentation_dataset(outlined("away", 4, seed=1))
    with pytest.raises(InputError, match=r"needs the classes of home \(background, foreground\)"):
        external_segmentation_test(home, replace(away, classes=("background", "liver")))
    (same,) = load_segmentation_dataset(outlined("same", 4))
    with pytest.raises(InputError, match="0 images of 0 groups are left to fit"):
        external_segmentation_test(home, same)
