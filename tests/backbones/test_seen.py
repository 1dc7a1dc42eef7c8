import numpy as np
import pytest

from radiodino_utils.backbones import seen as module
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.seen import (
    corpus_prefixes,
    most_seen,
    seen_images,
    seen_in_pretraining,
)
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.features.extraction import extract_features

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 16), np.uint8)


@pytest.fixture
def corpus_of(monkeypatch, tmp_path):
    """Lets the corpus of the bundled backbone be these images."""

    def use(digests):
        np.save(tmp_path / "corpus.npy", corpus_prefixes(digests))
        monkeypatch.setattr(module, "bundled_file", lambda _: tmp_path / "corpus.npy")

    return use


def split(rows):
    return Split(IMAGES[rows], np.zeros(len(rows), np.int64), [str(row) for row in rows])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "none"),
        ([0], "unlabelled train"),
        ([2], "unlabelled train"),
        ([1, 4], "unlabelled test"),
    ],
)
def test_what_was_seen_follows_from_the_corpus(corpus_of, rows, said):
    corpus_of(module.image_digests(IMAGES[rows]))
    splits = {"train": split([0, 1]), "val": split([2, 3]), "test": split([4, 5])}
    assert (
        seen_in_pretraining(
            {name: seen_images("radiodino-mini", split.images) for name, split in splits.items()}
        )
        == said
    )


def test_colour_does_not_hide_an_image(corpus_of):
    corpus_of(module.image_digests(IMAGES[:1]))
    assert seen_images("radiodino-mini", np.repeat(IMAGES[:2, ..., None], 3, -1)) == [True, False]


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("random-t16", "none"),
        ("pixels", "none"),
        ("radiodino-s16", "not known"),
        ("file:a", "not known"),
    ],
)
def test_backbones_without_a_known_corpus(backbone, said):
    assert seen_in_pretraining({"test": seen_images(backbone, IMAGES)}) == said


def test_of_several_folds_the_most_counts():
    assert most_seen(["none", "unlabelled test", "unlabelled train"]) == "unlabelled test"
    assert most_seen(["not known", "none"]) == "not known"


def test_an_image_of_busi_is_known_by_each_of_its_sizes(shared_data, monkeypatch, corpus_of):
    monkeypatch.setenv("MEDMNIST", str(shared_data / "medmnist"))
    monkeypatch.setenv("BUSI", str(shared_data / "busi"))
    small = load_dataset("breastmnist-64").splits
    corpus_of(module.image_digests(small["train"].images[:3]))
    assert np.flatnonzero(seen_images("radiodino-mini", small["train"].images)).tolist() == [
        0,
        1,
        2,
    ]
    large = load_dataset("breastmnist-224").splits
    assert np.flatnonzero(seen_images("radiodino-mini", large["train"].images)).tolist() == [
        0,
        1,
        2,
    ]
    busi = load_dataset("busi").splits["all"]
    seen = np.flatnonzero(seen_images("radiodino-mini", busi.images))
    assert {busi.ids[row] for row in seen} == {"normal (45)", "benign (56)", "benign (244)"}


def test_features_carry_it_from_their_file(corpus_of, tiny_backbone, tmp_path):
    from dataclasses import replace

    corpus_of(module.image_digests(IMAGES[[4]]))
    dataset = ImageDataset(
        "tiny", ("a",), {"train": split([0, 1]), "test": split([4, 5])}, "digest"
    )
    options = {"folder": tmp_path, "engine": "torch", "precision": "fp32"}
    backbone = replace(tiny_backbone, name="radiodino-mini")
    assert [
        extract_features(backbone, dataset, **options).seen_in_pretraining for _ in range(2)
    ] == ["unlabelled test"] * 2
    pixels = extract_features(load_backbone("pixels"), dataset, **options)
    assert pixels.seen_in_pretraining == "none"
