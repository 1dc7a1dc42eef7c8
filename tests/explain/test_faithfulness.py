import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.results import COLUMNS
from radiodino_utils.explain.class_activation import KnnVote, LinearProbe
from radiodino_utils.explain.faithfulness import (
    METRICS,
    against_control,
    explanation_maps,
    explanation_rows,
    explanation_scores,
    mass_share,
    pointing_hit,
    road,
)

from ..conftest import tiny_transformer
from ..synthetic import synthetic_features

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__"
)  # of the imputer in pytorch-grad-cam

BRIGHT = np.zeros((6, 6), bool)
BRIGHT[1:3, 3:5] = True
IMAGE = np.kron(BRIGHT * 200, np.ones((16, 16))).astype(np.uint8) + 20


class MeanToken(nn.Module):
    """The embedding of a image is its mean grey level, so that what a score depends on is known."""

    def forward(self, embeddings):
        return torch.stack([embeddings[:, 0], -embeddings[:, 0]], 1)


@pytest.fixture(scope="module")
def brightness():
    """A transformer whose only embedding number is the mean brightness: empty blocks, a constant patch kernel, no norm."""
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


def test_scores_become_result_rows():
    backbone = from_model("tiny", tiny_transformer(), "made")
    features = synthetic_features(width=128)
    probes = {"linear": LinearProbe(features), "knn": KnnVote(features)}
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)
    masks = np.zeros((4, 32, 32), bool)
    masks[:, :16] = True
    scores = explanation_scores(backbone, probes, probes["linear"], images, masks)
    names = ["attention", "rollout", "Grad-CAM linear", "Grad-CAM knn", "centre", "even"]
    assert list(explanation_maps(backbone, probes, images[0])) == names
    assert list(scores["map"]) == names * 4 and scores["road"].abs().max() <= 0.5
    rows = explanation_rows(
        scores, backbone, dataset="made", split="test", seed=3, caveat="made images"
    )
    assert tuple(rows.columns) == COLUMNS and len(rows) == len(names) * len(METRICS)
    assert (rows["ci_low"] <= rows["value"] + 1e-9).all() and (
        rows["value"] <= rows["ci_high"] + 1e-9
    ).all()
    assert (
        set(rows["n"]) <= {3, 4}
        and set(rows["weights"]) == {backbone.fingerprint}
        and set(rows["seed"]) == {3}
    )
    even = rows[(rows["protocol"] == "even") & (rows["metric"] == "mass_share")].iloc[0]
    assert even["value"] == pytest.approx(0.5)
    with pytest.raises(InputError, match="^4 images and 3 masks"):
        explanation_scores(backbone, probes, probes["linear"], images, masks[:3])


class Never(nn.Module):
    """A vote without a neighbour of any class."""

    def forward(self, embeddings):
        return torch.full((len(embeddings), 4), -1e9) + 0 * embeddings[:, :1]


def test_a_probe_that_has_nothing_to_explain_has_no_map():
    backbone, features = (
        from_model("tiny", tiny_transformer(), "made"),
        synthetic_features(width=128),
    )
    judge, images = (
        LinearProbe(features),
        np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8),
    )
    scores = explanation_scores(
        backbone, {"linear": judge, "never": Never()}, judge, images, np.ones((2, 32, 32), bool)
    )
    assert list(scores["map"]) == ["attention", "rollout", "Grad-CAM linear", "centre", "even"] * 2
    half = scores.drop(index=scores.index[(scores["map"] == "rollout") & (scores["image"] == 1)])
    compared = against_control(half, scores).set_index("map")["n"]
    assert set(compared["rollout"]) == {1} and set(compared["attention"]) == {2}


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.3, "beats the control"), (-0.3, "loses to the control"), (0.0, "no difference shown")],
)
def test_verdicts_are_of_differences_on_the_same_images(shift, verdict):
    """Images differ by more than the maps do, so only a paired comparison tells them apart."""
    spread = np.random.default_rng(0).normal(scale=5, size=20)
    control = pd.DataFrame(
        {"map": "attention", "image": range(20)} | dict.fromkeys(METRICS, spread)
    )
    scores = control.copy()
    scores[list(METRICS)] += shift + np.random.default_rng(1).normal(scale=0.1, size=(20, 1)) * [
        1,
        1,
        1,
    ] * (shift != 0)
    found = against_control(scores, control)
    assert list(found["verdict"]) == [verdict] * 3 and set(found["n"]) == {20}
    one_for_all = pd.concat([scores, scores.assign(map="rollout"), scores.assign(map="even")])
    assert list(against_control(one_for_all, control.assign(map="even"))["map"].unique()) == [
        "attention",
        "rollout",
    ]
