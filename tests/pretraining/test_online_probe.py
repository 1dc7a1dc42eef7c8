import numpy as np
import pytest
import timm
import torch

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.online_probe import KnnProbe
from radiodino_utils.pretraining.sources import Source

from ..synthetic_corpus import synthetic_corpus, synthetic_npz


@pytest.fixture
def labelled(tmp_path):
    return load_dataset(f"npz:{synthetic_npz(tmp_path / 'labelled.npz')}")


def test_probe_of_a_model_that_keeps_its_mode(labelled, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2).train()
    found = KnnProbe(labelled, corpus=synthetic_corpus(tmp_path), size=32)(model)
    assert set(found) == {"probe", "probe_auc"} and 0 <= found["probe"] <= 1
    assert model.training


def test_a_corpus_must_not_hold_the_probe(labelled, tmp_path):
    shared = load_corpus([Source(tmp_path / "labelled.npz")])
    KnnProbe(labelled, corpus=shared)  # training rows in the bank only
    made = load_dataset(
        f"npz:{synthetic_npz(tmp_path / 'other.npz', seed=6)}"
    )  # its val rows are labelled's train rows
    with pytest.raises(InputError, match="images of the probe are in the corpus"):
        KnnProbe(made, corpus=shared)


def test_a_set_without_val(labelled):
    del labelled.splits["val"]
    with pytest.raises(InputError, match="has no split val"):
        KnnProbe(labelled)


class Brightness(torch.nn.Module):
    """Features of a image: its three means, and noise that does not depend on it."""

    def __init__(self, sign: float = 1.0):
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(sign))

    def forward(self, images):
        noise = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(len(images)))
        return torch.cat([self.sign * images.mean((2, 3)), noise], 1)


def test_cross_validation_finds_what_the_features_hold_and_no_more(tmp_path):
    images, labels = (
        np.random.default_rng(0).integers(0, 100, (120, 28, 28), np.uint8),
        np.arange(120)[:, None] % 2,
    )
    images[labels[:, 0] == 1] += 100
    splits = {"train": slice(80), "val": slice(80, 100), "test": slice(100, 120)}
    arrays = {f"{name}_images": images[rows] for name, rows in splits.items()}
    np.savez(
        tmp_path / "bright.npz",
        **arrays,
        **{f"{name}_labels": labels[rows] for name, rows in splits.items()},
    )
    probe = KnnProbe(load_dataset(f"npz:{tmp_path / 'bright.npz'}"), size=28)
    assert min(probe.cross_validated(Brightness()).values()) > 0.99
    blind = probe.cross_validated(Brightness(0.0))
    assert set(blind) == {"knn", "logistic"} and max(blind.values()) < 0.7


def test_too_few_images_to_cross_validate(labelled):
    probe = KnnProbe(labelled, size=28)
    with pytest.raises(InputError, match="no class has 500 images"):
        probe.cross_validated(Brightness(), folds=500)
