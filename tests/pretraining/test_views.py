import numpy as np
import torch

from radiodino_utils.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from radiodino_utils.pretraining.views import ViewSet, make_views

from ..synthetic_corpus import smallest, synthetic_corpus, synthetic_images

QUIET = {
    "rotation": 0.0,
    "flip": 0.0,
    "jitter_probability": 0.0,
    "blur": [0, 0, 0],
    "noise_probability": 0.0,
    "field": [1.0, 1.0],
    "global_scale": [1.0, 1.0],
    "aspect": [1.0, 1.0],
}


def views(config, count=4, seed=0):
    images = list(synthetic_images(count)[0])
    return make_views(images, config, [np.random.default_rng([seed, row]) for row in range(count)])


def to_grey(batch):
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    return batch * std + mean


def test_shapes_of_multi_crop_and_masks():
    made = views(smallest(method="dinov2", local_count=3))
    assert made.global_views.shape == (8, 3, 32, 32)
    assert made.local_views.shape == (12, 3, 16, 16)
    assert made.masks.shape == (8, 2, 2) and made.masks.dtype == torch.bool and made.masks.any()
    assert not views(smallest()).masks.any()
    assert views(smallest(local_count=0)).local_views.shape == (0, 3, 16, 16)


def test_a_quiet_recipe_only_resizes():
    image = np.zeros((64, 64), np.uint8)
    image[10:20, 30:60] = 200
    made = make_views([image], smallest(**QUIET), [np.random.default_rng(0)])
    expected = image.reshape(32, 2, 32, 2).mean((1, 3)) / 255
    grey = to_grey(made.global_views)
    assert np.abs(grey[0, 0].numpy() - expected).max() < 0.01
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-5)


def test_mirrored_and_turned_about_the_middle():
    image = np.zeros((32, 32), np.uint8)
    image[8:12, 4:10] = 250
    mirrored = make_views([image], smallest(**QUIET | {"flip": 1.0}), [np.random.default_rng(0)])
    assert np.abs(to_grey(mirrored.global_views)[0, 0].numpy() - image[:, ::-1] / 255).max() < 0.01
    disc = ((np.hypot(*(np.mgrid[:32, :32] - 15.5)) < 10) * 255).astype(np.uint8)
    turned = make_views([disc], smallest(**QUIET | {"rotation": 90.0}), [np.random.default_rng(0)])
    assert np.abs(to_grey(turned.global_views)[0, 0].numpy() - disc / 255).mean() < 0.03


def test_strong_changes_stay_in_range_and_finite():
    made = views(
        smallest(brightness=0.9, contrast=0.9, noise=0.5, noise_probability=1.0, blur=[1, 1, 1])
    )
    grey = to_grey(made.global_views)
    assert torch.isfinite(grey).all() and grey.min() > -1e-4 and grey.max() < 1 + 1e-4


def test_same_numbers_same_views_other_numbers_other_views():
    config = smallest(method="dinov2")
    first, again, other = views(config), views(config), views(config, seed=1)
    assert torch.equal(first.global_views, again.global_views) and torch.equal(
        first.masks, again.masks
    )
    assert not torch.equal(first.global_views, other.global_views)


def test_ranks_share_a_batch(tmp_path):
    corpus, config = synthetic_corpus(tmp_path), smallest()
    whole = ViewSet(corpus, config, seed=3)[2].global_views.view(2, 8, 3, 32, 32)
    for rank in range(2):
        part = ViewSet(corpus, config, seed=3, rank=rank, world=2)[2].global_views.view(
            2, 4, 3, 32, 32
        )
        assert torch.equal(part, whole[:, rank::2])


def test_a_tiny_image_is_no_trouble():
    made = make_views([np.full((1, 3), 9, np.uint8)], smallest(), [np.random.default_rng(0)])
    assert torch.isfinite(made.global_views).all()
