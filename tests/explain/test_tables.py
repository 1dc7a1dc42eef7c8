import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.results import COLUMNS
from radiodino_utils.explain import (
    KnnVote,
    LinearProbe,
    against_control,
    against_controls,
    attention_maps,
    diversity_table,
    explanation_maps,
    explanation_rows,
    explanation_scores,
    head_diversity,
    maps_that_beat_controls,
    mass_table,
)
from radiodino_utils.explain.faithfulness import METRICS

from ..conftest import tiny_transformer
from ..synthetic import synthetic_features

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__"
)  # of the imputer in pytorch-grad-cam


@pytest.fixture(scope="module")
def backbone():
    return from_model("tiny", tiny_transformer(), "synthetic")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)


class Never(nn.Module):
    """A vote without a neighbour of any class."""

    def forward(self, embeddings):
        return torch.full((len(embeddings), 4), -1e9) + 0 * embeddings[:, :1]


def synthetic_scores(backbone="a", maps=("attention",), shift=0.0):
    """Scores that differ more between images than between backbones."""
    spread = np.random.default_rng(0).normal(scale=5, size=20)
    noise = np.random.default_rng(1).normal(scale=0.1, size=20) * (shift != 0)
    tables = [
        pd.DataFrame(
            {"map": name, "image": range(20)} | dict.fromkeys(METRICS, spread + shift + noise)
        )
        for name in maps
    ]
    facts = {"backbone": backbone, "weights": f"of {backbone}", "seen_in_pretraining": "none"}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def test_head_diversity_of_every_image_and_block(backbone, images):
    table = diversity_table([backbone], images[:2], ["first", "second"])
    blocks = len(backbone.model.blocks)
    assert list(table) == ["backbone", "block", "image", "divergence_bits"]
    assert list(table["image"]) == ["first"] * blocks + ["second"] * blocks
    assert list(table["block"]) == [*range(1, blocks + 1)] * 2
    expected = head_diversity(attention_maps(backbone, images[1], blocks=range(blocks)).rows)
    np.testing.assert_array_equal(table["divergence_bits"][blocks:], expected)


def test_scores_become_result_rows(backbone, images):
    features = synthetic_features(width=128)
    probes = {"linear": LinearProbe(features), "knn": KnnVote(features)}
    of_backbones = {"tiny": probes}
    masks = np.zeros((4, 32, 32), bool)
    masks[:, :16] = True
    scores = explanation_scores([backbone], of_backbones, images, masks, judge="linear")
    names = ["attention", "rollout", "Grad-CAM linear", "Grad-CAM knn", "centre", "even"]
    assert list(explanation_maps(backbone, probes, images[0])) == names
    assert list(explanation_maps(backbone, probes, images[0], controls=False)) == names[:4]
    assert list(scores["map"]) == names * 4 and scores["road"].abs().max() <= 0.5
    rows = explanation_rows(scores, dataset="made", split="test", seed=3, caveat="made images")
    assert tuple(rows.columns) == COLUMNS and len(rows) == len(names) * len(METRICS)
    assert (rows["ci_low"] <= rows["value"] + 1e-9).all()
    assert (rows["value"] <= rows["ci_high"] + 1e-9).all()
    assert set(rows["n"]) <= {3, 4} and set(rows["seed"]) == {3}
    assert set(rows["weights"]) == {backbone.fingerprint}
    even = rows[(rows["protocol"] == "even") & (rows["metric"] == "mass_share")].iloc[0]
    assert even["value"] == pytest.approx(0.5)
    with pytest.raises(InputError, match="^4 images and 3 masks"):
        explanation_scores([backbone], of_backbones, images, masks[:3], judge="linear")


def test_mass_of_the_maps_of_several_backbones():
    mask = np.zeros((32, 32), bool)
    mask[:, :16] = True
    even, left = np.ones((2, 2)), np.array([[1.0, 0.0], [1.0, 0.0]])
    table = mass_table({"a": {"even": even, "left": left}, "b": {"left": left}}, mask)
    assert list(table.itertuples(index=False, name=None)) == [
        ("a", "even", 0.5),
        ("a", "left", 1.0),
        ("b", "left", 1.0),
    ]


def test_rows_of_several_backbones_keep_their_order_and_weights():
    scores = pd.concat([synthetic_scores("b", shift=1), synthetic_scores("a")])
    rows = explanation_rows(scores, dataset="made", split="test")
    assert list(rows["backbone"]) == ["b"] * 3 + ["a"] * 3
    assert list(rows["weights"]) == ["of b"] * 3 + ["of a"] * 3
    assert rows["value"][0] - rows["value"][3] == pytest.approx(1, abs=0.1)


def test_a_probe_that_has_nothing_to_explain_has_no_map(backbone, images):
    probes = {"tiny": {"linear": LinearProbe(synthetic_features(width=128)), "never": Never()}}
    masks = np.ones((2, 32, 32), bool)
    scores = explanation_scores([backbone], probes, images[:2], masks, judge="linear")
    assert set(scores["seen_in_pretraining"]) == {"not known"}
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
    compared = against_control(synthetic_scores(shift=shift), synthetic_scores())
    assert list(compared["verdict"]) == [verdict] * 3 and set(compared["n"]) == {20}
    maps = synthetic_scores(maps=("attention", "rollout", "even"), shift=shift)
    single = against_control(maps, synthetic_scores(maps=("even",)))
    assert list(single["map"].unique()) == ["attention", "rollout"]


def test_the_sentence_names_the_maps_that_beat_every_control():
    parts = [
        synthetic_scores("trained", ("attention",), 0.3),
        synthetic_scores("trained", ("rollout", "even", "centre"), 0.0),
        synthetic_scores("random", ("attention", "rollout", "even", "centre"), 0.0),
    ]
    sentences = maps_that_beat_controls(against_controls(pd.concat(parts)))
    assert sentences[0] == "trained, ROAD: maps that beat every control: attention."
    assert len(sentences) == 6 and sentences[-1].endswith("maps that beat every control: none.")


def test_every_backbone_is_compared_with_the_last_one_and_with_both_control_maps():
    maps = ("attention", "even", "centre")
    names = ("trained", "other", "random")
    scores = pd.concat(
        [
            synthetic_scores(name, maps, shift)
            for name, shift in zip(names, (0.3, -0.3, 0), strict=True)
        ]
    )
    verdicts = against_controls(scores)
    assert list(verdicts["comparison"].unique()) == [
        "trained against random",
        "other against random",
        *(f"{name} against {control}" for name in names for control in ("even", "centre")),
    ]
    first = verdicts[verdicts["comparison"] == "trained against random"]
    pd.testing.assert_frame_equal(
        first.drop(columns="comparison"),
        against_control(scores[scores["backbone"] == "trained"], synthetic_scores("random", maps)),
    )
