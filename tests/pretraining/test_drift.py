import numpy as np
import torch

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.pretraining import drift
from radiodino_utils.pretraining.drift import Drift
from radiodino_utils.pretraining.start import start_transformer

from ..synthetic_corpus import smallest, synthetic_images

BACKBONE = load_backbone("random-t16")


def test_neighbours_and_rank_against_the_start(monkeypatch):
    features = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    values = iter(
        [features, features, features[::-1].copy(), np.outer(features[:, 0], features[0])]
    )
    monkeypatch.setattr(drift, "class_tokens", lambda *_: next(values))
    images = list(synthetic_images(30)[0])
    config = smallest(min_overlap=0.5, min_rank=0.9)
    measured = Drift(torch.nn.Identity(), BACKBONE.preprocessing, images, config)
    same = measured(torch.nn.Identity())
    assert same == {"overlap": 1.0, "rank_of_start": 1.0} and not measured.reason_to_stop(same)
    shuffled = measured(torch.nn.Identity())
    assert shuffled["overlap"] < 0.4 and abs(shuffled["rank_of_start"] - 1) < 1e-5
    assert "of the neighbours are left, fewer than 50%" in measured.reason_to_stop(shuffled)
    flat = measured(torch.nn.Identity())
    assert flat["rank_of_start"] < 0.5
    assert "the rank of the features fell" in measured.reason_to_stop(flat | {"overlap": 1.0})


def test_a_start_has_not_drifted_from_itself():
    start = start_transformer(BACKBONE)
    images = list(synthetic_images(20)[0])
    found = Drift(start, BACKBONE.preprocessing, images, smallest())(start)
    assert found == {"overlap": 1.0, "rank_of_start": 1.0}
