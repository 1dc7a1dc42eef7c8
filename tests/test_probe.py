import pytest
import timm
import torch

from radiodino_utils.corpus import Source, load_corpus
from radiodino_utils.datasets import load_dataset
from radiodino_utils.errors import InputError
from radiodino_utils.probe import KnnProbe

from .made_corpus import made_corpus, made_npz


@pytest.fixture
def labelled(tmp_path):
    return load_dataset(f"npz:{made_npz(tmp_path / 'labelled.npz')}")


def test_probe_of_a_model_that_keeps_its_mode(labelled, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2).train()
    found = KnnProbe(labelled, corpus=made_corpus(tmp_path), size=32)(model)
    assert set(found) == {"probe", "probe_auc"} and 0 <= found["probe"] <= 1
    assert model.training


def test_a_corpus_must_not_hold_the_probe(labelled, tmp_path):
    shared = load_corpus([Source(tmp_path / "labelled.npz")])
    KnnProbe(labelled, corpus=shared)  # training rows in the bank only
    made = load_dataset(f"npz:{made_npz(tmp_path / 'other.npz', seed=6)}")  # its val rows are labelled's train rows
    with pytest.raises(InputError, match="pictures of the probe are in the corpus"):
        KnnProbe(made, corpus=shared)


def test_a_set_without_val(labelled):
    del labelled.splits["val"]
    with pytest.raises(InputError, match="has no split val"):
        KnnProbe(labelled)
