import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radiodino_utils.data.registry import ImageDataset, Split, load_dataset
from radiodino_utils.evaluation.audit import audit
from radiodino_utils.evaluation.predictions import prediction, without_rows
from radiodino_utils.evaluation.twins import find_twins
from tests.data.test_duplicates import blocks

from ..synthetic import synthetic_features


def made(*, classes=("a", "b"), **images):
    """Make a dataset of named splits from (image, label) pairs."""
    splits = {
        name: Split(
            [image for image, _ in part],
            np.array([label for _, label in part]),
            [f"{name}/{i}" for i in range(len(part))],
        )
        for name, part in images.items()
    }
    return ImageDataset("made", classes, splits, "digest")


def darker(image):
    return (image * 0.8).astype(np.uint8)


TRAIN = [(blocks(seed), seed % 2) for seed in range(8)]
TEST = [(blocks(20), 0), (blocks(1), 0), (darker(blocks(2)), 0), (blocks(21), 1)]
LEAKY = made(train=TRAIN, val=[(blocks(30), 0), (darker(blocks(20)), 0)], test=TEST)


def test_duplicates_within_and_across_splits_and_labels():
    pairs = audit(LEAKY).pairs
    columns = ["kind", "id_1", "id_2", "across_splits", "across_labels"]
    assert pairs[columns].values.tolist() == [
        ["exact", "train/1", "test/1", True, True],
        ["near", "train/2", "test/2", True, False],
        ["near", "val/1", "test/0", True, False],
    ]


def test_twins_are_the_rows_with_a_duplicate_in_the_known_splits():
    assert find_twins(LEAKY)["test"].tolist() == [0, 1, 2]
    assert find_twins(LEAKY, known=("train",))["test"].tolist() == [1, 2]
    assert "val" not in find_twins(LEAKY, "val", known=("train",))


def test_predictions_without_some_rows():
    features = synthetic_features()
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    every = prediction(features, protocol="knn", split="test", probabilities=probabilities)
    rest = without_rows(every, np.array([0, 29]))
    assert rest.ids == every.ids[1:29]
    assert np.array_equal(rest.labels, every.labels[1:29])
    assert np.array_equal(rest.probabilities, every.probabilities[1:29])
    assert rest.caveat == "without 2 images that have a twin in train or val"


def test_faulty_images_are_listed():
    white = blocks(5).copy()
    white[:16] = 255
    faulty = audit(made(all=[(blocks(0), 0), (np.full((9, 9), 7, np.uint8), 1), (white, 1)])).faulty
    assert faulty[["row", "class", "fault"]].values.tolist() == [
        [1, "b", "constant"],
        [2, "b", "saturated"],
    ]


def test_drift_of_size_and_intensity():
    larger = [
        (np.asarray(Image.fromarray(image).resize((96, 64))), label) for image, label in TRAIN
    ]
    dark = [(image // 4, label) for image, label in TRAIN]
    drift = audit(made(train=TRAIN, val=larger, test=dark)).drift.set_index(
        ["split_1", "split_2", "quantity"]
    )
    assert drift.loc[("train", "val", "width"), ["median_1", "median_2", "ks"]].tolist() == [
        64,
        96,
        1,
    ]
    assert drift.loc[("train", "val", "height"), "ks"] == 0
    assert drift.loc[("train", "test", "mean"), "p"] < 0.001


def test_embeddings_find_what_the_hash_does_not():
    features = synthetic_features(sizes={"train": 40, "test": 20}, classes=30, noise=0.01, width=16)
    images = {
        split: [
            (blocks(100 + row if split == "train" else 200 + row), label)
            for row, label in enumerate(labels)
        ]
        for split, labels in features.labels.items()
    }
    # known pairs say what "alike" is
    images["val"] = [(darker(image), label) for image, label in images["train"][:12]]
    tokens = features.arrays["train"]["class_token"]
    features.arrays["val"] = {"class_token": tokens[:12] + np.float32(0.02)}
    result = audit(made(classes=features.classes, **images), features=features)
    alike = result.pairs[result.pairs["kind"] == "embedding"]
    assert len(alike) and not alike["across_labels"].any()  # a class is one place in the embedding
    assert alike["bits"].isna().all() and (alike["similarity"] > 0.99).all()
    assert "alike by the embeddings of random-t16" in result.summary


def test_too_few_known_pairs_say_nothing_about_embeddings():
    features = synthetic_features(sizes={"train": 8, "test": 4}, classes=2)
    pairs = audit(made(train=TRAIN, test=TEST), features=features).pairs
    assert set(pairs["kind"]) == {"exact", "near"}
    assert pairs["similarity"].notna().all()


def test_the_tables_are_written(tmp_path, synthetic_dataset):
    result = audit(synthetic_dataset((6, 3, 4), size=64))
    assert "6 train, 3 val, 4 test" in result.summary
    tables = sorted(path.name for path in result.write(tmp_path / "out"))
    names = ("drift", "faulty", "pairs", "summary", "unreadable")
    assert tables == [f"made_{name}.csv" for name in names]
    assert len(pd.read_csv(tmp_path / "out" / "made_drift.csv")) == 3 * 4


@pytest.mark.data
def test_the_known_pair_of_breastmnist_is_found(shared_data):
    pairs = audit(load_dataset("breastmnist-64", folder=shared_data / "medmnist")).pairs
    known = pairs[
        pairs["row_1"].eq(115)
        & pairs["split_1"].eq("train")
        & pairs["row_2"].eq(76)
        & pairs["split_2"].eq("test")
    ]
    assert known[["kind", "class_1", "class_2"]].values.tolist() == [
        ["exact", "malignant", "normal, benign"]
    ]
