import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.faithfulness import (
    mass_share,
    pointing_hit,
    road,
)

from ..conftest import tiny_transformer

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__"
)  # of the imputer in pytorch-grad-cam

BRIGHT = np.zeros((6, 6), bool)
BRIGHT[1:3, 3:5] = True
IMAGE = np.kron(BRIGHT * 200, np.ones((16, 16))).astype(np.uint8) + 20


class MeanToken(nn.Module):
    """The embedding of an image is its mean grey level: what a score depends on is known."""

    def forward(self, embeddings):
        return torch.stack([embeddings[:, 0], -embeddings[:, 0]], 1)


@pytest.fixture(scope="module")
def brightness():
    """A transformer with empty blocks, whose embedding holds the mean brightness alone."""
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False, "final_norm": False}
    model = tiny_transformer(img_size=96, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 1 / (3 * 16 * 16)
    return from_model("brightness", model, "made")


def test_road_ranks_maps_by_what_the_score_depends_on(brightness):
    right, none, wrong = (
        road(brightness, MeanToken(), IMAGE, map_, 0)
        for map_ in (BRIGHT * 1.0, np.ones((6, 6)), ~BRIGHT * 1.0)
    )
    assert right > 0.02 and wrong < none < right and wrong < 0
    assert road(brightness, MeanToken(), IMAGE, BRIGHT * 1.0, 1) == pytest.approx(-right, abs=1e-6)


def test_road_repeats(brightness):
    map_ = np.random.default_rng(0).random((6, 6))
    assert road(brightness, MeanToken(), IMAGE, map_, 0) == road(
        brightness, MeanToken(), IMAGE, map_, 0
    )
    assert road(brightness, MeanToken(), IMAGE, map_**3 + 5, 0) == road(
        brightness, MeanToken(), IMAGE, map_, 0
    )  # ranks only


def test_road_of_a_map_on_another_grid(brightness):
    with pytest.raises(
        InputError, match=r"^a map of \(7, 6\): the patch grid of brightness is \(6, 6\)"
    ):
        road(brightness, MeanToken(), IMAGE, np.ones((7, 6)), 0)


@given(map_=arrays(float, (4, 6), elements=st.floats(0.01, 1)), seed=st.integers(0, 99))
def test_shares_of_a_mask_and_of_the_rest_add_up(map_, seed):
    mask = np.random.default_rng(seed).random((64, 96)) < 0.5
    assert mass_share(map_, mask) + mass_share(map_, ~mask) == pytest.approx(1, abs=1e-5)
    assert mass_share(np.ones_like(map_), mask) == pytest.approx(mask.mean(), abs=1e-5)
    assert mass_share(map_, np.ones_like(mask)) == pytest.approx(1)


def test_mass_and_pointing_on_a_mask():
    mask = np.kron(BRIGHT, np.ones((16, 16))) > 0
    assert mass_share(BRIGHT * 1.0, mask) == 1 and mass_share(~BRIGHT * 1.0, mask) == 0
    assert pointing_hit(BRIGHT * 1.0, mask) == 1 and pointing_hit(~BRIGHT * 1.0, mask) == 0
    assert pointing_hit(np.ones((6, 6)), mask) == pytest.approx(
        BRIGHT.mean()
    )  # an even map points nowhere
    assert np.isnan(mass_share(np.zeros((6, 6)), mask))


def test_masks_that_do_not_serve():
    with pytest.raises(InputError, match="^the mask is empty"):
        mass_share(np.ones((2, 2)), np.zeros((32, 32), bool))
    with pytest.raises(
        InputError, match=r"^a mask of \(4, 4\) is smaller than the grid of \(6, 6\) patches"
    ):
        pointing_hit(np.ones((6, 6)), np.ones((4, 4), bool))
