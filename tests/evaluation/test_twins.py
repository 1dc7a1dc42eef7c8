from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from radiodino_utils.data.registry import ImageDataset, Split, load_dataset
from radiodino_utils.evaluation.few_shot import classify_few_shot
from radiodino_utils.evaluation.finetuning import finetune_seeds
from radiodino_utils.evaluation.protocols import classify
from radiodino_utils.evaluation.twins import (
    class_mix,
    deduplicated,
    find_all_twins,
    find_twins,
    three_ways,
    without_twins,
)
from radiodino_utils.features.features import Features
from tests.data.test_duplicates import blocks
from tests.evaluation.test_finetuning import QUICK

from ..synthetic import synthetic_features


def split(name, images, labels):
    return Split(images, np.array(labels), [f"{name}/{row}" for row in range(len(labels))])


def leaky_dataset():
    """Make a dataset with twins.

    Test images 0 and 3 lie in train (rows 2 and 5), test image 1 in val (row 0); a pair inside
    train is no twin.
    """
    train = [blocks(seed) for seed in range(12)]
    train[11] = train[10]
    val = [blocks(seed) for seed in range(20, 24)]
    test = [train[2], val[0], blocks(30), (train[5] * 0.8).astype(np.uint8), blocks(31), blocks(32)]
    parts = {"train": (train, [0, 1] * 6), "val": (val, [0, 1] * 2), "test": (test, [0, 1] * 3)}
    return ImageDataset(
        "leaky", ("a", "b"), {name: split(name, *part) for name, part in parts.items()}, "digest"
    )


def test_twins_are_found_on_both_sides_and_not_inside_a_split():
    found = find_twins(leaky_dataset())
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "train": [2, 5],
        "val": [0],
        "test": [0, 1, 3],
    }
    assert find_twins(without_twins(leaky_dataset(), found)) == {}


def test_twins_of_several_datasets_are_found_by_name_except_for_folds():
    fold = replace(leaky_dataset(), name="leaky-fold0", fold_of="leaky")
    undivided = replace(fold, name="undivided", splits={"all": fold.splits["test"]}, fold_of="")
    found = find_all_twins([leaky_dataset(), fold, undivided])
    assert list(found) == ["leaky"] and found["leaky"]["test"].tolist() == [0, 1, 3]


def test_a_dataset_without_twins_has_none():
    leaky = leaky_dataset()
    clean = ImageDataset("clean", leaky.classes, {"train": leaky.splits["train"]}, "digest")
    assert find_twins(clean) == {} and without_twins(clean, {}) is clean


def test_the_cleaned_dataset_keeps_every_test_image_and_has_another_digest():
    leaky = leaky_dataset()
    clean = without_twins(leaky, find_twins(leaky))
    sizes = {name: len(part) for name, part in clean.splits.items()}
    assert sizes == {"train": 10, "val": 3, "test": 6}
    train = clean.splits["train"]
    assert train.ids == [f"train/{row}" for row in range(12) if row not in (2, 5)]
    assert np.array_equal(train.images[2], leaky.splits["train"].images[3])
    assert len(train.images[slice(1, 4)]) == 3 and len(train.images) == 10
    assert clean.digest != leaky.digest and clean.splits["test"] is leaky.splits["test"]


@pytest.mark.parametrize("protocol", ["knn", "knn1", "knn11", "logistic", "linear"])
def test_every_frozen_protocol_has_three_rows(protocol):
    features = [
        synthetic_features(backbone=name, noise=2.0, caveat="one patient")
        for name in ("random-t16", "pixels")
    ]
    twins = {"train": np.arange(20), "val": np.array([3]), "test": np.array([0, 5])}
    predictions = three_ways(classify, features, {"made": twins}, protocol=protocol, iterations=20)
    names = [protocol, f"{protocol} (deduplicated)", f"{protocol} (train-deduplicated)"]
    runs = [(prediction.protocol, prediction.backbone) for prediction in predictions]
    assert runs == list(product(names, ["random-t16", "pixels"]))
    official, _, rest, _, clean, _ = predictions
    assert (len(official.labels), len(rest.labels), len(clean.labels)) == (30, 28, 30)
    assert np.array_equal(rest.probabilities, np.delete(official.probabilities, [0, 5], 0))
    alone = classify(without_twins(features[0], twins), protocol, iterations=20)
    assert np.array_equal(clean.probabilities, alone.probabilities) and clean.ids == official.ids
    assert not np.array_equal(clean.probabilities, official.probabilities)
    assert rest.caveat == "one patient; without 2 images that have a twin in train or val"
    assert (
        clean.caveat
        == "one patient; fitted without 20 train and 1 val images that have a twin in test"
    )


def test_protocols_of_few_labels_have_three_rows_too_and_sets_without_twins_one():
    features = [synthetic_features(dataset=name) for name in ("made", "other")]
    twins = {"made": {"train": np.arange(3), "test": np.array([1])}}
    predictions = three_ways(
        classify_few_shot, features, twins, shots=(1,), draws=2, methods=("knn",)
    )
    runs = {(prediction.dataset, prediction.protocol) for prediction in predictions}
    names = ["fewshot-1-knn", "fewshot-1-knn (deduplicated)", "fewshot-1-knn (train-deduplicated)"]
    assert runs == {("made", name) for name in names} | {("other", names[0])}
    assert len(predictions) == 8


@pytest.mark.parametrize("left", [0, 1])
def test_what_cannot_be_fitted_without_twins_is_said(left, capsys):
    features = [synthetic_features()]
    rows = np.flatnonzero(features[0].labels["train"] == 1)[left:]  # all but a few of a class
    twins = {"made": {"train": rows, "val": rows[:0], "test": np.arange(30)}}
    options = {"shots": (2,), "draws": 1, "methods": ("knn",)}
    predictions = three_ways(classify_few_shot, features, twins, **options)
    assert [prediction.protocol for prediction in predictions] == ["fewshot-2-knn"]
    sentence = f"{left} images of 'class 1' in train have no twin in test"
    assert f"made: nothing is train-deduplicated: {sentence}" in capsys.readouterr().out


def test_cleaned_features_are_rows_of_the_whole_ones():
    features = synthetic_features()
    clean = without_twins(features, {"train": np.array([0]), "test": np.array([0])})
    assert isinstance(clean, Features)
    assert np.array_equal(clean.embedding("train"), features.embedding("train")[1:])
    assert clean.ids["train"] == features.ids["train"][1:]
    assert clean.labels["test"] is features.labels["test"]


def test_fine_tuning_is_repeated_without_twins(tiny_backbone, tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 48), ("val", 16), ("test", 16)):
        arrays |= {
            f"{name}_images": generator.integers(0, 256, (n, 32, 32), np.uint8),
            f"{name}_labels": np.arange(n)[:, None] % 2,
        }
    np.savez(tmp_path / "pairs.npz", **arrays)
    dataset = load_dataset(f"npz:{tmp_path / 'pairs.npz'}")
    twins = {"train": np.arange(16), "test": np.arange(4)}
    official, cleaned = finetune_seeds(
        tiny_backbone, dataset, [0], twins={dataset.name: twins}, config=QUICK
    )
    assert (official.prediction.protocol, cleaned.prediction.protocol) == (
        "finetune",
        "finetune (train-deduplicated)",
    )
    assert official.checkpoint != cleaned.checkpoint and len(cleaned.prediction.labels) == 16
    assert not np.array_equal(official.prediction.probabilities, cleaned.prediction.probabilities)
    again = finetune_seeds(
        tiny_backbone, dataset, [0], twins={dataset.name: twins}, jobs=2, config=QUICK
    )
    assert [run.checkpoint for run in again] == [official.checkpoint, cleaned.checkpoint]
    (rest,) = deduplicated([run.prediction for run in again], {dataset.name: twins})
    assert rest.protocol == "finetune (deduplicated)" and len(rest.labels) == 12


def test_the_class_mix_counts_who_was_left_out():
    features = synthetic_features()
    rows = np.flatnonzero(features.labels["test"] == 0)[:4]
    found = three_ways(
        classify, [features], {"made": {"train": np.arange(3), "test": rows}}, protocol="knn1"
    )
    table = class_mix(found)
    assert table["with_twin"].tolist() == [4, 0, 0] and table["others"].tolist() == [6, 10, 10]
    assert table["share_with_twin"].tolist() == [1, 0, 0] and table[
        "share_others"
    ].sum() == pytest.approx(1)
    assert list(class_mix(found[:1]).columns) == list(table.columns) and class_mix(found[:1]).empty


@pytest.mark.data
def test_breastmnist_shares_images_between_its_splits_and_other_images_are_removed_than_kept(
    shared_data,
):
    dataset = load_dataset("breastmnist-64", folder=shared_data / "medmnist")
    twins = find_twins(dataset)
    assert {name: len(rows) for name, rows in twins.items()} == {"train": 73, "val": 8, "test": 64}
    malignant = dataset.splits["test"].labels == dataset.classes.index("malignant")
    kept = np.setdiff1d(np.arange(156), twins["test"])
    assert (round(malignant[twins["test"]].mean(), 2), round(malignant[kept].mean(), 2)) == (
        0.16,
        0.35,
    )


@pytest.mark.data
def test_folds_of_busi_keep_twins_together(shared_data):
    assert find_twins(load_dataset("busi-fold0", folder=shared_data / "busi")) == {}
