from dataclasses import replace

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.registry import load_dataset, with_test


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
