"""From outside the package: a backbone, a dataset, a protocol and a figure of one's own."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import timm

import radiodino_utils as rd
from radiodino_utils.backbones import loading, registry
from radiodino_utils.backbones.registry import register_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.data import registry as datasets
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.registry import register_dataset
from radiodino_utils.evaluation import protocols
from radiodino_utils.evaluation.predictions import prediction
from radiodino_utils.evaluation.protocols import register_protocol
from radiodino_utils.plots import registry as figures
from radiodino_utils.plots.registry import register_figure


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Let every registration end with the test."""
    backbones = dict(registry.REGISTRY)
    monkeypatch.setattr(registry, "REGISTRY", backbones)
    monkeypatch.setattr(loading, "REGISTRY", backbones)
    monkeypatch.setattr(datasets, "_registered", dict(datasets._registered))
    monkeypatch.setattr(figures, "_figures", dict(figures._figures))
    monkeypatch.setattr(protocols, "_protocols", dict(protocols._protocols))


def tiny():
    """Return a backbone of one's own: any vision transformer of timm without a classifier."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0, pretrained=False
    )


def stripes():
    """Return a dataset of one's own: horizontal and vertical stripes."""
    generator = np.random.default_rng(0)
    pattern = np.tile(np.array([[0], [255]], np.uint8), (16, 32))
    splits = {}
    for split, count in (("train", 12), ("val", 6), ("test", 8)):
        labels = np.arange(count) % 2
        images = [pattern if label else pattern.T for label in labels]
        noise = generator.integers(0, 40, (count, 32, 32))
        noisy = np.clip(np.stack(images) + noise, 0, 255).astype(np.uint8)
        splits[split] = Split(noisy, labels, [f"{split} {row}" for row in range(count)])
    return ImageDataset("stripes", ("vertical", "horizontal"), splits, digest="stripes-1")


def nearest_mean(features):
    """Classify by the nearest mean of a class: a protocol of one's own."""
    embedding, labels = features.labelled("train")
    means = np.stack([embedding[labels == label].mean(0) for label in (0, 1)])
    distances = np.linalg.norm(features.embedding("test")[:, None] - means, axis=2)
    probabilities = np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)
    return prediction(features, protocol="nearest-mean", split="test", probabilities=probabilities)


def bars(table):
    """Draw the scores: a figure of one's own."""
    figure, axes = plt.subplots()
    axes.bar(table["metric"], table["value"])
    return figure


def test_one_of_each_works_like_those_of_the_package():
    register_backbone("tiny", tiny, source="this test")
    register_dataset("stripes", stripes)
    register_protocol("nearest-mean", nearest_mean)
    register_figure("bars", bars)

    features = rd.extract_features("tiny", "stripes")
    table = rd.score(rd.classify(features, "nearest-mean"))
    assert set(table["dataset"]) == {"stripes"} and set(table["backbone"]) == {"tiny"}
    assert table["value"].between(0, 1).all()
    plt.close(rd.plots.bars(table))


@pytest.mark.parametrize(
    "register",
    [
        lambda: register_backbone("pixels", tiny, source="this test"),
        lambda: register_dataset("organct-axial", stripes),
        lambda: register_protocol("knn", nearest_mean),
        lambda: register_figure("style", bars),
    ],
)
def test_a_name_of_the_package_cannot_be_taken(register):
    with pytest.raises(InputError, match="choose another"):
        register()
