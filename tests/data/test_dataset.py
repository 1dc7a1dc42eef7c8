"""Datasets say in one line what they hold, and name their splits where one is missing."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import Split, class_counts, print_caveats
from radiodino_utils.data.registry import as_dataset, load_dataset
from radiodino_utils.data.segmentation import as_segmentation_datasets
from radiodino_utils.features.extraction import extract_features
from tests.synthetic_segmentation import synthetic_segmentation


def test_repr_is_one_line_with_the_sizes(synthetic_dataset) -> None:
    dataset = synthetic_dataset()
    assert repr(dataset) == f"ImageDataset('{dataset.name}', 3 classes, train 5, val 3, test 4)"
    assert repr(dataset.splits["val"]) == "Split(3 images)"
    patients = replace(dataset.splits["val"], groups=["a", "b", "a"])
    assert repr(patients) == "Split(3 images, 2 groups)"
    segmentation = synthetic_segmentation()
    assert repr(segmentation) == (
        "SegmentationDataset('made-split', 2 classes, train 6, val 3, test 4)"
    )
    assert ", fold 3, " in repr(replace(segmentation, fold=3))


@pytest.mark.parametrize("make", ["image", "segmentation"])
def test_missing_split_names_those_that_exist(make: str, synthetic_dataset) -> None:
    dataset = synthetic_dataset() if make == "image" else synthetic_segmentation()
    sentence = f"^{dataset.name}: has no split 'tset'; its splits: train, val, test.$"
    for same in (dataset, replace(dataset), copy.deepcopy(dataset)):
        with pytest.raises(InputError, match=sentence):
            same.splits["tset"]
    with pytest.raises(InputError, match=sentence):
        pickle.loads(pickle.dumps(dataset.splits))["tset"]
    assert dataset.splits.get("tset") is None and "tset" not in dataset.splits


def test_missing_split_of_a_dataset_that_another_split_was_added_to(synthetic_dataset) -> None:
    dataset = synthetic_dataset()
    other = Split([], dataset.splits["test"].labels[:0], [])
    dataset = replace(dataset, name="whole", splits=dataset.splits | {"all": other})
    with pytest.raises(InputError, match="^whole: .* its splits: train, val, test, all.$"):
        dataset.checked_labels("tset")


def test_names_are_accepted_where_datasets_are(synthetic_dataset) -> None:
    dataset = synthetic_dataset()
    assert as_dataset(dataset) is dataset
    assert as_dataset(dataset.name).digest == dataset.digest
    segmentation = synthetic_segmentation()
    assert as_segmentation_datasets(segmentation) == [segmentation]
    assert as_segmentation_datasets((segmentation, segmentation)) == [segmentation] * 2
    with pytest.raises(InputError, match="^unknown segmentation dataset 'organct'; did you mean"):
        as_segmentation_datasets("organct")


@pytest.mark.parametrize("value", [5, None, ["organct-axial"], {}])
def test_wrong_types_get_one_sentence(value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(InputError, match=f"^dataset: expected .*, got {kind}.$"):
        as_dataset(value)
    with pytest.raises(InputError, match=f"^dataset: expected .*, got {kind}.$"):
        load_dataset(value)
    with pytest.raises(InputError, match="^segmentation dataset: expected .*, got "):
        as_segmentation_datasets(value)


def test_the_cache_key_follows_changes_in_memory(tiny_backbone, synthetic_dataset):
    dataset, fp32 = synthetic_dataset(), {"engine": "torch", "precision": "fp32"}
    test = dataset.splits["test"]
    first = extract_features(tiny_backbone, dataset, **fp32)
    for changed in (
        replace(test, labels=test.labels[::-1]),
        replace(test, images=np.array(test.images[::-1])),
        replace(test, images=test.images[::-1]),
        replace(test, images=list(test.images)[::-1]),
        replace(test, ids=[f"other {name}" for name in test.ids]),
    ):
        other = extract_features(
            tiny_backbone, replace(dataset, splits={**dataset.splits, "test": changed}), **fp32
        )
        assert other.path != first.path
        assert other.labels["test"].tolist() == changed.labels.tolist() and other.ids[
            "test"
        ] == list(changed.ids)
        turned = changed.images is not test.images
        np.testing.assert_allclose(
            other.embedding("test"), first.embedding("test")[:: -1 if turned else 1], atol=1e-5
        )
    assert extract_features(tiny_backbone, synthetic_dataset(), **fp32).path == first.path


def test_each_caveat_is_printed_once(synthetic_dataset, capsys: pytest.CaptureFixture) -> None:
    dataset = synthetic_dataset()
    print_caveats([replace(dataset, caveat="one patient"), replace(dataset, caveat="one patient")])
    print_caveats(["", "pooled over 5 folds", "one patient"])
    assert capsys.readouterr().out.splitlines() == [
        "Remember: one patient.",
        "Remember: pooled over 5 folds.",
        "Remember: one patient.",
    ]


def test_the_first_images_of_each_class() -> None:
    split = Split(np.zeros((6, 2, 2), np.uint8), np.array([2, 0, 2, 0, 2, 5]), list("abcdef"))
    assert split.first_of_each_class().tolist() == [1, 0, 5]
    assert split.first_of_each_class(2).tolist() == [1, 3, 0, 2, 5]


def test_class_counts_say_images_and_groups_of_each_split(synthetic_dataset) -> None:
    dataset = synthetic_dataset()
    counts = class_counts(dataset)
    assert counts.groupby("split", sort=False)["images"].sum().to_dict() == {
        "train": 5,
        "val": 3,
        "test": 4,
    }
    assert counts["groups"].isna().all() and counts["class"].tolist() == [*dataset.classes] * 3
    grouped = replace(dataset.splits["val"], groups=["a", "a", "a"])
    counts = class_counts(replace(dataset, splits={"val": grouped}))
    assert counts["groups"].max() == 1
